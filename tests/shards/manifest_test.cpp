#include "shards/manifest.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "base/error.h"
#include "fixtures.h"

namespace caravan {
namespace {

using Kind = GroupId::Kind;

// Every tensor lies inside its file and has the bytes of its shape.
void expect_sound(const Manifest& manifest) {
  for (size_t i = 0; i < manifest.groups.size(); ++i) {
    const WeightGroup& group = manifest.groups[i];
    if (i > 0) {
      EXPECT_LT(manifest.groups[i - 1].id, group.id);
    }
    EXPECT_EQ(manifest.find(group.id), &group);
    for (const Tensor& tensor : group.tensors) {
      EXPECT_EQ(tensor.extent.length, tensor.rows * row_bytes(tensor.type, tensor.columns)) << tensor.name;
      EXPECT_EQ(manifest.source->mapped(tensor.extent).size(), tensor.extent.length) << tensor.name;
      EXPECT_EQ(group.find(tensor.role), &tensor);
    }
  }
}

TEST(Manifest, ReadsTheDemoModel) {
  const Manifest manifest = read_manifest(demo_gguf());
  EXPECT_EQ(manifest.origin, Manifest::Origin::kGguf);
  EXPECT_EQ(manifest.name, "demo");
  EXPECT_EQ(manifest.architecture, "llama");
  EXPECT_EQ(manifest.layer_count, 9u);
  EXPECT_EQ(manifest.groups.size(), 2u + 2 * 9u);
  EXPECT_TRUE(manifest.ignored.empty());
  expect_sound(manifest);
  EXPECT_EQ(manifest.metadata.integer("llama.block_count"), 9u);
  const auto* tokens = manifest.metadata.texts("tokenizer.ggml.tokens");
  ASSERT_TRUE(tokens);
  EXPECT_EQ(tokens->size(), manifest.metadata.integer("llama.vocab_size"));
  const WeightGroup* attention = manifest.find({Kind::kAttention, 3});
  ASSERT_TRUE(attention);
  EXPECT_TRUE(attention->find(Role::kQuery));
  EXPECT_TRUE(attention->find(Role::kAttentionNorm));
  EXPECT_FALSE(attention->find(Role::kGate));
  EXPECT_EQ(to_string(attention->id), "layer.3.attn");
  EXPECT_EQ(manifest.fingerprint(), read_manifest(demo_gguf()).fingerprint());
}

TEST(Manifest, NamesWhatIsNotThere) {
  try {
    read_manifest("no/such/model.gguf");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(error.message().find("no/such/model.gguf"), std::string::npos);
  }
  EXPECT_THROW(read_manifest(CARAVAN_SOURCE_DIR "/base"), Error);
  EXPECT_THROW(read_manifest(CARAVAN_SOURCE_DIR "/LICENSE"), Error);
}

TEST(Manifest, ReadsEveryReferenceFolder) {
  const std::string folder = shared_folder() + "/data/reference";
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "no reference cases at " << folder << " (set CARAVAN_SHARED)";
  const std::set<std::string> complete = {"llama",     "mistral", "qwen2",   "qwen3", "mixtral",
                                          "qwen3_moe", "granite", "smollm3", "olmo2"};
  std::set<std::string> seen;
  std::set<Hash256> fingerprints;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
    const Manifest manifest = read_manifest(entry.path().string());
    expect_sound(manifest);
    fingerprints.insert(manifest.fingerprint());
    if (!complete.count(manifest.architecture)) continue;
    seen.insert(manifest.architecture);
    EXPECT_TRUE(manifest.ignored.empty()) << manifest.path << ": " << manifest.ignored.front();
    EXPECT_EQ(manifest.layer_count, manifest.metadata.integer("num_hidden_layers")) << manifest.path;
    ASSERT_TRUE(manifest.find({Kind::kOutput})) << manifest.path;
    const WeightGroup* output = manifest.find({Kind::kOutput});
    EXPECT_TRUE(output->find(Role::kOutput)) << manifest.path;
    EXPECT_TRUE(output->find(Role::kOutputNorm)) << manifest.path;
    const bool olmo = manifest.architecture == "olmo2";
    for (uint32_t layer = 0; layer < manifest.layer_count; ++layer) {
      const WeightGroup* attention = manifest.find({Kind::kAttention, layer});
      const WeightGroup* feed_forward = manifest.find({Kind::kFeedForward, layer});
      ASSERT_TRUE(attention && feed_forward) << manifest.path;
      for (const Role role : {Role::kQuery, Role::kKey, Role::kValue, Role::kAttentionOutput})
        EXPECT_TRUE(attention->find(role)) << manifest.path << " " << name(role);
      EXPECT_EQ(attention->find(Role::kAttentionPostNorm) != nullptr, olmo) << manifest.path;
      EXPECT_EQ(attention->find(Role::kAttentionNorm) != nullptr, !olmo) << manifest.path;
      EXPECT_EQ(feed_forward->find(Role::kFeedForwardPostNorm) != nullptr, olmo) << manifest.path;
      EXPECT_EQ(feed_forward->find(Role::kFeedForwardNorm) != nullptr, !olmo) << manifest.path;
      if (feed_forward->find(Role::kRouter)) {
        EXPECT_EQ(feed_forward->find(Role::kRouter)->rows, manifest.metadata.integer("num_local_experts"));
        EXPECT_TRUE(manifest.find({Kind::kExpert, layer, feed_forward->find(Role::kRouter)->rows - 1}));
      } else {
        EXPECT_TRUE(feed_forward->find(Role::kDown)) << manifest.path;
      }
    }
  }
  EXPECT_EQ(seen, complete);
  EXPECT_GE(fingerprints.size(), 31u);
}

TEST(Manifest, ReadsTheSharedGgufFiles) {
  const std::string folder = shared_folder();
  if (!std::filesystem::exists(folder + "/data/gguf"))
    GTEST_SKIP() << "no GGUF files at " << folder << " (set CARAVAN_SHARED)";
  size_t models = 0, vocabularies = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder + "/data")) {
    if (entry.path().extension() != ".gguf") continue;
    const Manifest manifest = read_manifest(entry.path().string());
    expect_sound(manifest);
    EXPECT_TRUE(manifest.ignored.empty()) << manifest.path << ": " << manifest.ignored.front();
    (manifest.groups.empty() ? vocabularies : models) += 1;
    EXPECT_TRUE(manifest.metadata.texts("tokenizer.ggml.tokens")) << manifest.path;
  }
  EXPECT_GE(models, 5u);
  EXPECT_GE(vocabularies, 5u);
}

TEST(Manifest, ReadsTheDemoFolderWithItsTexts) {
  const std::string folder = shared_folder() + "/demo_model";
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "no demo folder at " << folder << " (set CARAVAN_SHARED)";
  const Manifest manifest = read_manifest(folder + "/");
  EXPECT_EQ(manifest.name, "demo_model");
  EXPECT_EQ(manifest.origin, Manifest::Origin::kHuggingFace);
  EXPECT_FALSE(manifest.tokenizer_json.empty());
  EXPECT_FALSE(manifest.tokenizer_config_json.empty());
  EXPECT_FALSE(manifest.generation_config_json.empty());
  EXPECT_FALSE(manifest.chat_template.empty());
  EXPECT_EQ(manifest.layer_count, 9u);
  expect_sound(manifest);
  EXPECT_NE(manifest.fingerprint(), read_manifest(demo_gguf()).fingerprint());
}

}  // namespace
}  // namespace caravan
