#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "model/vocabulary.h"

namespace caravan {

// One character read from bytes that may be anything.
struct Utf8Char {
  uint32_t code = 0;   // U+FFFD where the bytes are broken
  uint32_t bytes = 0;  // at least 1; a broken sequence is as long as Unicode's "maximal subpart"
  bool valid = false;
};

// The character at the start of `text`, which is not empty.
Utf8Char first_char(std::string_view text);
// The length of the character that starts at the lead byte `lead`; 1 for a byte that starts none.
size_t utf8_bytes(uint8_t lead);
bool is_valid_utf8(std::string_view text);
// Every broken sequence becomes one U+FFFD.
std::string to_valid_utf8(std::string_view text);
void append_utf8(std::string& out, uint32_t code);
// How many last bytes of `text` are the beginning of a character that is not complete yet; 0 to 3.
size_t incomplete_tail(std::string_view text);

// Unicode's White_Space.
bool is_white_space(uint32_t code);
// A letter, mark, digit or connector, as \w means it.
bool is_word_char(uint32_t code);

// Throws kLimit when a text to encode has more than limits::kMaxEncodedBytes.
void check_growth(size_t bytes);
// One step; `text` is valid UTF-8 and so is the answer. Throws kLimit as above. kReplacePattern is not for
// here: it belongs to the regular expressions (model/pretokenizer.h).
std::string normalize(const NormalizerStep& step, std::string_view text);

}  // namespace caravan
