#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caravan {

// GPT-2's alphabet: byte-level vocabularies spell every byte as one printable character. Bytes that print
// stand for themselves, the 68 others for U+0100 and on, so a space is U+0120.

// The characters for `bytes`.
std::string to_byte_letters(std::string_view bytes);
// The bytes for `letters`; nothing when a character is not of the alphabet.
std::optional<std::string> from_byte_letters(std::string_view letters);

}  // namespace caravan
