#include "shards/gguf_facts.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/limits.h"
#include "compute/rope.h"

namespace caravan {

namespace {

// How a model_type is spelled in GGUF.
struct Family {
  std::string_view model_type;
  std::string_view architecture;
  bool interleaved;  // the rotary layout that GGUF means by this architecture
};

constexpr Family kFamilies[] = {
    {"llama", "llama", true},     {"mistral", "llama", true},       {"mixtral", "llama", true},
    {"granite", "granite", true}, {"smollm3", "smollm3", true},     {"qwen2", "qwen2", false},
    {"qwen3", "qwen3", false},    {"qwen3_moe", "qwen3moe", false}, {"olmo2", "olmo2", false},
};

const Family& family_of(const Manifest& manifest) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.model_type == manifest.architecture) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  fail(ErrorCode::kUnsupported, "{}: the family \"{}\" cannot be written as GGUF; known are {}",
       manifest.path, manifest.architecture, known);
}

class Converter {
 public:
  explicit Converter(const Manifest& manifest)
      : from_(manifest.metadata), manifest_(manifest), family_(family_of(manifest)) {
    layers_ = required("num_hidden_layers", limits::kMaxLayers);
  }

  GgufFacts convert() {
    facts_.interleaved = family_.interleaved;
    if (const std::string activation = from_.text("hidden_act").value_or("silu");
        activation != "silu" && activation != "swish")
      refuse(fmt::format("the activation \"{}\"", activation));
    add_shape();
    add_experts();
    add_window();
    add_scales();
    add_rope();
    require_rope_pattern();
    return std::move(facts_);
  }

 private:
  std::string own(std::string_view key) const { return fmt::format("{}.{}", family_.architecture, key); }
  void set(std::string_view key, Metadata::Value value) { facts_.metadata.set(own(key), std::move(value)); }

  // GGUF readers expect these in 32 bits.
  void set_number(std::string_view key, double value) { set(key, double{static_cast<float>(value)}); }

  uint32_t required(std::string_view key, uint32_t limit) const {
    const auto value = from_.integer(key);
    if (!value) fail(ErrorCode::kMalformed, "{}: {} is missing", manifest_.path, key);
    if (*value == 0 || *value > limit)
      fail(ErrorCode::kLimit, "{}: {} is {}, not from 1 to {}", manifest_.path, key, *value, limit);
    return static_cast<uint32_t>(*value);
  }

  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "{}: GGUF has no words for {}", manifest_.path, what);
  }

  void add_shape() {
    const uint32_t width = required("hidden_size", limits::kMaxWidth);
    facts_.heads = required("num_attention_heads", limits::kMaxHeads);
    facts_.kv_heads =
        from_.has("num_key_value_heads") ? required("num_key_value_heads", limits::kMaxHeads) : facts_.heads;
    head_width_ = from_.has("head_dim") ? required("head_dim", limits::kMaxHeadWidth) : width / facts_.heads;
    facts_.metadata.set("general.architecture", std::string(family_.architecture));
    facts_.metadata.set("general.type", std::string("model"));
    facts_.metadata.set("general.name", manifest_.name);
    set("block_count", uint64_t{layers_});
    set("context_length", uint64_t{required("max_position_embeddings", limits::kMaxContext)});
    set("embedding_length", uint64_t{width});
    set("feed_forward_length", uint64_t{required("intermediate_size", limits::kMaxFeedForward)});
    set("attention.head_count", uint64_t{facts_.heads});
    set("attention.head_count_kv", uint64_t{facts_.kv_heads});
    set("attention.key_length", uint64_t{head_width_});
    set("attention.value_length", uint64_t{head_width_});
    set_number("attention.layer_norm_rms_epsilon", from_.number("rms_norm_eps").value_or(1e-6));
  }

  void add_experts() {
    const auto here = from_.integer("num_experts");
    const auto experts = here ? here : from_.integer("num_local_experts");
    const bool routed =
        std::any_of(manifest_.groups.begin(), manifest_.groups.end(),
                    [](const WeightGroup& group) { return group.id.kind == GroupId::Kind::kExpert; });
    if (!experts || !routed) return;
    set("expert_count", *experts);
    set("expert_used_count", uint64_t{required("num_experts_per_tok", limits::kMaxExpertsPerToken)});
    if (from_.has("moe_intermediate_size"))
      set("expert_feed_forward_length", uint64_t{required("moe_intermediate_size", limits::kMaxFeedForward)});
    const auto normalise = from_.boolean("norm_topk_prob");
    if (normalise || family_.model_type == "qwen3_moe") set("expert_weights_norm", normalise.value_or(false));
  }

  // GGUF says one width for all layers or none.
  void add_window() {
    const auto window = from_.integer("sliding_window");
    if (!window || *window == 0) return;
    uint32_t windowed = layers_;
    if (family_.model_type != "mistral" && family_.model_type != "mixtral") {
      const auto* types = from_.texts("layer_types");
      const uint64_t full = from_.integer("max_window_layers").value_or(28);
      if (!from_.boolean("use_sliding_window").value_or(false))
        windowed = 0;
      else if (family_.model_type == "qwen3_moe")
        windowed = layers_;
      else if (types)
        windowed = static_cast<uint32_t>(std::count(types->begin(), types->end(), "sliding_attention"));
      else if (family_.model_type == "llama" || family_.model_type == "granite" ||
               family_.model_type == "olmo2")
        windowed = 0;
      else if (family_.model_type == "smollm3")
        refuse("a sliding window on the layers without rope");
      else
        windowed = layers_ - static_cast<uint32_t>(std::min<uint64_t>(full, layers_));
    }
    if (windowed == 0) return;
    if (windowed != layers_) refuse("a sliding window on some layers only");
    set("attention.sliding_window", *window);
  }

  void add_scales() {
    const auto copy = [this](std::string_view from, std::string_view to) {
      if (const auto value = from_.number(from)) set_number(to, *value);
    };
    copy("embedding_multiplier", "embedding_scale");
    copy("residual_multiplier", "residual_scale");
    if (from_.has("attention_multiplier") || family_.model_type != "granite")
      copy("attention_multiplier", "attention.scale");
    else
      set_number("attention.scale", 1);
    copy("logits_scaling", "logit_scale");
  }

  void add_rope() {
    const std::string prefix =
        from_.has("rope_parameters.rope_theta") || from_.has("rope_parameters.rope_type") ? "rope_parameters."
                                                                                          : "rope_scaling.";
    const auto number = [&](const char* key) { return from_.number(prefix + key); };
    const double theta = number("rope_theta").value_or(from_.number("rope_theta").value_or(10000));
    if (number("partial_rotary_factor").value_or(from_.number("partial_rotary_factor").value_or(1)) != 1)
      refuse("a partial_rotary_factor");
    set_number("rope.freq_base", theta);
    set("rope.dimension_count", uint64_t{head_width_});
    const std::string type =
        from_.text(prefix + "rope_type").value_or(from_.text(prefix + "type").value_or("default"));
    if (type == "default" || type == "none") return;
    const auto original = number("original_max_position_embeddings");
    const auto context = static_cast<double>(required("max_position_embeddings", limits::kMaxContext));
    const double factor = number("factor").value_or(original ? context / *original : 1);
    RopeScaling scaling;
    scaling.factor = static_cast<float>(factor);
    scaling.original_context = static_cast<float>(original.value_or(context));
    if (type == "llama3") {
      scaling.kind = RopeScalingKind::kLlama3;
      scaling.low_frequency_factor = static_cast<float>(number("low_freq_factor").value_or(1));
      scaling.high_frequency_factor = static_cast<float>(number("high_freq_factor").value_or(4));
      add_divisors(theta, scaling);
      return;
    }
    if (type != "linear" && type != "yarn") refuse(fmt::format("the rope scaling \"{}\"", type));
    set("rope.scaling.type", type);
    set_number("rope.scaling.factor", factor);
    if (type == "linear") return;
    scaling.kind = RopeScalingKind::kYarn;
    set("rope.scaling.original_context_length", static_cast<uint64_t>(original.value_or(context)));
    if (const auto fast = number("beta_fast")) set_number("rope.scaling.yarn_beta_fast", *fast);
    if (const auto slow = number("beta_slow")) set_number("rope.scaling.yarn_beta_slow", *slow);
    if (number("mscale") || number("mscale_all_dim")) refuse("yarn's mscale");
    if (!from_.boolean(prefix + "truncate").value_or(true)) refuse("yarn without truncation");
    // GGUF's factor multiplies the magnitude that yarn has by itself.
    if (const auto magnitude = number("attention_factor"))
      set_number("rope.scaling.attn_factor", *magnitude / static_cast<double>(rope_magnitude(scaling)));
  }

  void add_divisors(double theta, const RopeScaling& scaling) {
    const auto plain = rope_frequencies(theta, head_width_);
    const auto scaled = rope_frequencies(theta, head_width_, scaling);
    for (size_t i = 0; i < plain.size(); ++i) facts_.rope_divisors.push_back(plain[i] / scaled[i]);
  }

  // GGUF readers take for granted which of SmolLM3's layers have no rope: every fourth.
  void require_rope_pattern() {
    if (family_.model_type != "smollm3") return;
    const auto list = from_.integers("no_rope_layers");
    if (!list && from_.integer("no_rope_layer_interval").value_or(4) != 4)
      refuse("this no_rope_layer_interval (4 is understood)");
    for (size_t i = 0; list && i < list->size(); ++i)
      if (((*list)[i] == 0) != ((i + 1) % 4 == 0))
        refuse("these no_rope_layers (every fourth is understood)");
  }

  const Metadata& from_;
  const Manifest& manifest_;
  const Family& family_;
  GgufFacts facts_;
  uint32_t layers_ = 0;
  uint32_t head_width_ = 0;
};

uint32_t vocabulary_of(const Manifest& manifest) {
  const WeightGroup* embed = manifest.find({GroupId::Kind::kEmbed});
  const Tensor* table = embed ? embed->find(Role::kEmbedding) : nullptr;
  if (!table) fail(ErrorCode::kMalformed, "{}: the token embedding is missing", manifest.path);
  if (table->rows > limits::kMaxVocabulary)
    fail(ErrorCode::kLimit, "{}: {} tokens are more than {}", manifest.path, table->rows,
         limits::kMaxVocabulary);
  return table->rows;
}

}  // namespace

GgufFacts gguf_facts(const Manifest& hugging_face, const Note& note) {
  GgufFacts facts = Converter(hugging_face).convert();
  const uint32_t vocabulary = vocabulary_of(hugging_face);
  facts.metadata.set(*facts.metadata.text("general.architecture") + ".vocab_size", uint64_t{vocabulary});
  add_tokenizer_facts(hugging_face, vocabulary, note, facts.metadata);
  return facts;
}

}  // namespace caravan
