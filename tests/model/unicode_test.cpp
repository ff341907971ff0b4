#include "model/unicode.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/random.h"
#include "model/byte_alphabet.h"

namespace caravan {
namespace {

TEST(Unicode, ReadsAndWritesEveryCharacter) {
  for (uint32_t code = 0; code < 0x110000; code += code < 0x3000 ? 1 : 17) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char read = first_char(text);
    ASSERT_TRUE(read.valid);
    ASSERT_EQ(read.code, code);
    ASSERT_EQ(read.bytes, text.size());
    ASSERT_EQ(utf8_bytes(static_cast<uint8_t>(text[0])), text.size());
    for (size_t bytes = 1; bytes < text.size(); ++bytes) {
      ASSERT_FALSE(first_char(text.substr(0, bytes)).valid);
      ASSERT_EQ(incomplete_tail("a" + text.substr(0, bytes)), bytes);
    }
    ASSERT_EQ(incomplete_tail(text), 0u);
  }
}

// Table 3-8 of the Unicode standard: one replacement for each maximal subpart.
TEST(Unicode, ReplacesBrokenSequencesAsTheStandardAdvises) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(to_valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(to_valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(to_valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Unicode, FindsNoTailInBrokenBytes) {
  EXPECT_EQ(incomplete_tail("\x80\x80\x80\x80"), 0u);
  EXPECT_EQ(incomplete_tail("\xE0\x80"), 0u);  // no third byte can mend it
  EXPECT_EQ(incomplete_tail("\xE1\x80"), 2u);
  EXPECT_EQ(incomplete_tail("\xF5"), 0u);
  EXPECT_EQ(incomplete_tail(""), 0u);
}

TEST(Unicode, NormalizesInSegmentsAsInOnePiece) {
  NormalizerStep nfc;
  nfc.kind = NormalizerStep::Kind::kNfc;
  NormalizerStep nfd = nfc;
  nfd.kind = NormalizerStep::Kind::kNfd;
  std::string composed, decomposed;
  for (int i = 0; i < 3000; ++i) {
    composed += i % 3 ? "\xC3\xA9" : "e";
    decomposed += i % 3 ? "e\xCC\x81" : "e";
  }
  EXPECT_EQ(normalize(nfc, decomposed), composed);
  EXPECT_EQ(normalize(nfd, composed), decomposed);
}

// Sorting marks by exchanging neighbours takes the square of their number.
TEST(Unicode, NormalizesAHostileRunOfMarksInGoodTime) {
  NormalizerStep nfc;
  nfc.kind = NormalizerStep::Kind::kNfc;
  std::string text = "a";
  for (int i = 0; i < 100'000; ++i) text += i % 2 ? "\xCC\x81" : "\xCC\xA3";
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_GE(normalize(nfc, text).size(), text.size() - 8);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST(ByteAlphabet, IsOneToOne) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(from_byte_letters(to_byte_letters(bytes)), bytes);
  }
  EXPECT_EQ(to_byte_letters(" a\n"),
            "\xC4\xA0"
            "a\xC4\x8A");
  EXPECT_EQ(from_byte_letters(" "), std::nullopt);
  EXPECT_EQ(from_byte_letters("\xE4\xBD\xA0"), std::nullopt);
  EXPECT_EQ(from_byte_letters("\xFF"), std::nullopt);
}

}  // namespace
}  // namespace caravan
