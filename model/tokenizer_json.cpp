#include "model/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "model/piece_encoder.h"
#include "model/pretokenizer.h"
#include "model/tokenizer_json_tables.h"
#include "shards/json_metadata.h"

namespace caravan {
namespace {

using Json = nlohmann::json;

// The parser builds a tree by recursion, so its depth is known before it starts.
void check_depth(std::string_view text, std::string_view name) {
  uint32_t depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limits::kMaxJsonDepth) {
        fail(ErrorCode::kLimit, "{}: JSON nested more than {} deep", name, limits::kMaxJsonDepth);
      }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
}

void check_size(std::string_view text, std::string_view name) {
  if (text.size() > limits::kMaxJsonBytes) {
    fail(ErrorCode::kLimit, "{}: {} bytes of JSON, more than {}", name, text.size(), limits::kMaxJsonBytes);
  }
  check_depth(text, name);
}

Json parse(std::string_view text, std::string_view name) {
  check_size(text, name);
  Json json = Json::parse(text.begin(), text.end());
  if (!json.is_object()) fail(ErrorCode::kMalformed, "{}: no JSON object", name);
  return json;
}

TokenId json_token_id(const Json& value, std::string_view name) {
  return token_id_of(value.is_number_unsigned() ? std::optional(value.get<uint64_t>()) : std::nullopt, name);
}

// The member, or null when it is absent.
const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

bool flag(const Json& object, const char* key, bool otherwise) {
  const Json& value = member(object, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

std::string text(const Json& object, const char* key) {
  const Json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

// A pattern or a replacement: both are multiplied by the length of a text.
std::string short_text(const Json& value, std::string_view name) {
  std::string read = value.get<std::string>();
  if (read.size() > limits::kMaxPatternBytes) {
    fail(ErrorCode::kLimit, "{}: a pattern of {} bytes, more than {}", name, read.size(),
         limits::kMaxPatternBytes);
  }
  return read;
}

[[noreturn]] void unsupported(std::string_view name, std::string_view what, const Json& object) {
  fail(ErrorCode::kUnsupported, "{}: {} of type '{}'", name, what, text(object, "type"));
}

class Reader {
 public:
  explicit Reader(std::string_view name) { v_.name = name; }

  void read_tokenizer(std::string_view text) {
    check_size(text, name());
    TokenizerJsonTables tables(name());
    const Json json = Json::parse(tables.parse(text));
    const Json& model = member(json, "model");
    read_model(model, tables);
    read_added_tokens(member(json, "added_tokens"));
    read_unknown(model);
    add_normalizer(member(json, "normalizer"));
    add_splits(member(json, "pre_tokenizer"));
    read_decoder(member(json, "decoder"));
    read_post_processor(member(json, "post_processor"));
    if (v_.model == Vocabulary::Model::kByteBpe) v_.byte_fallback = false;
    mark_byte_tokens();
  }
  void read_config(const Json& json);
  Vocabulary take();

 private:
  void read_model(const Json& model, TokenizerJsonTables& tables);
  void read_vocabulary(TokenizerJsonTables& tables);
  void read_added_tokens(const Json& added);
  void read_unknown(const Json& model);
  void mark_byte_tokens();
  void add_normalizer(const Json& step);
  void add_splits(const Json& step);
  void add_split(const Json& step);
  void add_pattern(std::string_view pattern, SplitStep::Behaviour behaviour);
  void add_byte_level(const Json& step);
  void add_metaspace(const Json& step);
  SplitStep::Behaviour behaviour_of(const Json& step) const;
  void read_decoder(const Json& decoder);
  void read_post_processor(const Json& processor);
  void read_template(const Json& processor);
  std::optional<TokenId> role(const Json& json, const char* key) const;
  std::optional<TokenId> find(std::string_view spelling) const;
  VocabularyToken& token_at(TokenId id);
  std::string_view text_of(TokenId id) const;
  void set_text(TokenId id, std::string_view text);
  void check_steps() const;
  std::string_view name() const { return v_.name; }

  Vocabulary v_;  // its texts last of all
  // Texts in the file's order, and by id which of them is the token's.
  static constexpr uint32_t kNoText = UINT32_MAX;
  TextList spellings_;
  std::vector<uint32_t> spelled_;
};

VocabularyToken& Reader::token_at(TokenId id) {
  if (id >= v_.tokens.size()) {
    VocabularyToken gap;
    gap.kind = TokenKind::kUnused;
    v_.tokens.resize(size_t{id} + 1, gap);
    spelled_.resize(size_t{id} + 1, kNoText);
  }
  return v_.tokens[id];
}

std::string_view Reader::text_of(TokenId id) const {
  return spelled_[id] == kNoText ? std::string_view() : spellings_[spelled_[id]];
}

void Reader::set_text(TokenId id, std::string_view text) {
  spelled_[id] = static_cast<uint32_t>(spellings_.size());
  spellings_.push_back(text);
}

Vocabulary Reader::take() {
  v_.texts.reserve(v_.tokens.size());
  for (TokenId id = 0; id < v_.tokens.size(); ++id) v_.texts.push_back(text_of(id));
  return std::move(v_);
}

std::optional<TokenId> Reader::find(std::string_view spelling) const {
  for (TokenId id = 0; id < v_.tokens.size(); ++id)
    if (v_.tokens[id].kind != TokenKind::kUnused && text_of(id) == spelling) return id;
  return std::nullopt;
}

void Reader::read_model(const Json& model, TokenizerJsonTables& tables) {
  // Old files leave the type out.
  const bool is_bpe = text(model, "type") == "BPE" || (!model.contains("type") && model.contains("merges"));
  if (!is_bpe) unsupported(name(), "a model", model);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text(model, key).empty()) fail(ErrorCode::kUnsupported, "{}: a model with {}", name(), key);
  }
  v_.byte_fallback = flag(model, "byte_fallback", false);
  v_.fuse_unknown = flag(model, "fuse_unk", false);
  v_.ignore_merges = flag(model, "ignore_merges", false);
  if (!model.at("vocab").is_object() || tables.texts.empty())
    fail(ErrorCode::kMalformed, "{}: a model without tokens", name());
  if (!model.at("merges").is_array()) fail(ErrorCode::kMalformed, "{}: merges that are no list", name());
  read_vocabulary(tables);
  v_.merges = std::move(tables.merges);
}

void Reader::read_vocabulary(TokenizerJsonTables& tables) {
  spellings_ = std::move(tables.texts);
  for (size_t i = 0; i < tables.ids.size(); ++i) {
    const TokenId id = tables.ids[i];
    VocabularyToken& token = token_at(id);
    if (token.kind != TokenKind::kUnused && text_of(id) != spellings_[i]) {
      fail(ErrorCode::kMalformed, "{}: token {} is both '{}' and '{}'", name(), id, text_of(id),
           spellings_[i]);
    }
    spelled_[id] = static_cast<uint32_t>(i);
    token.kind = TokenKind::kNormal;
  }
}

void Reader::read_added_tokens(const Json& added) {
  if (added.is_null()) return;
  for (const Json& entry : added) {
    const TokenId id = json_token_id(entry.at("id"), name());
    VocabularyToken& token = token_at(id);
    set_text(id, entry.at("content").get_ref<const std::string&>());
    token.kind = flag(entry, "special", false) ? TokenKind::kControl : TokenKind::kUserDefined;
    token.strip_left = flag(entry, "lstrip", false);
    token.strip_right = flag(entry, "rstrip", false);
    token.whole_word = flag(entry, "single_word", false);
    token.normalized = flag(entry, "normalized", false);
  }
}

void Reader::read_unknown(const Json& model) {
  const std::string spelling = text(model, "unk_token");
  if (spelling.empty()) return;
  v_.unknown = find(spelling);
  if (!v_.unknown) fail(ErrorCode::kMalformed, "{}: unk_token '{}' is no token", name(), spelling);
  if (v_.tokens[*v_.unknown].kind == TokenKind::kNormal) v_.tokens[*v_.unknown].kind = TokenKind::kUnknown;
}

void Reader::mark_byte_tokens() {
  if (!v_.byte_fallback) return;
  for (TokenId id = 0; id < v_.tokens.size(); ++id) {
    TokenKind& kind = v_.tokens[id].kind;
    if (kind == TokenKind::kNormal && byte_token_value(text_of(id)) >= 0) kind = TokenKind::kByte;
  }
}

void Reader::check_steps() const {
  if (std::max(v_.normalizer.size(), v_.splits.size()) >= limits::kMaxSplitSteps) {
    fail(ErrorCode::kLimit, "{}: more than {} steps before the model", name(), limits::kMaxSplitSteps);
  }
}

void Reader::add_normalizer(const Json& json) {
  using Kind = NormalizerStep::Kind;
  static constexpr std::pair<std::string_view, Kind> kSimple[] = {
      {"NFC", Kind::kNfc},
      {"NFD", Kind::kNfd},
      {"NFKC", Kind::kNfkc},
      {"NFKD", Kind::kNfkd},
      {"Lowercase", Kind::kLowercase},
      {"StripAccents", Kind::kStripAccents},
  };
  if (json.is_null()) return;
  const std::string type = text(json, "type");
  if (type == "Sequence") {
    for (const Json& inner : json.at("normalizers")) add_normalizer(inner);
    return;
  }
  check_steps();
  NormalizerStep step;
  const auto simple =
      std::find_if(std::begin(kSimple), std::end(kSimple), [&](const auto& s) { return s.first == type; });
  if (simple != std::end(kSimple)) {
    step.kind = simple->second;
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    step.left = flag(json, "strip_left", true);
    step.right = flag(json, "strip_right", true);
  } else if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    step.content = short_text(json.at("prepend"), name());
  } else if (type == "Replace") {
    const Json& pattern = json.at("pattern");
    step.kind = pattern.contains("Regex") ? Kind::kReplacePattern : Kind::kReplace;
    step.pattern = short_text(pattern.at(pattern.contains("Regex") ? "Regex" : "String"), name());
    step.content = short_text(json.at("content"), name());
  } else {
    unsupported(name(), "a normalizer", json);
  }
  v_.normalizer.push_back(std::move(step));
}

SplitStep::Behaviour Reader::behaviour_of(const Json& json) const {
  using Behaviour = SplitStep::Behaviour;
  const std::string behaviour = text(json, "behavior");
  if (behaviour.empty() || behaviour == "Isolated") return Behaviour::kIsolated;
  if (behaviour == "Removed") return Behaviour::kRemoved;
  if (behaviour == "MergedWithPrevious") return Behaviour::kMergedWithPrevious;
  if (behaviour == "MergedWithNext") return Behaviour::kMergedWithNext;
  if (behaviour == "Contiguous") return Behaviour::kContiguous;
  fail(ErrorCode::kUnsupported, "{}: a pre-tokenizer with behavior '{}'", name(), behaviour);
}

void Reader::add_pattern(std::string_view pattern, SplitStep::Behaviour behaviour) {
  SplitStep step;
  step.pattern = pattern;
  step.behaviour = behaviour;
  v_.splits.push_back(std::move(step));
}

void Reader::add_byte_level(const Json& json) {
  v_.model = Vocabulary::Model::kByteBpe;
  if (flag(json, "add_prefix_space", true)) {
    SplitStep step;
    step.kind = SplitStep::Kind::kPrefixSpace;
    v_.splits.push_back(std::move(step));
  }
  if (flag(json, "use_regex", true)) add_pattern(kGpt2Pattern, SplitStep::Behaviour::kIsolated);
}

void Reader::add_metaspace(const Json& json) {
  SplitStep step;
  step.kind = SplitStep::Kind::kMetaspace;
  step.pattern = short_text(json.at("replacement"), name());
  if (step.pattern.empty()) fail(ErrorCode::kMalformed, "{}: Metaspace without a replacement", name());
  step.cut = flag(json, "split", true);
  const std::string scheme = text(json, "prepend_scheme");
  if (scheme == "first") {
    step.prefix = SplitStep::Prefix::kFirst;
  } else if (scheme.empty() ? flag(json, "add_prefix_space", true) : scheme == "always") {
    step.prefix = SplitStep::Prefix::kAlways;
  }
  v_.splits.push_back(std::move(step));
}

void Reader::add_split(const Json& json) {
  SplitStep step;
  const Json& pattern = json.at("pattern");
  const bool regex = pattern.contains("Regex");
  step.kind = regex ? SplitStep::Kind::kPattern : SplitStep::Kind::kLiteral;
  step.pattern = short_text(pattern.at(regex ? "Regex" : "String"), name());
  step.behaviour = behaviour_of(json);
  step.invert = flag(json, "invert", false);
  v_.splits.push_back(std::move(step));
}

void Reader::add_splits(const Json& json) {
  using Behaviour = SplitStep::Behaviour;
  if (json.is_null()) return;
  const std::string type = text(json, "type");
  if (type == "Sequence") {
    for (const Json& inner : json.at("pretokenizers")) add_splits(inner);
    return;
  }
  check_steps();
  if (type == "ByteLevel") {
    add_byte_level(json);
  } else if (type == "Split") {
    add_split(json);
  } else if (type == "Metaspace") {
    add_metaspace(json);
  } else if (type == "Digits") {
    add_pattern(flag(json, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)", Behaviour::kIsolated);
  } else if (type == "Punctuation") {
    add_pattern(R"([!-/:-@\[-`{-~\p{P}])", behaviour_of(json));
  } else if (type == "Whitespace") {
    add_pattern(R"(\w+|[^\w\s]+)", Behaviour::kRemoved);
    v_.splits.back().invert = true;
  } else if (type == "WhitespaceSplit") {
    add_pattern(R"(\s)", Behaviour::kRemoved);
  } else if (type == "CharDelimiterSplit") {
    add_pattern(short_text(json.at("delimiter"), name()), Behaviour::kRemoved);
    v_.splits.back().kind = SplitStep::Kind::kLiteral;
  } else {
    unsupported(name(), "a pre-tokenizer", json);
  }
}

void Reader::read_decoder(const Json& json) {
  const std::string type = text(json, "type");
  if (type == "Sequence") {
    for (const Json& inner : json.at("decoders")) read_decoder(inner);
  } else if (type == "Strip") {
    if (text(json, "content") == " " && member(json, "start") == 1) v_.strip_first_space = true;
  } else if (type == "Metaspace") {
    const std::string scheme = text(json, "prepend_scheme");
    v_.strip_first_space = scheme.empty() ? flag(json, "add_prefix_space", true) : scheme != "never";
  }
}

// A template such as [start token, text, end token].
void Reader::read_template(const Json& json) {
  bool before_text = true;
  for (const Json& part : json.at("single")) {
    if (part.contains("Sequence")) {
      before_text = false;
      continue;
    }
    const std::string spelling = part.at("SpecialToken").at("id").get<std::string>();
    const Json& ids = json.at("special_tokens").at(spelling).at("ids");
    if (!ids.is_array() || ids.empty()) fail(ErrorCode::kMalformed, "{}: no id for '{}'", name(), spelling);
    const TokenId id = json_token_id(ids[0], name());
    if (before_text && !v_.add_bos) {
      v_.bos = id;
      v_.add_bos = true;
    } else if (!before_text && !v_.add_eos) {
      v_.eos = id;
      v_.add_eos = true;
    }
  }
}

void Reader::read_post_processor(const Json& json) {
  const std::string type = text(json, "type");
  if (type == "Sequence") {
    for (const Json& inner : json.at("processors")) read_post_processor(inner);
  } else if (type == "TemplateProcessing") {
    read_template(json);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    v_.bos = json_token_id(json.at("cls").at(1), name());
    v_.eos = json_token_id(json.at("sep").at(1), name());
    v_.add_bos = v_.add_eos = true;
  }
}

// A token that the configuration names, as a string or as an object with its content.
std::optional<TokenId> Reader::role(const Json& json, const char* key) const {
  const Json& value = member(json, key);
  const std::string spelling = value.is_string() ? value.get<std::string>() : text(value, "content");
  return spelling.empty() ? std::nullopt : find(spelling);
}

void Reader::read_config(const Json& json) {
  if (const auto id = role(json, "bos_token")) v_.bos = id;
  if (const auto id = role(json, "eos_token")) v_.eos = id;
  if (const auto id = role(json, "pad_token")) v_.padding = id;
  if (!v_.unknown) v_.unknown = role(json, "unk_token");
  // The classes made after SentencePiece rebuild their template from these two; others keep the file's.
  const std::string kind = text(json, "tokenizer_class");
  if (kind.starts_with("Llama") || kind.starts_with("CodeLlama") || kind.starts_with("Gemma")) {
    v_.add_bos = flag(json, "add_bos_token", v_.add_bos) && v_.bos;
    v_.add_eos = flag(json, "add_eos_token", v_.add_eos) && v_.eos;
  }
  const Json& chat = member(json, "chat_template");
  if (chat.is_string()) v_.chat_template = chat.get<std::string>();
  if (!chat.is_array()) return;
  for (const Json& entry : chat) {
    const bool is_default = text(entry, "name") == "default";
    if (is_default || v_.chat_template.empty()) v_.chat_template = text(entry, "template");
    if (is_default) return;
  }
}

}  // namespace

Vocabulary read_tokenizer_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                               std::string_view name) {
  try {
    Reader reader(name);
    reader.read_tokenizer(tokenizer_json);
    if (!tokenizer_config_json.empty()) reader.read_config(parse(tokenizer_config_json, name));
    return reader.take();
  } catch (const Json::exception& error) {
    fail(ErrorCode::kMalformed, "{}: {}", name, json_reason(error.what()));
  }
}

void read_generation_config(std::string_view generation_config_json, Vocabulary& vocabulary) {
  if (generation_config_json.empty()) return;
  try {
    const Json json = parse(generation_config_json, vocabulary.name);
    const Json& ends = member(json, "eos_token_id");
    if (ends.is_null()) return;
    for (const Json& end : ends.is_array() ? ends : Json::array({ends})) {
      const TokenId id = json_token_id(end, vocabulary.name);
      if (id >= vocabulary.tokens.size()) {
        fail(ErrorCode::kMalformed, "{}: the end token {} of {} tokens", vocabulary.name, id,
             vocabulary.tokens.size());
      }
      if (!vocabulary.eos) vocabulary.eos = id;
      vocabulary.more_ends.push_back(id);
    }
  } catch (const Json::exception& error) {
    fail(ErrorCode::kMalformed, "{}: generation_config.json: {}", vocabulary.name, json_reason(error.what()));
  }
}

}  // namespace caravan
