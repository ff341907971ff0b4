#include "shards/names.h"

#include <array>
#include <charconv>
#include <cstddef>

#include "base/check.h"

namespace caravan {

namespace {

using Kind = GroupId::Kind;

// `#` stands for a number: the layer, then the expert.
struct Name {
  std::string_view pattern;
  Kind kind;
  Role role;
  bool fused = false;
};

constexpr Name kGgufNames[] = {
    {"token_embd.weight", Kind::kEmbed, Role::kEmbedding},
    {"rope_freqs.weight", Kind::kEmbed, Role::kRopeFactors},
    {"output_norm.weight", Kind::kOutput, Role::kOutputNorm},
    {"output.weight", Kind::kOutput, Role::kOutput},
    {"blk.#.attn_norm.weight", Kind::kAttention, Role::kAttentionNorm},
    {"blk.#.post_attention_norm.weight", Kind::kAttention, Role::kAttentionPostNorm},
    {"blk.#.attn_q.weight", Kind::kAttention, Role::kQuery},
    {"blk.#.attn_k.weight", Kind::kAttention, Role::kKey},
    {"blk.#.attn_v.weight", Kind::kAttention, Role::kValue},
    {"blk.#.attn_q.bias", Kind::kAttention, Role::kQueryBias},
    {"blk.#.attn_k.bias", Kind::kAttention, Role::kKeyBias},
    {"blk.#.attn_v.bias", Kind::kAttention, Role::kValueBias},
    {"blk.#.attn_q_norm.weight", Kind::kAttention, Role::kQueryNorm},
    {"blk.#.attn_k_norm.weight", Kind::kAttention, Role::kKeyNorm},
    {"blk.#.attn_output.weight", Kind::kAttention, Role::kAttentionOutput},
    {"blk.#.attn_output.bias", Kind::kAttention, Role::kAttentionOutputBias},
    {"blk.#.ffn_norm.weight", Kind::kFeedForward, Role::kFeedForwardNorm},
    {"blk.#.post_ffw_norm.weight", Kind::kFeedForward, Role::kFeedForwardPostNorm},
    {"blk.#.ffn_gate_inp.weight", Kind::kFeedForward, Role::kRouter},
    {"blk.#.ffn_gate.weight", Kind::kFeedForward, Role::kGate},
    {"blk.#.ffn_up.weight", Kind::kFeedForward, Role::kUp},
    {"blk.#.ffn_down.weight", Kind::kFeedForward, Role::kDown},
    {"blk.#.ffn_gate.bias", Kind::kFeedForward, Role::kGateBias},
    {"blk.#.ffn_up.bias", Kind::kFeedForward, Role::kUpBias},
    {"blk.#.ffn_down.bias", Kind::kFeedForward, Role::kDownBias},
    {"blk.#.ffn_gate_exps.weight", Kind::kExpert, Role::kGate, true},
    {"blk.#.ffn_up_exps.weight", Kind::kExpert, Role::kUp, true},
    {"blk.#.ffn_down_exps.weight", Kind::kExpert, Role::kDown, true},
    {"blk.#.ffn_gate.#.weight", Kind::kExpert, Role::kGate},
    {"blk.#.ffn_up.#.weight", Kind::kExpert, Role::kUp},
    {"blk.#.ffn_down.#.weight", Kind::kExpert, Role::kDown},
};

constexpr std::string_view kModelPrefix = "model.";  // may stand before Hugging Face's names

constexpr Name kHuggingFaceNames[] = {
    {"embed_tokens.weight", Kind::kEmbed, Role::kEmbedding},
    {"norm.weight", Kind::kOutput, Role::kOutputNorm},
    {"lm_head.weight", Kind::kOutput, Role::kOutput},
    {"layers.#.input_layernorm.weight", Kind::kAttention, Role::kAttentionNorm},
    {"layers.#.self_attn.q_proj.weight", Kind::kAttention, Role::kQuery},
    {"layers.#.self_attn.k_proj.weight", Kind::kAttention, Role::kKey},
    {"layers.#.self_attn.v_proj.weight", Kind::kAttention, Role::kValue},
    {"layers.#.self_attn.q_proj.bias", Kind::kAttention, Role::kQueryBias},
    {"layers.#.self_attn.k_proj.bias", Kind::kAttention, Role::kKeyBias},
    {"layers.#.self_attn.v_proj.bias", Kind::kAttention, Role::kValueBias},
    {"layers.#.self_attn.q_norm.weight", Kind::kAttention, Role::kQueryNorm},
    {"layers.#.self_attn.k_norm.weight", Kind::kAttention, Role::kKeyNorm},
    {"layers.#.self_attn.o_proj.weight", Kind::kAttention, Role::kAttentionOutput},
    {"layers.#.self_attn.o_proj.bias", Kind::kAttention, Role::kAttentionOutputBias},
    {"layers.#.post_attention_layernorm.weight", Kind::kFeedForward, Role::kFeedForwardNorm},
    {"layers.#.pre_feedforward_layernorm.weight", Kind::kFeedForward, Role::kFeedForwardNorm},
    {"layers.#.post_feedforward_layernorm.weight", Kind::kFeedForward, Role::kFeedForwardPostNorm},
    {"layers.#.mlp.gate_proj.weight", Kind::kFeedForward, Role::kGate},
    {"layers.#.mlp.up_proj.weight", Kind::kFeedForward, Role::kUp},
    {"layers.#.mlp.down_proj.weight", Kind::kFeedForward, Role::kDown},
    {"layers.#.mlp.gate_proj.bias", Kind::kFeedForward, Role::kGateBias},
    {"layers.#.mlp.up_proj.bias", Kind::kFeedForward, Role::kUpBias},
    {"layers.#.mlp.down_proj.bias", Kind::kFeedForward, Role::kDownBias},
    {"layers.#.mlp.gate.weight", Kind::kFeedForward, Role::kRouter},
    {"layers.#.mlp.experts.#.gate_proj.weight", Kind::kExpert, Role::kGate},
    {"layers.#.mlp.experts.#.up_proj.weight", Kind::kExpert, Role::kUp},
    {"layers.#.mlp.experts.#.down_proj.weight", Kind::kExpert, Role::kDown},
    {"layers.#.block_sparse_moe.gate.weight", Kind::kFeedForward, Role::kRouter},
    {"layers.#.block_sparse_moe.experts.#.w1.weight", Kind::kExpert, Role::kGate},
    {"layers.#.block_sparse_moe.experts.#.w3.weight", Kind::kExpert, Role::kUp},
    {"layers.#.block_sparse_moe.experts.#.w2.weight", Kind::kExpert, Role::kDown},
};

// Families with norms on both sides of a sub-layer mean by this name the one after attention.
struct Override {
  std::string_view architecture;
  Name name;
};
constexpr Name kAfterAttention = {"layers.#.post_attention_layernorm.weight", Kind::kAttention,
                                  Role::kAttentionPostNorm};
constexpr Override kHuggingFaceOverrides[] = {
    {"olmo2", kAfterAttention},
    {"gemma2", kAfterAttention},
    {"gemma3_text", kAfterAttention},
};

bool drop_prefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// A decimal number without leading zeros, at most nine digits.
bool take_number(std::string_view& text, uint32_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto digits = static_cast<size_t>(end - text.data());
  if (error != std::errc{} || digits > 9 || (digits > 1 && text[0] == '0')) return false;
  text.remove_prefix(digits);
  return true;
}

bool matches(std::string_view pattern, std::string_view text, std::array<uint32_t, 2>& numbers) {
  size_t found = 0;
  while (!pattern.empty()) {
    if (pattern[0] == '#') {
      if (!take_number(text, numbers[found++])) return false;
    } else {
      if (text.empty() || text[0] != pattern[0]) return false;
      text.remove_prefix(1);
    }
    pattern.remove_prefix(1);
  }
  return text.empty();
}

// The name with the numbers of a place.
std::string spelled(std::string_view pattern, GroupId group) {
  std::string name(pattern);
  for (const uint32_t number : {group.layer, group.expert})
    if (const size_t hash = name.find('#'); hash != std::string::npos)
      name.replace(hash, 1, std::to_string(number));
  return name;
}

std::optional<Place> fit(const Name& name, std::string_view text) {
  std::array<uint32_t, 2> numbers{};
  if (!matches(name.pattern, text, numbers)) return std::nullopt;
  return Place{{name.kind, numbers[0], numbers[1]}, name.role, name.fused};
}

}  // namespace

std::optional<Place> place_of(Manifest::Origin origin, std::string_view architecture, std::string_view name) {
  if (origin == Manifest::Origin::kGguf) {
    for (const Name& entry : kGgufNames)
      if (const auto place = fit(entry, name)) return place;
    return std::nullopt;
  }
  drop_prefix(name, kModelPrefix);
  for (const Override& entry : kHuggingFaceOverrides)
    if (entry.architecture == architecture)
      if (const auto place = fit(entry.name, name)) return place;
  for (const Name& entry : kHuggingFaceNames)
    if (const auto place = fit(entry, name)) return place;
  return std::nullopt;
}

bool is_vector(Role role) {
  switch (role) {
    case Role::kEmbedding:
    case Role::kOutput:
    case Role::kQuery:
    case Role::kKey:
    case Role::kValue:
    case Role::kAttentionOutput:
    case Role::kRouter:
    case Role::kGate:
    case Role::kUp:
    case Role::kDown:
      return false;
    case Role::kOutputNorm:
    case Role::kRopeFactors:
    case Role::kAttentionNorm:
    case Role::kAttentionPostNorm:
    case Role::kQueryBias:
    case Role::kKeyBias:
    case Role::kValueBias:
    case Role::kQueryNorm:
    case Role::kKeyNorm:
    case Role::kAttentionOutputBias:
    case Role::kFeedForwardNorm:
    case Role::kFeedForwardPostNorm:
    case Role::kGateBias:
    case Role::kUpBias:
    case Role::kDownBias:
      break;
  }
  return true;
}

std::optional<uint32_t> layer_of(Manifest::Origin origin, std::string_view name) {
  drop_prefix(name, kModelPrefix);
  uint32_t layer = 0;
  if (!drop_prefix(name, origin == Manifest::Origin::kGguf ? "blk." : "layers.") || !take_number(name, layer))
    return std::nullopt;
  return layer;
}

std::string gguf_name(GroupId group, Role role) {
  for (const Name& entry : kGgufNames) {
    if (entry.kind != group.kind || entry.role != role || entry.fused != (group.kind == Kind::kExpert))
      continue;
    return spelled(entry.pattern, group);
  }
  CHECK(std::string("a role of its group") == std::string(caravan::name(role)));
  return {};
}

std::string usual_name(Manifest::Origin origin, std::string_view architecture, GroupId group, Role role) {
  if (origin == Manifest::Origin::kGguf) return gguf_name(group, role);
  const auto fits = [&](const Name& name) { return name.kind == group.kind && name.role == role; };
  std::string_view pattern;
  for (const Name& entry : kHuggingFaceNames) {
    // Of the two ways to name routers and experts the older one is Mixtral's.
    const bool mixtral = entry.pattern.find("block_sparse_moe") != std::string_view::npos;
    if (fits(entry) && (pattern.empty() || (mixtral && architecture == "mixtral"))) pattern = entry.pattern;
  }
  for (const Override& entry : kHuggingFaceOverrides)
    if (entry.architecture == architecture && fits(entry.name)) pattern = entry.name.pattern;
  if (pattern.empty()) return std::string(caravan::name(role));
  return (role == Role::kOutput ? "" : std::string(kModelPrefix)) + spelled(pattern, group);
}

}  // namespace caravan
