#include "shards/manifest.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "base/error.h"
#include "fixtures.h"
#include "store_models.h"
#include "tests/support/temporary_folder.h"

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

// A byte of any tensor at its beginning, in its middle or at its end is another model; so are those of
// experts.
TEST(Manifest, FingerprintsSampleEveryTensor) {
  for (const bool experts : {false, true}) {
    test::TemporaryFolder folder;
    write_model({.experts = experts, .layers = 2, .vocabulary = 40, .width = 32}, folder.path());
    const Manifest manifest = read_manifest(folder.path());
    const Hash256 before = manifest.fingerprint();
    const std::string file = folder.path() + "/model.safetensors";
    for (const WeightGroup& group : manifest.groups)
      for (const Tensor& tensor : group.tensors)
        for (const uint64_t offset : {uint64_t{0}, tensor.extent.length / 2, tensor.extent.length - 1}) {
          std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
          const auto flip = [&] {
            bytes.seekg(static_cast<std::streamoff>(tensor.extent.offset + offset));
            const int was = bytes.get();
            bytes.seekp(static_cast<std::streamoff>(tensor.extent.offset + offset));
            bytes.put(static_cast<char>(was ^ 1)).flush();
          };
          flip();
          EXPECT_NE(manifest.fingerprint(), before)
              << to_string(group.id) << " " << tensor.name << " " << offset;
          flip();
        }
    EXPECT_EQ(manifest.fingerprint(), before);
  }
}

// Counts what is read of a model that is far too large to be there.
class CountingSource final : public Source {
 public:
  std::string describe() const override { return "nothing"; }
  uint32_t file_count() const override { return 1; }
  uint64_t file_bytes(uint32_t) const override { return UINT64_MAX; }
  void read(uint32_t, uint64_t offset, std::span<std::byte> out) const override {
    ++reads;
    EXPECT_LE(out.size(), 256u);
    std::memcpy(out.data(), &offset, std::min(out.size(), sizeof offset));
  }
  std::span<const std::byte> mapped(Extent) const override { return {}; }
  mutable size_t reads = 0;
};

TEST(Manifest, AFingerprintReadsLittleOfAModelOfManyTensors) {
  Manifest manifest;
  const auto source = std::make_shared<CountingSource>();
  manifest.source = source;
  for (uint32_t layer = 0; layer < 200; ++layer) {
    for (uint32_t i = 0; i < 20; ++i) manifest.groups.push_back({{Kind::kAttention, layer}, {}});
    for (uint32_t expert = 0; expert < 512; ++expert)
      manifest.groups.push_back({{Kind::kExpert, layer, expert}, {}});
  }
  uint64_t offset = 0;
  for (WeightGroup& group : manifest.groups) {
    for (const Role role : {Role::kGate, Role::kUp, Role::kDown})
      group.tensors.push_back({"t", role, TensorType::kF32, 1000, 1000, {0, offset += 4'000'000, 4'000'000}});
  }
  manifest.fingerprint();
  EXPECT_GT(source->reads, 2000u);
  EXPECT_LE(source->reads, 4096u);
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
