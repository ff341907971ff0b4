#include "model/tokenizer_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/tokenizer.h"
#include "tests/model/tokenizer_support.h"

namespace caravan {
namespace {

using nlohmann::json;

// Characters as tokens, no merges: what the steps before the model do shows in the tokens.
json characters(const std::string& letters) {
  json out;
  out["model"] = {{"type", "BPE"}, {"merges", json::array()}, {"ignore_merges", true}, {"unk_token", "?"}};
  out["model"]["vocab"]["?"] = 0;
  for (const char c : letters) out["model"]["vocab"][std::string(1, c)] = out["model"]["vocab"].size();
  return out;
}

Vocabulary read(const json& tokenizer, const json& config = nullptr) {
  return read_tokenizer_json(tokenizer.dump(), config.is_null() ? "" : config.dump(), "tokenizer.json");
}

// The pieces that the pre-tokenizer makes of a text: each is made a token, so that ids are pieces.
std::vector<std::string> pieces(const json& pre_tokenizer, const std::string& text) {
  json tokenizer = characters("");
  tokenizer["pre_tokenizer"] = pre_tokenizer;
  json& vocabulary = tokenizer["model"]["vocab"];
  for (size_t begin = 0; begin < text.size(); ++begin) {
    for (size_t count = 1; begin + count <= text.size(); ++count) {
      const std::string part = text.substr(begin, count);
      if (!vocabulary.contains(part)) vocabulary[part] = vocabulary.size();
    }
  }
  const Tokenizer made(read(tokenizer));
  std::vector<std::string> out;
  for (const TokenId id : made.encode(text)) out.emplace_back(made.vocabulary().texts[id]);
  return out;
}

std::string normalized(const json& normalizer, const std::string& text) {
  json tokenizer = characters("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ _-.");
  for (const std::string letter : {"\xC3\xA9", "\xCC\x81", "\xEF\xAC\x81"}) {
    tokenizer["model"]["vocab"][letter] = tokenizer["model"]["vocab"].size();
  }
  tokenizer["normalizer"] = normalizer;
  const Tokenizer made(read(tokenizer));
  return made.decode(made.encode(text));
}

ErrorCode code_of(const std::string& text, std::string* message = nullptr) {
  try {
    const Tokenizer made(read_tokenizer_json(text, "", "file.json"));
  } catch (const Error& error) {
    if (message) *message = error.message();
    EXPECT_NE(error.message().find("file.json"), std::string::npos) << error.message();
    return error.code();
  }
  ADD_FAILURE() << "accepted: " << text.substr(0, 200);
  return ErrorCode::kIo;
}

using Pieces = std::vector<std::string>;

json split(const json& pattern, const std::string& behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
}

TEST(TokenizerJson, SplitsInEveryManner) {
  const json dash = {{"String", "-"}};
  const std::string text = "the-final--countdown";
  EXPECT_EQ(pieces(split(dash, "Removed"), text), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(pieces(split(dash, "Isolated"), text), (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(pieces(split(dash, "MergedWithPrevious"), text), (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(pieces(split(dash, "MergedWithNext"), text), (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(pieces(split(dash, "Contiguous"), text), (Pieces{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(pieces(split({{"Regex", "[a-z]+"}}, "Removed", true), text),
            (Pieces{"the", "final", "countdown"}));
}

TEST(TokenizerJson, KnowsTheUsualPreTokenizers) {
  EXPECT_EQ(pieces({{"type", "Digits"}, {"individual_digits", true}}, "a12b"), (Pieces{"a", "1", "2", "b"}));
  EXPECT_EQ(pieces({{"type", "Digits"}}, "a12b"), (Pieces{"a", "12", "b"}));
  EXPECT_EQ(pieces({{"type", "Whitespace"}}, "hey you! _x"), (Pieces{"hey", "you", "!", "_x"}));
  EXPECT_EQ(pieces({{"type", "WhitespaceSplit"}}, " hey\t you!"), (Pieces{"hey", "you!"}));
  EXPECT_EQ(pieces({{"type", "Punctuation"}}, "a,$b"), (Pieces{"a", ",", "$", "b"}));
  EXPECT_EQ(pieces({{"type", "CharDelimiterSplit"}, {"delimiter", "|"}}, "a|b"), (Pieces{"a", "b"}));
  const json sequence = {{"type", "Sequence"},
                         {"pretokenizers", {{{"type", "WhitespaceSplit"}}, {{"type", "Digits"}}}}};
  EXPECT_EQ(pieces(sequence, "a1 b"), (Pieces{"a", "1", "b"}));
}

TEST(TokenizerJson, NormalizesInOrder) {
  EXPECT_EQ(normalized({{"type", "NFC"}}, "e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "\xC3\xA9"), "e\xCC\x81");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "\xEF\xAC\x81"), "fi");
  EXPECT_EQ(normalized({{"type", "NFC"}}, "\xEF\xAC\x81"), "\xEF\xAC\x81");
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "AbC"), "abc");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " a "), "a ");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "x"}}, "a"), "xa");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", "--"}}}, {"content", "_"}}, "a---b"),
            "a_-b");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}}, "a   b c"),
            "a b c");
  const json sequence = {
      {"type", "Sequence"},
      {"normalizers", {{{"type", "NFD"}}, {{"type", "StripAccents"}}, {{"type", "Lowercase"}}}}};
  EXPECT_EQ(normalized(sequence,
                       "\xC3\xA9"
                       "A"),
            "ea");
}

TEST(TokenizerJson, PutsASpaceFirstAsMetaspaceSays) {
  const auto ids = [](const json& step, const std::string& text) {
    json tokenizer = characters("ab");
    tokenizer["model"]["vocab"]["\xE2\x96\x81"] = tokenizer["model"]["vocab"].size();
    tokenizer["added_tokens"] = {{{"id", 9}, {"content", "<x>"}, {"special", false}}};
    json metaspace = step;
    metaspace["type"] = "Metaspace";
    metaspace["replacement"] = "\xE2\x96\x81";
    tokenizer["pre_tokenizer"] = metaspace;
    return Tokenizer(read(tokenizer)).encode(text);
  };
  using Ids = std::vector<TokenId>;
  const TokenId a = 1, b = 2, space = 3, x = 9;
  EXPECT_EQ(ids({{"prepend_scheme", "always"}}, "a b<x>a"), (Ids{space, a, space, b, x, space, a}));
  EXPECT_EQ(ids({{"prepend_scheme", "always"}}, " a"), (Ids{space, a}));
  EXPECT_EQ(ids({{"prepend_scheme", "first"}}, "a b<x>a"), (Ids{space, a, space, b, x, a}));
  EXPECT_EQ(ids({{"prepend_scheme", "never"}}, "a b"), (Ids{a, space, b}));
  EXPECT_EQ(ids({{"add_prefix_space", true}}, "a"), (Ids{space, a}));
  EXPECT_EQ(ids({{"add_prefix_space", false}}, "a"), (Ids{a}));
}

TEST(TokenizerJson, PutsASpaceBeforeEveryPieceWhereByteLevelAsks) {
  json tokenizer = characters("ab");
  tokenizer["model"]["vocab"]["\xC4\xA0"] = 3;
  tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  EXPECT_EQ(Tokenizer(read(tokenizer)).encode("a b"), (std::vector<TokenId>{3, 1, 3, 2}));
  tokenizer["pre_tokenizer"]["add_prefix_space"] = false;
  EXPECT_EQ(Tokenizer(read(tokenizer)).encode("a b"), (std::vector<TokenId>{1, 3, 2}));
}

TEST(TokenizerJson, LooksForNormalizedTokensInTheNormalizedText) {
  json tokenizer = characters("ab");
  tokenizer["normalizer"] = {{"type", "Lowercase"}};
  tokenizer["added_tokens"] = {{{"id", 3}, {"content", "<Ab>"}, {"special", false}, {"normalized", true}},
                               {{"id", 4}, {"content", "<Ba>"}, {"special", false}, {"normalized", false}}};
  const Tokenizer made(read(tokenizer));
  EXPECT_EQ(made.encode("<aB>").size(), 1u);
  EXPECT_EQ(made.encode("<Ba>").size(), 1u);
  EXPECT_EQ(made.encode("<bA>").size(), 4u);
}

TEST(TokenizerJson, TakesRolesFromTheConfigurationAndTheTemplate) {
  json tokenizer = characters("ab");
  tokenizer["added_tokens"] = {{{"id", 3}, {"content", "<s>"}, {"special", true}},
                               {{"id", 4}, {"content", "</s>"}, {"special", true}}};
  const json text = {{"Sequence", {{"id", "A"}}}};
  const json start = {{"SpecialToken", {{"id", "<s>"}}}};
  tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                 {"single", {start, text}},
                                 {"special_tokens", {{"<s>", {{"ids", {3}}}}}}};
  Vocabulary v = read(tokenizer);
  EXPECT_EQ(v.bos, 3u);
  EXPECT_TRUE(v.add_bos);
  EXPECT_FALSE(v.add_eos);
  json config = {{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}, {"chat_template", "hello"}};
  v = read(tokenizer, config);
  EXPECT_EQ(v.eos, 4u);
  EXPECT_EQ(v.chat_template, "hello");
  config["add_bos_token"] = false;
  EXPECT_TRUE(read(tokenizer, config).add_bos);
  config["tokenizer_class"] = "LlamaTokenizerFast";
  EXPECT_FALSE(read(tokenizer, config).add_bos);
  config["chat_template"] = {{{"name", "tools"}, {"template", "t"}},
                             {{"name", "default"}, {"template", "d"}}};
  EXPECT_EQ(read(tokenizer, config).chat_template, "d");
}

TEST(TokenizerJson, TakesTheEndsOfAGenerationConfig) {
  Vocabulary v = read(characters("abc"));
  read_generation_config("", v);
  read_generation_config(R"({"temperature": 0.6})", v);
  EXPECT_FALSE(v.eos);
  read_generation_config(R"({"eos_token_id": [2, 3]})", v);
  EXPECT_EQ(v.eos, 2u);
  const Tokenizer made(v);
  EXPECT_TRUE(made.is_end(2) && made.is_end(3));
  EXPECT_FALSE(made.is_end(1));
  read_generation_config(R"({"eos_token_id": 1})", v);
  EXPECT_EQ(v.eos, 2u);
  EXPECT_TRUE(Tokenizer(v).is_end(1));
  for (const char* bad :
       {"[", R"({"eos_token_id": [4]})", R"({"eos_token_id": "</s>"})", R"({"eos_token_id": [-1]})"}) {
    EXPECT_THROW(read_generation_config(bad, v), Error) << bad;
  }
}

TEST(TokenizerJson, SaysWhatItCannotRead) {
  const std::string good = characters("ab").dump();
  EXPECT_NO_THROW(read_tokenizer_json(good, "", "file.json"));
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_EQ(code_of(good.substr(0, cut)), ErrorCode::kMalformed);
  const auto with = [](const std::string& path, const json& value) {
    json tokenizer = characters("ab");
    tokenizer[json::json_pointer(path)] = value;
    return tokenizer.dump();
  };
  EXPECT_EQ(code_of("[]"), ErrorCode::kMalformed);
  EXPECT_EQ(code_of("{}"), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/model/type", "Unigram")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/model/end_of_word_suffix", "</w>")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/model/vocab/a", 0)), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/model/vocab/a", -1)), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/model/vocab/a", 1u << 31)), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/model/vocab", json::array())), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/model/merges", {"ab"})), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/model/merges", {1})), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/model/unk_token", "none")), ErrorCode::kMalformed);
  EXPECT_EQ(code_of(with("/normalizer/type", "Precompiled")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/pre_tokenizer/type", "BertPreTokenizer")), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/pre_tokenizer", split({{"Regex", "("}}, "Isolated"))), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/pre_tokenizer", split({{"Regex", "[a&&b]"}}, "Isolated"))),
            ErrorCode::kUnsupported);
  EXPECT_EQ(code_of(with("/pre_tokenizer", split({{"Regex", std::string(1 << 17, 'a')}}, "Isolated"))),
            ErrorCode::kLimit);
  EXPECT_EQ(code_of(std::string(1000, '[') + std::string(1000, ']')), ErrorCode::kLimit);
  std::string message;
  code_of(with("/model/type", "WordPiece"), &message);
  EXPECT_NE(message.find("WordPiece"), std::string::npos) << message;
}

// Sixty replacements that each make thousands of one letter.
TEST(TokenizerJson, StopsATextThatGrowsWithoutEnd) {
  json tokenizer = characters("ab");
  json steps = json::array();
  for (int i = 0; i < 60; ++i) {
    steps.push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(4096, 'a')}});
  }
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  const Tokenizer made(read(tokenizer));
  EXPECT_EQ(made.encode("b").size(), 1u);
  EXPECT_THROW(made.encode("a"), Error);
}

}  // namespace
}  // namespace caravan
