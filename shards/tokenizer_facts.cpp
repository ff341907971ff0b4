#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/limits.h"
#include "shards/gguf_facts.h"
#include "shards/json_metadata.h"

// tokenizer.json in the words of GGUF: tokens with kinds, merges or scores, and the name of the cutting.
namespace caravan {

namespace {

using nlohmann::json;

// GGUF's numbers of token kinds.
enum Kind : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// The cuttings that have a name in GGUF, by the regular expression in tokenizer.json; all end in byte-level
// letters. `whole_words`: a piece that is a token is taken as it is; nothing where the name fits either way.
struct Cutting {
  std::string_view name;
  std::string_view pattern;
  std::optional<bool> whole_words;
};

constexpr std::string_view kUpToThreeDigits =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr Cutting kCuttings[] = {
    {"llama-bpe", kUpToThreeDigits, true},
    {"smaug-bpe", kUpToThreeDigits, false},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false},
    {"tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     std::nullopt},
};

class Tokenizer {
 public:
  Tokenizer(const Manifest& manifest, uint32_t vocabulary)
      : where_(manifest.path + "/tokenizer.json"), vocabulary_(vocabulary) {
    root_ = parse(manifest.tokenizer_json, where_, limits::kMaxJsonBytes);
    if (!manifest.tokenizer_config_json.empty())
      config_ = parse(manifest.tokenizer_config_json, manifest.path + "/tokenizer_config.json",
                      limits::kMaxConfigBytes);
  }

  void write(Metadata& out) {
    try {
      const json& model = root_.at("model");
      if (model.value("type", std::string("BPE")) != "BPE")
        fail(ErrorCode::kUnsupported, "{}: a {} model; only BPE has a GGUF spelling here", where_,
             model.value("type", std::string()));
      byte_level_ = has_type(root_.value("pre_tokenizer", json()), "ByteLevel");
      read_tokens(model);
      read_added(model);
      out.set("tokenizer.ggml.model", std::string(byte_level_ ? "gpt2" : "llama"));
      out.set("tokenizer.ggml.pre", byte_level_ ? cutting(model) : std::string("default"));
      const std::vector<std::string> merges = read_merges(model);
      if (!byte_level_) out.set("tokenizer.ggml.scores", scores(merges));
      out.set("tokenizer.ggml.tokens", TextList(tokens_));
      out.set("tokenizer.ggml.token_type", kinds_);
      out.set("tokenizer.ggml.merges", TextList(merges));
      write_special(out);
    } catch (const json::exception& error) {
      fail(ErrorCode::kMalformed, "{}: {}", where_, json_reason(error.what()));
    }
  }

 private:
  static json parse(const std::string& text, const std::string& where, uint64_t most_bytes) {
    require_small_json(text, where, most_bytes);
    try {
      json root = json::parse(text);
      if (!root.is_object()) fail(ErrorCode::kMalformed, "{}: not a JSON object", where);
      return root;
    } catch (const json::exception& error) {
      fail(ErrorCode::kMalformed, "{}: {}", where, json_reason(error.what()));
    }
  }

  // Whether the step is of that type or, being a sequence, has one.
  static bool has_type(const json& step, std::string_view type) {
    if (!step.is_object()) return false;
    if (step.value("type", std::string()) == type) return true;
    for (const char* list : {"pretokenizers", "normalizers", "processors", "decoders"}) {
      const auto inner = step.find(list);
      if (inner == step.end()) continue;
      for (const json& part : *inner)
        if (has_type(part, type)) return true;
    }
    return false;
  }

  uint64_t checked_id(const json& id, const std::string& token) const {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary_)
      fail(ErrorCode::kMalformed, "{}: token {}: its id is not below the embedding's {} rows", where_, token,
           vocabulary_);
    return id.get<uint64_t>();
  }

  void read_tokens(const json& model) {
    tokens_.resize(vocabulary_);
    kinds_.assign(vocabulary_, kUnused);
    for (const auto& [token, id] : model.at("vocab").items()) {
      const uint64_t place = checked_id(id, token);
      tokens_[place] = token;
      kinds_[place] = !byte_level_ && is_byte(token) ? kByte : kNormal;
    }
  }

  static bool is_byte(const std::string& token) {
    return token.size() == 6 && token.compare(0, 3, "<0x") == 0 && token[5] == '>';
  }

  void read_added(const json& model) {
    for (const json& added : root_.value("added_tokens", json::array())) {
      const std::string token = added.at("content").get<std::string>();
      const uint64_t id = checked_id(added.at("id"), token);
      tokens_[id] = token;
      kinds_[id] = added.value("special", false) ? kControl : kUserDefined;
    }
    if (const auto unknown = model.find("unk_token"); unknown != model.end() && unknown->is_string())
      if (const auto id = id_of(unknown->get<std::string>()); id && !byte_level_) kinds_[*id] = kUnknown;
    for (uint64_t id = 0; id < vocabulary_; ++id)
      if (kinds_[id] == kUnused) tokens_[id] = fmt::format("[PAD{}]", id);
  }

  std::optional<uint64_t> id_of(const std::string& token) {
    if (ids_.empty())
      for (uint64_t id = 0; id < vocabulary_; ++id) ids_.emplace(tokens_[id], id);
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }

  static std::vector<std::string> read_merges(const json& model) {
    std::vector<std::string> merges;
    for (const json& merge : model.at("merges"))
      merges.push_back(merge.is_array()
                           ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>()
                           : merge.get<std::string>());
    return merges;
  }

  // GGUF's SentencePiece readers merge the pair whose token has the highest score: the earlier the merge, the
  // higher.
  std::vector<double> scores(const std::vector<std::string>& merges) {
    std::vector<double> values(vocabulary_, 0.0);
    std::vector<bool> made(vocabulary_, false);
    double rank = 0;
    for (const std::string& merge : merges) {
      rank -= 1;
      const size_t space = merge.find(' ', 1);
      if (space == std::string::npos) fail(ErrorCode::kMalformed, "{}: merge {} has one part", where_, merge);
      const auto id = id_of(merge.substr(0, space) + merge.substr(space + 1));
      if (!id || made[*id]) continue;
      made[*id] = true;
      values[*id] = rank;
    }
    return values;
  }

  // The name under which GGUF readers know how this tokenizer cuts a text.
  std::string cutting(const json& model) const {
    const json step = root_.value("pre_tokenizer", json());
    const json steps =
        step.value("type", std::string()) == "Sequence" ? step.at("pretokenizers") : json::array({step});
    const bool whole_words = model.value("ignore_merges", false);
    const auto type_of = [&steps](size_t i) { return steps.at(i).value("type", std::string()); };
    if (steps.size() == 1 && steps[0].value("use_regex", true)) return "gpt-2";
    if (steps.size() == 2 && type_of(0) == "Digits" && steps[0].value("individual_digits", false) &&
        steps[1].value("use_regex", true))
      return "smollm";
    if (steps.size() == 2 && type_of(0) == "Split" && type_of(1) == "ByteLevel") {
      const std::string pattern = steps[0].at("pattern").value("Regex", std::string());
      for (const Cutting& cutting : kCuttings)
        if (cutting.pattern == pattern && cutting.whole_words.value_or(whole_words) == whole_words)
          return std::string(cutting.name);
    }
    fail(ErrorCode::kUnsupported, "{}: GGUF has no name for this pre_tokenizer: {}", where_,
         step.dump(-1, ' ', true, json::error_handler_t::replace));
  }

  std::optional<uint64_t> special_id(const char* key) {
    const json value = config_.value(key, json());
    if (value.is_string()) return id_of(value.get<std::string>());
    if (value.is_object() && value.contains("content")) return id_of(value.at("content").get<std::string>());
    return std::nullopt;
  }

  // Whether the template that is put around a text begins with a special token.
  bool template_adds_first() const {
    const auto begins = [](const json& processor) {
      if (processor.value("type", std::string()) != "TemplateProcessing") return false;
      const json single = processor.value("single", json::array());
      return !single.empty() && single[0].contains("SpecialToken");
    };
    const json processor = root_.value("post_processor", json());
    if (!processor.is_object()) return false;
    if (begins(processor)) return true;
    for (const json& inner : processor.value("processors", json::array()))
      if (begins(inner)) return true;
    return false;
  }

  void write_special(Metadata& out) {
    const auto set_id = [&](const char* key, const char* special) {
      if (const auto id = special_id(special)) out.set(key, *id);
    };
    set_id("tokenizer.ggml.bos_token_id", "bos_token");
    set_id("tokenizer.ggml.eos_token_id", "eos_token");
    set_id("tokenizer.ggml.eot_token_id", "eos_token");
    set_id("tokenizer.ggml.unknown_token_id", "unk_token");
    set_id("tokenizer.ggml.padding_token_id", "pad_token");
    const json add_first = config_.value("add_bos_token", json());
    out.set("tokenizer.ggml.add_bos_token",
            add_first.is_boolean() ? add_first.get<bool>() : template_adds_first());
    out.set("tokenizer.ggml.add_eos_token", config_.value("add_eos_token", json()) == json(true));
    const json prefix = config_.value("add_prefix_space", json());
    const bool prepends = has_type(root_.value("normalizer", json()), "Prepend") ||
                          has_type(root_.value("pre_tokenizer", json()), "Metaspace");
    out.set("tokenizer.ggml.add_space_prefix",
            byte_level_ ? prefix == json(true) : (prefix.is_boolean() ? prefix.get<bool>() : prepends));
  }

  const std::string where_;
  const uint32_t vocabulary_;
  json root_, config_ = json::object();
  bool byte_level_ = false;
  std::vector<std::string> tokens_;
  std::vector<int64_t> kinds_;
  std::map<std::string, uint64_t> ids_;
};

// Ids that end a turn by generation_config.json, where they are not what tokenizer_config.json calls the end.
void add_generation_ends(const Manifest& manifest, Metadata& metadata) {
  if (manifest.generation_config_json.empty()) return;
  const Metadata facts =
      flatten_json(manifest.generation_config_json, manifest.path + "/generation_config.json");
  const auto found = facts.values().find("eos_token_id");
  if (found == facts.values().end()) return;
  std::vector<uint64_t> ends;
  if (std::holds_alternative<std::vector<uint64_t>>(found->second))
    ends = *facts.integers("eos_token_id");
  else
    ends = {*facts.integer("eos_token_id")};
  const auto eos = metadata.integer("tokenizer.ggml.eos_token_id");
  for (const uint64_t end : ends) {
    if (!eos) return metadata.set("tokenizer.ggml.eos_token_id", end);
    if (end != *eos) return metadata.set("tokenizer.ggml.eot_token_id", end);
  }
}

}  // namespace

void add_tokenizer_facts(const Manifest& manifest, uint32_t vocabulary, const Note& note,
                         Metadata& metadata) {
  if (manifest.tokenizer_json.empty()) {
    note(fmt::format("{} has no tokenizer.json: the file will take token ids alone", manifest.path));
    return;
  }
  Tokenizer(manifest, vocabulary).write(metadata);
  add_generation_ends(manifest, metadata);
  if (!manifest.chat_template.empty()) metadata.set("tokenizer.chat_template", manifest.chat_template);
}

}  // namespace caravan
