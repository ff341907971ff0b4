#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "model/tokenizer.h"
#include "model/tokenizer_json.h"
#include "tests/model/tokenizer_support.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using Ids = std::vector<TokenId>;
using nlohmann::json;

struct Vector {
  std::string text;
  Ids ids;
};

// X.inp holds texts between lines "__ggml_vocab_test__", X.out a line of ids for each.
std::vector<Vector> read_vectors(const std::string& path) {
  const std::string separator = "\n__ggml_vocab_test__\n";
  const std::string texts = test::read_file(path + ".inp");
  std::istringstream lines(test::read_file(path + ".out"));
  std::vector<Vector> vectors;
  for (size_t begin = 0;;) {
    const size_t end = texts.find(separator, begin);
    Vector& vector = vectors.emplace_back();
    vector.text = texts.substr(begin, end == std::string::npos ? end : end - begin);
    std::string line;
    std::getline(lines, line);
    std::istringstream numbers(line);
    for (TokenId id; numbers >> id;) vector.ids.push_back(id);
    if (end == std::string::npos) return vectors;
    begin = end + separator.size();
  }
}

// The tokenizer.json that Hugging Face's converter makes of a SentencePiece model: a merge for every way to
// cut a token in two tokens, ordered by the token's score.
json sentence_piece_json(const Vocabulary& v) {
  json out;
  std::map<std::string_view, TokenId> ids;
  for (TokenId id = 0; id < v.tokens.size(); ++id) {
    const VocabularyToken& token = v.tokens[id];
    const std::string_view text = v.texts[id];
    out["model"]["vocab"][std::string(text)] = id;
    if (token.kind == TokenKind::kNormal) ids[text] = id;
    if (token.kind == TokenKind::kControl || token.kind == TokenKind::kUnknown ||
        token.kind == TokenKind::kUserDefined) {
      out["added_tokens"].push_back({{"id", id},
                                     {"content", text},
                                     {"special", token.kind != TokenKind::kUserDefined},
                                     {"rstrip", token.strip_right},
                                     {"normalized", false}});
    }
  }
  struct Merge {
    float score;
    std::string_view left, right;
  };
  std::vector<Merge> merges;
  for (const auto& [text, id] : ids) {
    for (size_t at = 1; at < text.size(); ++at) {
      const std::string_view left = text.substr(0, at), right = text.substr(at);
      if (ids.count(left) && ids.count(right)) merges.push_back({v.tokens[id].score, left, right});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(a.score, a.left.size(), a.right.size()) >
           std::tuple(b.score, b.left.size(), b.right.size());
  });
  json& model = out["model"];
  model["type"] = "BPE";
  model["byte_fallback"] = true;
  model["fuse_unk"] = true;
  model["unk_token"] = "<unk>";
  model["merges"] = json::array();
  for (const Merge& merge : merges)
    model["merges"].push_back(std::string(merge.left) + " " + std::string(merge.right));
  return out;
}

// Its spaces by the one or the other of the ways that are in use.
json with_spaces(json out, bool metaspace) {
  const std::string space = "\xE2\x96\x81";
  if (metaspace) {
    out["pre_tokenizer"] = {
        {"type", "Metaspace"}, {"replacement", space}, {"prepend_scheme", "always"}, {"split", false}};
    out["decoder"] = {{"type", "Metaspace"}, {"replacement", space}, {"prepend_scheme", "always"}};
  } else {
    out["normalizer"] = {{"type", "Sequence"},
                         {"normalizers",
                          {{{"type", "Prepend"}, {"prepend", space}},
                           {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}}}}};
    out["decoder"] = {{"type", "Sequence"},
                      {"decoders",
                       {{{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}},
                        {{"type", "ByteFallback"}},
                        {{"type", "Fuse"}},
                        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  }
  return out;
}

json as_byte_level_json(const Vocabulary& v) {
  json out;
  for (TokenId id = 0; id < v.tokens.size(); ++id) {
    const VocabularyToken& token = v.tokens[id];
    const std::string text(v.texts[id]);
    if (token.kind == TokenKind::kControl) {
      out["added_tokens"].push_back({{"id", id}, {"content", text}, {"special", true}});
    } else {
      out["model"]["vocab"][text] = id;
    }
  }
  out["model"]["type"] = "BPE";
  out["model"]["ignore_merges"] = v.ignore_merges;
  for (size_t i = 0; i < v.merges.size(); i += 2)
    out["model"]["merges"].push_back({std::string(v.merges[i]), std::string(v.merges[i + 1])});
  json& steps = out["pre_tokenizer"]["pretokenizers"];
  out["pre_tokenizer"]["type"] = "Sequence";
  for (const SplitStep& step : v.splits) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", step.pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  out["decoder"] = {{"type", "ByteLevel"}};
  return out;
}

class TokenizerVectors : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    path_ = test::shared_folder() + "/data/tokenizers/ggml-vocab-" + GetParam() + ".gguf";
    if (!std::filesystem::exists(path_)) GTEST_SKIP() << "no " << path_;
  }
  std::string path_;
};

TEST_P(TokenizerVectors, AllAgreeFromGguf) {
  const Tokenizer tokenizer(test::gguf_vocabulary(path_));
  const std::vector<Vector> vectors = read_vectors(path_);
  ASSERT_EQ(vectors.size(), 47u);
  for (const Vector& vector : vectors) {
    EXPECT_EQ(tokenizer.encode(vector.text), vector.ids) << vector.text;
    EXPECT_EQ(tokenizer.decode(vector.ids), vector.text);
  }
}

// The same vocabulary as Hugging Face would write it gives the same tokens, on awkward texts too.
class TokenizerJsonVectors : public TokenizerVectors {};

TEST_P(TokenizerJsonVectors, AllAgree) {
  const Vocabulary v = test::gguf_vocabulary(path_);
  const Tokenizer from_gguf(v);
  const bool bytes = v.model == Vocabulary::Model::kByteBpe;
  const json model = bytes ? as_byte_level_json(v) : sentence_piece_json(v);
  for (const bool metaspace : {false, true}) {
    if (bytes && metaspace) break;
    const json written = bytes ? model : with_spaces(model, metaspace);
    const Tokenizer from_json(read_tokenizer_json(written.dump(), "", "written"));
    for (const Vector& vector : read_vectors(path_)) {
      // Metaspace puts no space before a text that has one; SentencePiece does.
      if (metaspace && vector.text.starts_with(' ')) continue;
      EXPECT_EQ(from_json.encode(vector.text), vector.ids) << vector.text;
    }
    SeededRandom random(17);
    for (int round = 0; round < (test::kSanitized ? 10 : 40); ++round) {
      const std::string text = "." + test::awkward_text(random, 20);
      EXPECT_EQ(from_json.encode(text), from_gguf.encode(text)) << text;
    }
  }
}

std::string case_name(const testing::TestParamInfo<std::string>& parameter) {
  std::string name = parameter.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

const std::vector<std::string> kPublished{"llama-spm", "phi-3", "llama-bpe", "qwen2", "gpt-2"};
// Writing and reading the large ones again is slow under sanitizers, and no other code than for a small one.
const std::vector<std::string> kWritten =
    test::kSanitized ? std::vector<std::string>{"llama-spm"} : kPublished;

INSTANTIATE_TEST_SUITE_P(Published, TokenizerVectors, testing::ValuesIn(kPublished), case_name);
INSTANTIATE_TEST_SUITE_P(Published, TokenizerJsonVectors, testing::ValuesIn(kWritten), case_name);

TEST(DemoTokenizer, IsTheSameFromTokenizerJsonAndFromGguf) {
  const std::string folder = test::shared_folder() + "/demo_model/";
  if (!std::filesystem::exists(folder + "tokenizer.json"))
    GTEST_SKIP() << "no " << folder << "tokenizer.json";
  const Vocabulary read =
      read_tokenizer_json(test::read_file(folder + "tokenizer.json"),
                          test::read_file(folder + "tokenizer_config.json"), "tokenizer.json");
  const Vocabulary packed = test::demo_vocabulary();
  EXPECT_EQ(read.bos, packed.bos);
  EXPECT_EQ(read.eos, packed.eos);
  EXPECT_EQ(read.add_bos, packed.add_bos);
  EXPECT_EQ(read.add_eos, packed.add_eos);
  EXPECT_EQ(read.chat_template, packed.chat_template);
  const Tokenizer from_json(read);
  const Tokenizer from_gguf(packed);
  const json vectors = json::parse(test::read_file(folder + "tokenizer_vectors.json"));
  ASSERT_GE(vectors["vectors"].size(), 24u);
  for (const json& vector : vectors["vectors"]) {
    const auto text = vector["text"].get<std::string>();
    EXPECT_EQ(from_json.encode(text), vector["ids"].get<Ids>()) << text;
    EXPECT_EQ(from_gguf.encode(text), vector["ids"].get<Ids>()) << text;
  }
  const std::string chat = "<|begin|><|user|>Tell me.<|end|><|assistant|>";
  EXPECT_EQ(from_json.encode(chat, {.special = true}), from_gguf.encode(chat, {.special = true}));
}

}  // namespace
}  // namespace caravan
