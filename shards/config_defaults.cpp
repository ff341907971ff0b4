#include "shards/config_defaults.h"

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace caravan {

namespace {

// What a configuration class takes for absent keys, by its own names. 0: nothing (no window; as many
// key/value heads as heads; the width divided by the heads). Keys that no real file leaves out, such as
// hidden_size, are not here: a file without one is refused.
struct ConfigClass {
  std::string_view model_type;
  uint64_t max_position_embeddings;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  uint64_t num_key_value_heads = 0;
  uint64_t head_dim = 0;
  uint64_t sliding_window = 0;  // for Qwen's, where use_sliding_window is on
  bool tie_word_embeddings = false;
  uint64_t num_experts = 0;
  uint64_t num_experts_per_tok = 0;
  uint64_t moe_intermediate_size = 0;
};

// From transformers' configuration_*.py.
constexpr ConfigClass kClasses[] = {
    {.model_type = "granite", .max_position_embeddings = 2048},
    {.model_type = "llama", .max_position_embeddings = 2048},
    {.model_type = "mistral",
     .max_position_embeddings = 131072,
     .num_key_value_heads = 8,
     .sliding_window = 4096},
    {.model_type = "mixtral",
     .max_position_embeddings = 131072,
     .rms_norm_eps = 1e-5,
     .rope_theta = 1e6,
     .num_key_value_heads = 8,
     .num_experts = 8,
     .num_experts_per_tok = 2},
    {.model_type = "olmo2", .max_position_embeddings = 2048, .rms_norm_eps = 1e-5},
    {.model_type = "qwen2",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .sliding_window = 4096},
    {.model_type = "qwen3",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .head_dim = 128,
     .sliding_window = 4096},
    {.model_type = "qwen3_moe",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 4,
     .sliding_window = 4096,
     .num_experts = 128,
     .num_experts_per_tok = 8,
     .moe_intermediate_size = 768},
    {.model_type = "smollm3",
     .max_position_embeddings = 32768,
     .rope_theta = 2e6,
     .num_key_value_heads = 4,
     .tie_word_embeddings = true},
};

}  // namespace

void add_config_defaults(const std::string& model_type, const std::set<std::string>& nulls,
                         Metadata& config) {
  const auto absent = [&](const std::string& key) { return !config.has(key) && nulls.count(key) == 0; };
  for (const ConfigClass& one : kClasses) {
    if (one.model_type != model_type) continue;
    if (absent("rms_norm_eps")) config.set("rms_norm_eps", one.rms_norm_eps);
    // Newer files have it in a table of rope parameters, where it comes first.
    if (absent("rope_theta")) config.set("rope_theta", one.rope_theta);
    if (absent("tie_word_embeddings") && one.tie_word_embeddings) config.set("tie_word_embeddings", true);
    // Both names are in use.
    const bool experts = absent("num_experts") && absent("num_local_experts");
    for (const auto& [key, value] : std::initializer_list<std::pair<const char*, uint64_t>>{
             {"max_position_embeddings", one.max_position_embeddings},
             {"num_key_value_heads", one.num_key_value_heads},
             {"head_dim", one.head_dim},
             {"sliding_window", one.sliding_window},
             {"num_experts", experts ? one.num_experts : 0},
             {"num_experts_per_tok", one.num_experts_per_tok},
             {"moe_intermediate_size", one.moe_intermediate_size}})
      if (value != 0 && absent(key)) config.set(key, value);
  }
}

}  // namespace caravan
