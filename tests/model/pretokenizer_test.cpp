#include "model/pretokenizer.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/random.h"
#include "model/unicode.h"
#include "tests/model/tokenizer_support.h"

namespace caravan {
namespace {

using Pieces = std::vector<std::string>;

Pieces cut(std::string_view pre, std::string_view text) {
  const Splitter splitter(pre_tokenizer(pre, "test").splits, "test");
  std::vector<std::string_view> pieces;
  Splitter::Arena arena;
  splitter.split(text, true, pieces, arena);
  return Pieces(pieces.begin(), pieces.end());
}

TEST(PreTokenizer, CutsAsEachFamilyDoes) {
  const std::string text = "I'LL pay 12345 now!\n\n  ok";
  EXPECT_EQ(cut("gpt-2", text), (Pieces{"I", "'", "LL", " pay", " 12345", " now", "!", "\n\n ", " ok"}));
  EXPECT_EQ(cut("llama-bpe", text),
            (Pieces{"I", "'LL", " pay", " ", "123", "45", " now", "!\n\n", " ", " ok"}));
  EXPECT_EQ(cut("qwen2", text),
            (Pieces{"I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " now", "!\n\n", " ", " ok"}));
  EXPECT_EQ(cut("starcoder", text),
            (Pieces{"I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", " now", "!", "\n\n ", " ok"}));
  EXPECT_EQ(cut("falcon", text),
            (Pieces{"I", "'", "LL", " pay", " ", "123", "45", " now", "!", "\n\n ", " ok"}));
  EXPECT_EQ(cut("deepseek-v3", text),
            (Pieces{"I", "'LL", " pay", " ", "123", "45", " now", "!\n\n", " ", " ok"}));
  EXPECT_EQ(cut("deepseek-llm", text),
            (Pieces{"I", "'", "LL", " pay", " ", "12345", " now", "!", "\n", "\n", " ", " ok"}));
  EXPECT_EQ(cut("bloom", text), (Pieces{"I'LL", " pay", " 12345", " now", "!\n\n ", " ok"}));
}

TEST(PreTokenizer, CutsWordsWhereCaseTurns) {
  EXPECT_EQ(cut("tekken", "HTTPServer camelCase it's"),
            (Pieces{"HTTPServer", " camel", "Case", " it", "'s"}));
  EXPECT_EQ(cut("gpt-4o", "camelCase it's 1234"), (Pieces{"camel", "Case", " it's", " ", "123", "4"}));
  EXPECT_EQ(cut("kimi-k2",
                "ab\xE4\xBD\xA0\xE5\xA5\xBD"
                "cd"),
            (Pieces{"ab", "\xE4\xBD\xA0\xE5\xA5\xBD", "cd"}));
}

std::string patterns_of(std::string_view name) {
  std::string all;
  for (const SplitStep& step : pre_tokenizer(name, "test").splits) all += step.pattern + "\n";
  return all;
}

TEST(PreTokenizer, EveryNameCutsWithoutLossAndInGoodTime) {
  SeededRandom random(23);
  ASSERT_GE(pre_tokenizer_names().size(), 50u);
  std::set<std::string> done;
  for (const std::string_view name : pre_tokenizer_names()) {
    if (!done.insert(patterns_of(name)).second) continue;
    for (int round = 0; round < 20; ++round) {
      const std::string text = test::awkward_text(random, 40);
      std::string joined;
      for (const std::string& piece : cut(name, text)) {
        EXPECT_FALSE(piece.empty());
        EXPECT_TRUE(is_valid_utf8(piece));
        joined += piece;
      }
      EXPECT_EQ(joined, text) << name;
    }
    // A pattern that tries each place of a run anew takes minutes here.
    for (const std::string unit : {" ", "a", "A", "\n", "7", "!", " \n", "\xE4\xBD\xA0", "\xCC\x81"}) {
      std::string run;
      while (run.size() < 50'000) run += unit;
      run += "x";
      size_t bytes = 0;
      for (const std::string& piece : cut(name, run)) bytes += piece.size();
      EXPECT_EQ(bytes, run.size()) << name;
    }
  }
}

TEST(PreTokenizer, NamesWhatItKnowsWhenItDoesNot) {
  try {
    pre_tokenizer("no-such-cutting", "model.gguf");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    for (const char* part : {"model.gguf", "no-such-cutting", "llama-bpe", "qwen2"}) {
      EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
    }
  }
}

TEST(Pattern, TakesUnicodeSpacesAsUnicodeDoes) {
  // U+180E is no white space, U+0085 and U+00A0 are; inside a class and outside.
  const std::string text =
      "a\xE1\xA0\x8E"
      "b\xC2\x85"
      "c\xC2\xA0"
      "d e";
  EXPECT_EQ(Pattern("\\s", "test").replace_all(text, "_"),
            "a\xE1\xA0\x8E"
            "b_c_d_e");
  EXPECT_EQ(Pattern("[\\s]", "test").replace_all(text, "_"),
            "a\xE1\xA0\x8E"
            "b_c_d_e");
  EXPECT_EQ(Pattern("\\S+", "test").replace_all(text, "_"), "_\xC2\x85_\xC2\xA0_ _");
  EXPECT_EQ(Pattern("[^\\s]+", "test").replace_all(text, "_"), "_\xC2\x85_\xC2\xA0_ _");
  EXPECT_EQ(Pattern("[]\\s]", "test").replace_all("a] b", "_"), "a__b");
}

TEST(Pattern, GivesUpOnAPatternThatExplodes) {
  const Pattern pattern("(a+)+$", "test");
  try {
    pattern.replace_all(std::string(200, 'a') + "b", "");
    FAIL() << "no limit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kLimit);
  }
}

}  // namespace
}  // namespace caravan
