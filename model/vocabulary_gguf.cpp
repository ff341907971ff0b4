#include "model/vocabulary_gguf.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "model/pretokenizer.h"

namespace caravan {
namespace {

constexpr const char* kSpaceMark = "\xE2\x96\x81";  // U+2581

TokenKind kind_of(uint64_t type) {
  // GGUF counts from 1; 0 is "undefined".
  if (type < 1 || type > 6) return TokenKind::kNormal;
  return static_cast<TokenKind>(type - 1);
}

void read_tokens(const Metadata& metadata, Vocabulary& v) {
  const TextList* texts = metadata.texts("tokenizer.ggml.tokens");
  if (texts == nullptr) fail(ErrorCode::kMalformed, "{}: no tokenizer.ggml.tokens", v.name);
  if (texts->size() > limits::kMaxVocabulary) {
    fail(ErrorCode::kLimit, "{}: {} tokens, more than {}", v.name, texts->size(), limits::kMaxVocabulary);
  }
  const auto scores = metadata.numbers("tokenizer.ggml.scores");
  const auto types = metadata.integers("tokenizer.ggml.token_type");
  const auto check_count = [&](std::string_view key, size_t count) {
    if (count == texts->size()) return;
    fail(ErrorCode::kMalformed, "{}: {} has {} entries for {} tokens", v.name, key, count, texts->size());
  };
  if (scores) check_count("tokenizer.ggml.scores", scores->size());
  if (types) check_count("tokenizer.ggml.token_type", types->size());
  v.texts = *texts;
  v.tokens.resize(texts->size());
  for (size_t id = 0; id < texts->size(); ++id) {
    VocabularyToken& token = v.tokens[id];
    if (scores) token.score = static_cast<float>((*scores)[id]);
    if (types) token.kind = kind_of((*types)[id]);
  }
}

void read_merges(const Metadata& metadata, Vocabulary& v) {
  const TextList* merges = metadata.texts("tokenizer.ggml.merges");
  if (merges == nullptr) fail(ErrorCode::kMalformed, "{}: no tokenizer.ggml.merges", v.name);
  v.merges.reserve(2 * merges->size());
  for (const std::string_view merge : *merges) {
    // The left part has at least one character, which may be a space in old files.
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos)
      fail(ErrorCode::kMalformed, "{}: merge '{}' has one part", v.name, merge);
    v.add_merge(merge.substr(0, space), merge.substr(space + 1));
  }
}

std::optional<TokenId> read_id(const Metadata& metadata, std::string_view key) {
  const auto id = metadata.integer(key);
  // Writers put all ones for "none".
  if (!id || *id >= limits::kMaxVocabulary) return std::nullopt;
  return static_cast<TokenId>(*id);
}

void read_roles(const Metadata& metadata, Vocabulary& v) {
  const bool sentence_piece = v.model == Vocabulary::Model::kSentencePiece;
  v.bos = read_id(metadata, "tokenizer.ggml.bos_token_id");
  v.eos = read_id(metadata, "tokenizer.ggml.eos_token_id");
  v.eot = read_id(metadata, "tokenizer.ggml.eot_token_id");
  v.unknown = read_id(metadata, "tokenizer.ggml.unknown_token_id");
  v.padding = read_id(metadata, "tokenizer.ggml.padding_token_id");
  if (sentence_piece && v.tokens.size() > 2) {
    // What SentencePiece itself takes when a file does not say.
    v.unknown = v.unknown.value_or(0);
    v.bos = v.bos.value_or(1);
    v.eos = v.eos.value_or(2);
  }
  if (const auto id = read_id(metadata, "tokenizer.ggml.eom_token_id")) v.more_ends.push_back(*id);
  v.add_bos = metadata.boolean("tokenizer.ggml.add_bos_token").value_or(v.add_bos);
  v.add_eos = metadata.boolean("tokenizer.ggml.add_eos_token").value_or(false);
}

void set_sentence_piece(const Metadata& metadata, Vocabulary& v) {
  v.merge_by_score = true;
  v.byte_fallback = true;
  v.add_bos = true;
  NormalizerStep step;
  if (metadata.boolean("tokenizer.ggml.add_space_prefix").value_or(true)) {
    v.strip_first_space = true;
    step.kind = NormalizerStep::Kind::kPrepend;
    step.content = kSpaceMark;
    v.normalizer.push_back(step);
  }
  step.kind = NormalizerStep::Kind::kReplace;
  step.pattern = " ";
  step.content = kSpaceMark;
  v.normalizer.push_back(step);
}

// GGUF has no place for it, but Phi-3's own tokenizer lets its special tokens swallow the spaces after them,
// all but these three.
void set_phi3_spaces(const Metadata& metadata, Vocabulary& v) {
  std::string name = metadata.text("general.name").value_or("");
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return;
  constexpr std::array<std::string_view, 3> kExceptions = {"<unk>", "<s>", "<|endoftext|>"};
  for (TokenId id = 0; id < v.tokens.size(); ++id) {
    VocabularyToken& token = v.tokens[id];
    const bool added = token.kind == TokenKind::kControl || token.kind == TokenKind::kUserDefined;
    token.strip_right =
        added && std::find(kExceptions.begin(), kExceptions.end(), v.texts[id]) == kExceptions.end();
  }
}

}  // namespace

Vocabulary vocabulary_from_metadata(const Metadata& metadata) {
  Vocabulary v;
  v.name = metadata.where();
  const std::string model = metadata.text("tokenizer.ggml.model").value_or("");
  v.pre = metadata.text("tokenizer.ggml.pre").value_or("default");
  read_tokens(metadata, v);
  if (model == "llama") {
    v.model = Vocabulary::Model::kSentencePiece;
    set_sentence_piece(metadata, v);
    set_phi3_spaces(metadata, v);
  } else if (model == "gpt2") {
    v.model = Vocabulary::Model::kByteBpe;
    PreTokenizer made = pre_tokenizer(v.pre, v.name);
    v.splits = std::move(made.splits);
    v.ignore_merges = made.ignore_merges;
    v.add_bos = made.add_bos;
    read_merges(metadata, v);
  } else {
    fail(ErrorCode::kUnsupported, "{}: tokenizer.ggml.model is '{}'; known are llama and gpt2", v.name,
         model);
  }
  read_roles(metadata, v);
  v.chat_template = metadata.text("tokenizer.chat_template").value_or("");
  return v;
}

}  // namespace caravan
