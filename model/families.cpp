#include "model/families.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/limits.h"
#include "model/rope_spec.h"
#include "shards/names.h"

namespace caravan {

namespace {

// Which layers a Hugging Face folder's sliding_window is for; GGUF's is for all layers.
enum class WindowRule : uint8_t {
  kNone,
  kGguf,     // none: such folders have no window, whatever else they say
  kAll,      // every layer
  kUsed,     // every layer where use_sliding_window is on
  kUpper,    // where it is on: as layer_types says, else from max_window_layers up
  kUnroped,  // where it is on: as layer_types says, else the layers without rope
};

// How a family differs from Llama. An entry is all that a new family of this kind needs.
struct Family {
  const char* name;       // ours, and Hugging Face's model_type
  const char* gguf;       // general.architecture
  RopeLayout gguf_rope;   // Hugging Face always turns halves; GGUF permutes the rows of some families
  bool qkv_bias = false;  // always there (else as attention_bias says)
  bool head_norm = false;
  bool pre_norm = true;
  bool post_norm = false;
  WindowRule window = WindowRule::kNone;
  bool experts = false;
  bool normalise_by_default = true;  // of experts' weights where a folder does not say; GGUF always means it
  bool unit_scale = false;           // of scores where a folder does not say (else 1 / sqrt(head width))
  uint32_t no_rope_interval = 0;     // every n-th layer has no rope where the file does not list them
};

constexpr Family kFamilies[] = {
    {.name = "granite", .gguf = "granite", .gguf_rope = RopeLayout::kInterleaved, .unit_scale = true},
    {.name = "llama",
     .gguf = "llama",
     .gguf_rope = RopeLayout::kInterleaved,
     .window = WindowRule::kGguf,
     .experts = true},
    {.name = "mistral", .gguf = "mistral", .gguf_rope = RopeLayout::kInterleaved, .window = WindowRule::kAll},
    {.name = "mixtral",
     .gguf = "mixtral",
     .gguf_rope = RopeLayout::kInterleaved,
     .window = WindowRule::kAll,
     .experts = true},
    {.name = "olmo2",
     .gguf = "olmo2",
     .gguf_rope = RopeLayout::kHalves,
     .head_norm = true,
     .pre_norm = false,
     .post_norm = true},
    {.name = "qwen2",
     .gguf = "qwen2",
     .gguf_rope = RopeLayout::kHalves,
     .qkv_bias = true,
     .window = WindowRule::kUpper},
    {.name = "qwen3",
     .gguf = "qwen3",
     .gguf_rope = RopeLayout::kHalves,
     .head_norm = true,
     .window = WindowRule::kUpper},
    {.name = "qwen3_moe",
     .gguf = "qwen3moe",
     .gguf_rope = RopeLayout::kHalves,
     .head_norm = true,
     .window = WindowRule::kUsed,
     .experts = true,
     .normalise_by_default = false},
    {.name = "smollm3",
     .gguf = "smollm3",
     .gguf_rope = RopeLayout::kInterleaved,
     .window = WindowRule::kUnroped,
     .no_rope_interval = 4},
};

const Family* find_family(const std::string& architecture) {
  for (const Family& family : kFamilies)
    if (architecture == family.name || architecture == family.gguf) return &family;
  return nullptr;
}

// One fact under either file's name for it. GGUF keys stand behind "ARCHITECTURE.".
struct Key {
  const char* hugging_face;
  const char* gguf;
};

class Facts {
 public:
  explicit Facts(const Manifest& manifest)
      : manifest_(manifest), gguf_(manifest.origin == Manifest::Origin::kGguf) {}

  std::string key(Key name) const {
    return gguf_ ? manifest_.architecture + "." + name.gguf : std::string(name.hugging_face);
  }
  bool known(Key name) const { return gguf_ ? name.gguf != nullptr : name.hugging_face != nullptr; }
  std::optional<uint64_t> integer(Key name) const {
    return known(name) ? manifest_.metadata.integer(key(name)) : std::nullopt;
  }
  std::optional<double> number(Key name) const {
    return known(name) ? manifest_.metadata.number(key(name)) : std::nullopt;
  }
  // That a float holds.
  std::optional<float> real(Key name) const {
    const auto value = number(name);
    if (!value) return std::nullopt;
    const auto kept = static_cast<float>(*value);
    if (!std::isfinite(kept))
      fail(ErrorCode::kMalformed, "{}: {} is {}, which is no number to compute with", manifest_.path,
           key(name), *value);
    return kept;
  }
  std::optional<bool> boolean(Key name) const {
    return known(name) ? manifest_.metadata.boolean(key(name)) : std::nullopt;
  }
  uint32_t required(Key name, uint32_t limit) const {
    const auto value = integer(name);
    if (!value) fail(ErrorCode::kMalformed, "{}: {} is missing", manifest_.path, key(name));
    return bounded(name, *value, limit);
  }
  uint32_t bounded(Key name, uint64_t value, uint32_t limit) const {
    if (value == 0 || value > limit)
      fail(ErrorCode::kLimit, "{}: {} is {}, not from 1 to {}", manifest_.path, key(name), value, limit);
    return static_cast<uint32_t>(value);
  }
  // One value a layer, from a number or a list.
  std::vector<uint32_t> per_layer(Key name, uint32_t layers, uint32_t fallback, uint32_t limit) const {
    std::vector<uint32_t> values(layers, fallback);
    const auto found =
        known(name) ? manifest_.metadata.values().find(key(name)) : manifest_.metadata.values().end();
    if (found == manifest_.metadata.values().end()) return values;
    if (found->second.index() <= 3) {
      if (const auto one = integer(name)) values.assign(layers, bounded(name, *one, limit));
      return values;
    }
    const auto list = manifest_.metadata.integers(key(name));
    if (!list || list->size() != layers)
      fail(ErrorCode::kMalformed, "{}: {} does not list one number a layer", manifest_.path, key(name));
    for (uint32_t i = 0; i < layers; ++i) values[i] = bounded(name, (*list)[i], limit);
    return values;
  }
  bool gguf() const { return gguf_; }
  const Manifest& manifest() const { return manifest_; }

 private:
  const Manifest& manifest_;
  const bool gguf_;
};

constexpr Key kLayers{"num_hidden_layers", "block_count"};
constexpr Key kWidth{"hidden_size", "embedding_length"};
constexpr Key kContext{"max_position_embeddings", "context_length"};
constexpr Key kHeads{"num_attention_heads", "attention.head_count"};
constexpr Key kKvHeads{"num_key_value_heads", "attention.head_count_kv"};
constexpr Key kHeadWidth{"head_dim", "attention.key_length"};
constexpr Key kValueWidth{nullptr, "attention.value_length"};
constexpr Key kFeedForwardWidth{"intermediate_size", "feed_forward_length"};
constexpr Key kExpertWidth{"moe_intermediate_size", "expert_feed_forward_length"};
constexpr Key kExpertCount{"num_experts", "expert_count"};
constexpr Key kLocalExpertCount{"num_local_experts", nullptr};
constexpr Key kExpertsUsed{"num_experts_per_tok", "expert_used_count"};
constexpr Key kNormalise{"norm_topk_prob", "expert_weights_norm"};
constexpr Key kEpsilon{"rms_norm_eps", "attention.layer_norm_rms_epsilon"};
constexpr Key kWindow{"sliding_window", "attention.sliding_window"};
constexpr Key kUseWindow{"use_sliding_window", nullptr};
constexpr Key kMaxWindowLayers{"max_window_layers", nullptr};
constexpr Key kBias{"attention_bias", nullptr};
constexpr Key kFeedForwardBias{"mlp_bias", nullptr};
constexpr Key kEmbeddingScale{"embedding_multiplier", "embedding_scale"};
constexpr Key kResidualScale{"residual_multiplier", "residual_scale"};
constexpr Key kAttentionScale{"attention_multiplier", "attention.scale"};
constexpr Key kLogitDivisor{"logits_scaling", "logit_scale"};

constexpr uint64_t kDefaultMaxWindowLayers = 28;  // Qwen's

Activation read_activation(const Manifest& manifest) {
  const std::string name = manifest.metadata.text("hidden_act").value_or("silu");
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::kGelu;
  if (name == "gelu") return Activation::kGeluErf;
  fail(ErrorCode::kUnsupported, "{}: hidden_act \"{}\" is not known; known are silu, gelu, gelu_pytorch_tanh",
       manifest.path, name);
}

// Whether each layer turns its queries and keys (SmolLM3 leaves every fourth as it is).
std::vector<bool> read_rope_layers(const Facts& facts, const Family& family, uint32_t layers) {
  std::vector<bool> rope(layers, true);
  if (family.no_rope_interval == 0) return rope;
  if (!facts.gguf()) {
    if (const auto list = facts.manifest().metadata.integers("no_rope_layers")) {
      if (list->size() != layers)
        fail(ErrorCode::kMalformed, "{}: no_rope_layers has {} entries for {} layers", facts.manifest().path,
             list->size(), layers);
      for (uint32_t i = 0; i < layers; ++i) rope[i] = (*list)[i] != 0;
      return rope;
    }
  }
  const uint64_t given =
      facts.gguf()
          ? family.no_rope_interval
          : facts.manifest().metadata.integer("no_rope_layer_interval").value_or(family.no_rope_interval);
  if (given == 0) return rope;
  for (uint32_t i = 0; i < layers; ++i) rope[i] = (i + 1) % given != 0;
  return rope;
}

// The window of each layer, 0 for full attention.
std::vector<uint32_t> read_windows(const Facts& facts, const Family& family, const std::vector<bool>& rope) {
  const auto layers = static_cast<uint32_t>(rope.size());
  std::vector<uint32_t> windows(layers, 0);
  const auto* types = facts.manifest().metadata.texts("layer_types");
  for (size_t i = 0; types && i < types->size(); ++i)
    if ((*types)[i] != "full_attention" && (*types)[i] != "sliding_attention")
      fail(ErrorCode::kUnsupported, "{}: layer_types: layer {} has \"{}\", which is not known",
           facts.manifest().path, i, (*types)[i]);
  const auto window = facts.integer(kWindow);
  const WindowRule rule = family.window;
  if (rule == WindowRule::kNone || !window || *window == 0) return windows;
  const uint32_t width = facts.bounded(kWindow, *window, limits::kMaxContext);
  if (facts.gguf() || rule == WindowRule::kAll) return std::vector<uint32_t>(layers, width);
  if (rule == WindowRule::kGguf || !facts.boolean(kUseWindow).value_or(false)) return windows;
  if (rule != WindowRule::kUsed && types && types->size() != layers)
    fail(ErrorCode::kMalformed, "{}: layer_types has {} entries for {} layers", facts.manifest().path,
         types->size(), layers);
  const uint64_t first = facts.integer(kMaxWindowLayers).value_or(kDefaultMaxWindowLayers);
  for (uint32_t i = 0; i < layers; ++i) {
    const bool windowed = rule == WindowRule::kUsed    ? true
                          : types                      ? (*types)[i] == "sliding_attention"
                          : rule == WindowRule::kUpper ? i >= first
                                                       : !rope[i];
    if (windowed) windows[i] = width;
  }
  return windows;
}

FeedForwardSpec read_feed_forward(const Facts& facts, const Family& family, Activation activation,
                                  uint32_t layer) {
  FeedForwardSpec spec;
  spec.activation = activation;
  const bool routed = facts.manifest().find({GroupId::Kind::kExpert, layer, 0}) != nullptr;
  if (!family.experts || !routed) {
    spec.width = facts.required(kFeedForwardWidth, limits::kMaxFeedForward);
    const WeightGroup* group = facts.manifest().find({GroupId::Kind::kFeedForward, layer, 0});
    spec.bias = facts.boolean(kFeedForwardBias).value_or(false) || (group && group->find(Role::kGateBias));
    return spec;
  }
  const Key count_key = facts.integer(kExpertCount) ? kExpertCount : kLocalExpertCount;
  spec.experts = facts.required(facts.known(count_key) ? count_key : kExpertCount, limits::kMaxExperts);
  spec.experts_per_token = facts.required(kExpertsUsed, limits::kMaxExpertsPerToken);
  if (spec.experts_per_token > spec.experts)
    fail(ErrorCode::kMalformed, "{}: {} of {} experts cannot be chosen", facts.manifest().path,
         spec.experts_per_token, spec.experts);
  spec.normalise = facts.boolean(kNormalise).value_or(facts.gguf() || family.normalise_by_default);
  spec.width = facts.integer(kExpertWidth) ? facts.required(kExpertWidth, limits::kMaxFeedForward)
                                           : facts.required(kFeedForwardWidth, limits::kMaxFeedForward);
  return spec;
}

uint32_t read_vocabulary(const Manifest& manifest) {
  const WeightGroup* group = manifest.find({GroupId::Kind::kEmbed, 0, 0});
  const Tensor* table = group ? group->find(Role::kEmbedding) : nullptr;
  if (!table)
    fail(ErrorCode::kMalformed, "{}: tensor {} is missing, the token embedding", manifest.path,
         usual_name(manifest.origin, manifest.architecture, {GroupId::Kind::kEmbed, 0, 0}, Role::kEmbedding));
  if (table->rows > limits::kMaxVocabulary)
    fail(ErrorCode::kLimit, "{}: {} has {} rows, over {}", manifest.path, table->name, table->rows,
         limits::kMaxVocabulary);
  const auto stated = manifest.metadata.integer("vocab_size");
  if (manifest.origin == Manifest::Origin::kHuggingFace && stated && *stated != table->rows)
    fail(ErrorCode::kMalformed, "{}: vocab_size is {}, {} has {} rows", manifest.path, *stated, table->name,
         table->rows);
  return table->rows;
}

// Heads of every layer, and the width they share.
struct Heads {
  std::vector<uint32_t> queries, kv;
  uint32_t width = 0;
};

Heads read_heads(const Facts& facts, uint32_t layers, uint32_t model_width) {
  Heads heads;
  heads.queries = facts.per_layer(kHeads, layers, 0, limits::kMaxHeads);
  if (heads.queries[0] == 0)
    fail(ErrorCode::kMalformed, "{}: {} is missing", facts.manifest().path, facts.key(kHeads));
  heads.kv = facts.per_layer(kKvHeads, layers, 0, limits::kMaxHeads);
  heads.width = facts.integer(kHeadWidth)
                    ? facts.required(kHeadWidth, limits::kMaxHeadWidth)
                    : facts.bounded(kHeadWidth, model_width / heads.queries[0], limits::kMaxHeadWidth);
  if (facts.integer(kValueWidth).value_or(heads.width) != heads.width)
    fail(ErrorCode::kUnsupported, "{}: values of another width than keys are not supported",
         facts.manifest().path);
  for (uint32_t i = 0; i < layers; ++i) {
    if (heads.kv[i] == 0) heads.kv[i] = heads.queries[i];
    if (heads.queries[i] % heads.kv[i] != 0)
      fail(ErrorCode::kMalformed, "{}: {} heads cannot share {} key/value heads", facts.manifest().path,
           heads.queries[i], heads.kv[i]);
  }
  return heads;
}

AttentionSpec read_attention(const Facts& facts, const Family& family, const Heads& heads, uint32_t layer) {
  const WeightGroup* group = facts.manifest().find({GroupId::Kind::kAttention, layer, 0});
  const auto holds = [&](Role role) { return group && group->find(role); };
  AttentionSpec attention;
  attention.shape = {heads.queries[layer], heads.kv[layer], heads.width};
  const float scale = facts.real(kAttentionScale).value_or(family.unit_scale && !facts.gguf() ? 1.0f : 0.0f);
  attention.scale = scale != 0 ? scale : 1 / std::sqrt(static_cast<float>(heads.width));
  attention.head_norm = family.head_norm;
  attention.bias = family.qkv_bias || facts.boolean(kBias).value_or(false) || holds(Role::kQueryBias);
  attention.output_bias = holds(Role::kAttentionOutputBias);
  return attention;
}

}  // namespace

std::vector<std::string> known_families() {
  std::set<std::string> names;
  for (const Family& family : kFamilies) names.insert(family.name);
  return {names.begin(), names.end()};
}

bool family_is_known(const std::string& architecture) {
  return find_family(architecture) != nullptr;
}

ModelSpec read_spec(const Manifest& manifest) {
  const Family* family = find_family(manifest.architecture);
  if (!family) {
    std::string known;
    for (const std::string& name : known_families()) known += (known.empty() ? "" : ", ") + name;
    fail(ErrorCode::kUnsupported, "{}: the family \"{}\" is not known; known are {}", manifest.path,
         manifest.architecture, known);
  }
  const Facts facts(manifest);
  ModelSpec spec;
  spec.family = family->name;
  const uint32_t layers = facts.required(kLayers, limits::kMaxLayers);
  spec.width = facts.required(kWidth, limits::kMaxWidth);
  spec.vocabulary = read_vocabulary(manifest);
  spec.context = facts.required(kContext, limits::kMaxContext);
  spec.norm_epsilon = facts.real(kEpsilon).value_or(1e-6f);
  if (spec.norm_epsilon < 0)
    fail(ErrorCode::kMalformed, "{}: {} is {}, below 0", manifest.path, facts.key(kEpsilon),
         spec.norm_epsilon);
  spec.embedding_scale = facts.real(kEmbeddingScale).value_or(1);
  spec.logit_scale = 1 / facts.real(kLogitDivisor).value_or(1);
  if (!std::isfinite(spec.logit_scale))
    fail(ErrorCode::kMalformed, "{}: {} cannot be divided by", manifest.path, facts.key(kLogitDivisor));

  const Heads heads = read_heads(facts, layers, spec.width);
  const auto rope_layers = read_rope_layers(facts, *family, layers);
  const auto windows = read_windows(facts, *family, rope_layers);
  const Activation activation = read_activation(manifest);
  spec.rope = read_rope(manifest, heads.width, spec.context);
  const float residual_scale = facts.real(kResidualScale).value_or(1);
  spec.layers.resize(layers);
  for (uint32_t i = 0; i < layers; ++i) {
    LayerSpec& layer = spec.layers[i];
    layer.pre_norm = family->pre_norm;
    layer.post_norm = family->post_norm;
    layer.residual_scale = residual_scale;
    layer.attention = read_attention(facts, *family, heads, i);
    layer.attention.window = windows[i];
    if (rope_layers[i]) layer.attention.rope = facts.gguf() ? family->gguf_rope : RopeLayout::kHalves;
    layer.feed_forward = read_feed_forward(facts, *family, activation, i);
  }
  return spec;
}

}  // namespace caravan
