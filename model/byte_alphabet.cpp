#include "model/byte_alphabet.h"

#include <array>

#include "model/unicode.h"

namespace caravan {
namespace {

constexpr uint32_t kLetters = 0x144;  // one more than the last letter's code
constexpr uint16_t kNoByte = 0xFFFF;

struct Alphabet {
  std::array<uint16_t, 256> letter{};
  std::array<uint16_t, kLetters> byte{};
};

constexpr bool prints(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (uint16_t& byte : alphabet.byte) byte = kNoByte;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t letter = prints(byte) ? byte : next++;
    alphabet.letter[byte] = static_cast<uint16_t>(letter);
    alphabet.byte[letter] = static_cast<uint16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();
static_assert(kAlphabet.letter[' '] == 0x120 && kAlphabet.byte[kLetters - 1] == 0xAD);

}  // namespace

std::string to_byte_letters(std::string_view bytes) {
  std::string letters;
  letters.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(letters, kAlphabet.letter[static_cast<uint8_t>(byte)]);
  return letters;
}

std::optional<std::string> from_byte_letters(std::string_view letters) {
  std::string bytes;
  bytes.reserve(letters.size());
  while (!letters.empty()) {
    const Utf8Char next = first_char(letters);
    if (!next.valid || next.code >= kLetters || kAlphabet.byte[next.code] == kNoByte) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte[next.code]));
    letters.remove_prefix(next.bytes);
  }
  return bytes;
}

}  // namespace caravan
