#include "shards/names.h"

#include <set>
#include <tuple>
#include <vector>

#include "fixtures.h"
#include "shards/groups.h"

namespace caravan {
namespace {

using Kind = GroupId::Kind;
constexpr auto kGguf = Manifest::Origin::kGguf;
constexpr auto kHuggingFace = Manifest::Origin::kHuggingFace;

std::string place(Manifest::Origin origin, std::string_view architecture, std::string_view tensor) {
  const auto found = place_of(origin, architecture, tensor);
  if (!found) return "";
  return to_string(found->group) + " " + std::string(name(found->role)) + (found->fused ? " fused" : "");
}

TEST(Names, PlacesGgufTensors) {
  EXPECT_EQ(place(kGguf, "llama", "token_embd.weight"), "embed embedding");
  EXPECT_EQ(place(kGguf, "llama", "rope_freqs.weight"), "embed rope_factors");
  EXPECT_EQ(place(kGguf, "llama", "blk.12.attn_q.weight"), "layer.12.attn query");
  EXPECT_EQ(place(kGguf, "qwen3", "blk.0.attn_q_norm.weight"), "layer.0.attn query_norm");
  EXPECT_EQ(place(kGguf, "olmo2", "blk.3.post_attention_norm.weight"), "layer.3.attn attention_post_norm");
  EXPECT_EQ(place(kGguf, "olmo2", "blk.3.post_ffw_norm.weight"), "layer.3.ffn feed_forward_post_norm");
  EXPECT_EQ(place(kGguf, "qwen3moe", "blk.1.ffn_gate_exps.weight"), "layer.1.expert.0 gate fused");
  EXPECT_EQ(place(kGguf, "llama", "blk.1.ffn_down.7.weight"), "layer.1.expert.7 down");
  EXPECT_EQ(place(kGguf, "llama", "blk.1.ffn_gate_inp.weight"), "layer.1.ffn router");
  for (const char* foreign :
       {"blk.x.attn_q.weight", "blk.01.attn_q.weight", "blk.1.attn_q.weight2", "blk..attn_q.weight",
        "blk.99999999999.attn_q.weight", "blk.-1.attn_q.weight", "model.norm.weight", ""})
    EXPECT_EQ(place(kGguf, "llama", foreign), "") << foreign;
}

TEST(Names, AMissingTensorIsCalledWhatSuchFilesCallIt) {
  for (const auto& [origin, architecture, tensor] :
       std::vector<std::tuple<Manifest::Origin, const char*, const char*>>{
           {kGguf, "llama", "blk.12.attn_q.weight"},
           {kGguf, "qwen3moe", "blk.1.ffn_gate_exps.weight"},
           {kHuggingFace, "llama", "model.embed_tokens.weight"},
           {kHuggingFace, "llama", "lm_head.weight"},
           {kHuggingFace, "llama", "model.layers.4.post_attention_layernorm.weight"},
           {kHuggingFace, "olmo2", "model.layers.4.post_attention_layernorm.weight"},
           {kHuggingFace, "qwen2", "model.layers.0.self_attn.k_proj.bias"},
           {kHuggingFace, "mixtral", "model.layers.2.block_sparse_moe.experts.5.w3.weight"},
           {kHuggingFace, "mixtral", "model.layers.2.block_sparse_moe.gate.weight"},
           {kHuggingFace, "qwen3_moe", "model.layers.2.mlp.gate.weight"},
           {kHuggingFace, "qwen3_moe", "model.layers.2.mlp.experts.15.up_proj.weight"}}) {
    const auto found = place_of(origin, architecture, tensor);
    ASSERT_TRUE(found) << tensor;
    EXPECT_EQ(usual_name(origin, architecture, found->group, found->role), tensor);
  }
}

TEST(Names, PlacesHuggingFaceTensors) {
  EXPECT_EQ(place(kHuggingFace, "llama", "model.embed_tokens.weight"), "embed embedding");
  EXPECT_EQ(place(kHuggingFace, "llama", "embed_tokens.weight"), "embed embedding");
  EXPECT_EQ(place(kHuggingFace, "llama", "lm_head.weight"), "output output");
  EXPECT_EQ(place(kHuggingFace, "llama", "model.layers.4.input_layernorm.weight"),
            "layer.4.attn attention_norm");
  EXPECT_EQ(place(kHuggingFace, "llama", "model.layers.4.post_attention_layernorm.weight"),
            "layer.4.ffn feed_forward_norm");
  EXPECT_EQ(place(kHuggingFace, "olmo2", "model.layers.4.post_attention_layernorm.weight"),
            "layer.4.attn attention_post_norm");
  EXPECT_EQ(place(kHuggingFace, "olmo2", "model.layers.4.post_feedforward_layernorm.weight"),
            "layer.4.ffn feed_forward_post_norm");
  EXPECT_EQ(place(kHuggingFace, "mixtral", "model.layers.2.block_sparse_moe.experts.5.w1.weight"),
            "layer.2.expert.5 gate");
  EXPECT_EQ(place(kHuggingFace, "mixtral", "model.layers.2.block_sparse_moe.experts.5.w2.weight"),
            "layer.2.expert.5 down");
  EXPECT_EQ(place(kHuggingFace, "mixtral", "model.layers.2.block_sparse_moe.experts.5.w3.weight"),
            "layer.2.expert.5 up");
  EXPECT_EQ(place(kHuggingFace, "mixtral", "model.layers.2.block_sparse_moe.gate.weight"),
            "layer.2.ffn router");
  EXPECT_EQ(place(kHuggingFace, "qwen3_moe", "model.layers.2.mlp.experts.15.up_proj.weight"),
            "layer.2.expert.15 up");
  EXPECT_EQ(place(kHuggingFace, "qwen2", "model.layers.0.self_attn.k_proj.bias"), "layer.0.attn key_bias");
  EXPECT_EQ(place(kHuggingFace, "llama", "model.layers.0.self_attn.rotary_emb.inv_freq"), "");
}

// Every place of a group leads to a name that leads back to it.
TEST(Names, GgufNamesLeadBack) {
  std::set<std::string> names;
  const auto check = [&](GroupId id, Role role) {
    const std::string tensor = gguf_name(id, role);
    const auto found = place_of(kGguf, "any", tensor);
    ASSERT_TRUE(found) << tensor;
    EXPECT_EQ(found->group, id) << tensor;
    EXPECT_EQ(found->role, role) << tensor;
    EXPECT_EQ(found->fused, id.kind == Kind::kExpert) << tensor;
    EXPECT_TRUE(names.insert(tensor).second) << tensor;
  };
  for (const Role role : {Role::kEmbedding, Role::kRopeFactors}) check({Kind::kEmbed}, role);
  for (const Role role : {Role::kOutput, Role::kOutputNorm}) check({Kind::kOutput}, role);
  for (int role = static_cast<int>(Role::kAttentionNorm);
       role <= static_cast<int>(Role::kAttentionOutputBias); ++role)
    check({Kind::kAttention, 7}, static_cast<Role>(role));
  for (int role = static_cast<int>(Role::kFeedForwardNorm); role <= static_cast<int>(Role::kDownBias); ++role)
    check({Kind::kFeedForward, 7}, static_cast<Role>(role));
  for (const Role role : {Role::kGate, Role::kUp, Role::kDown}) check({Kind::kExpert, 7}, role);
}

FileTensor tensor(std::string name, std::vector<uint64_t> dimensions, uint64_t offset = 0) {
  uint64_t bytes = 4;
  for (const uint64_t size : dimensions) bytes *= size;
  return {std::move(name), TensorType::kF32, "F32", std::move(dimensions), {0, offset, bytes}};
}

Manifest gguf_manifest() {
  Manifest manifest;
  manifest.path = "x.gguf";
  manifest.architecture = "llama";
  return manifest;
}

TEST(Groups, SplitsFusedExperts) {
  Manifest manifest = gguf_manifest();
  assign_groups(manifest,
                {tensor("blk.0.ffn_gate_exps.weight", {8, 12, 3}, 1000),
                 tensor("blk.0.ffn_down_exps.weight", {12, 8, 3})},
                false);
  ASSERT_EQ(manifest.groups.size(), 3u);
  for (uint32_t expert = 0; expert < 3; ++expert) {
    const WeightGroup* group = manifest.find({Kind::kExpert, 0, expert});
    ASSERT_TRUE(group);
    const Tensor* gate = group->find(Role::kGate);
    EXPECT_EQ(gate->rows, 12u);
    EXPECT_EQ(gate->columns, 8u);
    EXPECT_EQ(gate->extent.offset, 1000 + expert * 8 * 12 * 4);
    EXPECT_EQ(gate->extent.length, 8u * 12u * 4u);
    EXPECT_EQ(group->bytes().count, 2u * 8u * 12u * 4u);
  }
}

TEST(Groups, RefusesHolesAndOddExperts) {
  const auto expect = [](std::vector<std::string> words, const std::vector<FileTensor>& tensors) {
    words.push_back("x.gguf");
    expect_error(ErrorCode::kMalformed, words, [&] {
      Manifest manifest = gguf_manifest();
      assign_groups(manifest, tensors, false);
    });
  };
  expect({"layer 0"}, {tensor("blk.1.attn_q.weight", {8, 8})});
  expect({"layer 1"}, {tensor("blk.0.attn_q.weight", {8, 8}), tensor("blk.2.attn_q.weight", {8, 8})});
  expect({"expert 0"}, {tensor("blk.0.ffn_up.1.weight", {8, 8})});
  expect({"expert 1"}, {tensor("blk.0.ffn_up.0.weight", {8, 8}), tensor("blk.0.ffn_up.2.weight", {8, 8})});
  expect({"expert 1"}, {tensor("blk.0.ffn_up.0.weight", {8, 8}), tensor("blk.0.ffn_up.1.weight", {8, 16})});
  expect({"expert 1"}, {tensor("blk.0.ffn_up.0.weight", {8, 8}), tensor("blk.0.ffn_down.0.weight", {8, 8}),
                        tensor("blk.0.ffn_up.1.weight", {8, 8})});
  expect({"dimensions"}, {tensor("blk.0.ffn_up_exps.weight", {8, 8})});
  expect({"dimensions"}, {tensor("blk.0.attn_q.weight", {8, 8, 2})});
  expect({"already"},
         {tensor("blk.0.ffn_up_exps.weight", {8, 8, 2}), tensor("blk.0.ffn_up.1.weight", {8, 8})});
  expect({"2^32"}, {tensor("blk.0.attn_q.weight", {1ull << 32, 1})});
  Manifest manifest = gguf_manifest();
  expect_error(ErrorCode::kLimit, {"layers"}, [&] {
    assign_groups(manifest, {tensor("blk.100000.attn_q.weight", {8, 8})}, false);
  });
  expect_error(ErrorCode::kLimit, {"experts"}, [&] {
    assign_groups(manifest, {tensor("blk.0.ffn_up_exps.weight", {1, 1, 1u << 20})}, false);
  });
}

}  // namespace
}  // namespace caravan
