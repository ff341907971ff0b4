#include "model/families.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/error.h"
#include "model/weights.h"
#include "shards/manifest.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string config_of(const std::string& name) {
  std::ifstream in(fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases" / name / "config.json");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The named reference case with one more line at the head of its config, in place of any that had the key;
// with no value: without the key.
ModelSpec spec_with(const std::string& name, const std::string& key, const std::string& value) {
  const test::TemporaryFolder folder;
  std::string config = config_of(name);
  if (size_t at = config.find("\"" + key + "\":"); at != std::string::npos) {
    const size_t value_at = config.find_first_not_of(' ', config.find(':', at) + 1);
    const char first = config[value_at];
    size_t end = first == '{'   ? config.find('}', value_at) + 1
                 : first == '[' ? config.find(']', value_at) + 1
                                : config.find_first_of(",\n", value_at);
    // The last one has its comma before it.
    if (config[end] == ',')
      ++end;
    else
      at = config.rfind(',', at);
    config.erase(at, end - at);
  }
  if (!value.empty()) config.insert(config.find('{') + 1, "\n\"" + key + "\": " + value + ",");
  std::ofstream(folder.path() + "/config.json") << config;
  for (const auto& entry :
       fs::directory_iterator(fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases" / name))
    if (entry.path().filename().string().starts_with("model"))
      fs::create_symlink(entry.path(), fs::path(folder.path()) / entry.path().filename());
  return read_spec(read_manifest(folder.path()));
}

ModelSpec spec_without(const std::string& name, const std::string& key) {
  return spec_with(name, key, "");
}

std::string refusal(const std::string& name, const std::string& key, const std::string& value) {
  try {
    spec_with(name, key, value);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Families, NumbersThatNobodyCanComputeWithAreRefusedByName) {
  EXPECT_EQ(refusal("granite", "embedding_multiplier", "12.0"), "");
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"rms_norm_eps", "-1"},
                                                        {"rms_norm_eps", "1e39"},
                                                        {"embedding_multiplier", "1e39"},
                                                        {"residual_multiplier", "-1e39"},
                                                        {"attention_multiplier", "1e300"},
                                                        {"logits_scaling", "0"},
                                                        {"logits_scaling", "1e-45"},
                                                        {"vocab_size", "999"}})
    EXPECT_NE(refusal("granite", key, value).find(key), std::string::npos)
        << key << " " << value << ": " << refusal("granite", key, value);
  EXPECT_NE(refusal("llama", "rope_theta", "1e400").size(), 0u);
}

TEST(Families, WhatIsNotKnownOfLayersIsRefusedNotPassedOver) {
  const auto layers = spec_with("qwen3", "hidden_act", "\"silu\"").layers.size();
  std::string list = "[\"chunked_attention\"";
  for (size_t i = 1; i < layers; ++i) list += ", \"full_attention\"";
  EXPECT_NE(refusal("qwen3", "layer_types", list + "]").find("chunked_attention"), std::string::npos);
  EXPECT_NE(refusal("llama", "rope_parameters", R"({"full_attention": {"rope_type": "default"}})")
                .find("rope_parameters.full_attention"),
            std::string::npos);
}

TEST(Families, AMissingTensorOfAFolderIsNamed) {
  const test::TemporaryFolder folder;
  const fs::path from = fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases/llama";
  for (const char* file : {"config.json", "model.safetensors"})
    fs::copy(from / file, fs::path(folder.path()) / file);
  const std::string path = folder.path() + "/model.safetensors", name = "model.layers.1.mlp.up_proj.weight";
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  bytes.replace(bytes.find(name), name.size(), "model.layers.1.mlp.zz_proj.weight");
  std::ofstream(path, std::ios::binary) << bytes;
  const Manifest manifest = read_manifest(folder.path());
  try {
    check_weights(manifest, read_spec(manifest));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find(folder.path()), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("tensor " + name + " is missing"), std::string::npos) << error.message();
  }
}

// What transformers' configuration classes take.
TEST(Families, KeysThatAFolderLeavesOutMeanWhatTheFamilysConfigurationClassTakes) {
  for (const auto& [name, epsilon] : std::vector<std::pair<std::string, float>>{{"llama", 1e-6f},
                                                                                {"mistral", 1e-6f},
                                                                                {"mixtral", 1e-5f},
                                                                                {"qwen2", 1e-6f},
                                                                                {"qwen3", 1e-6f},
                                                                                {"qwen3_moe", 1e-6f},
                                                                                {"granite", 1e-6f},
                                                                                {"smollm3", 1e-6f},
                                                                                {"olmo2", 1e-5f}})
    EXPECT_EQ(spec_without(name, "rms_norm_eps").norm_epsilon, epsilon) << name;
  for (const auto& [name, theta] : std::vector<std::pair<std::string, std::string>>{
           {"qwen2", "10000.0"}, {"mixtral", "1000000.0"}, {"olmo2", "10000.0"}, {"smollm3", "2000000.0"}})
    EXPECT_EQ(spec_without(name, "rope_parameters").rope.inverse_frequencies,
              spec_with(name, "rope_parameters", "{\"rope_theta\": " + theta + "}").rope.inverse_frequencies)
        << name;
  EXPECT_EQ(spec_without("mistral", "num_key_value_heads").layers[0].attention.shape.kv_heads, 8u);
  EXPECT_EQ(spec_without("llama", "num_key_value_heads").layers[0].attention.shape.kv_heads, 4u);
  EXPECT_EQ(spec_without("smollm3", "num_key_value_heads").layers[0].attention.shape.kv_heads, 4u);
  EXPECT_EQ(spec_without("qwen3", "head_dim").layers[0].attention.shape.head_width, 128u);
  EXPECT_EQ(spec_without("llama", "head_dim").layers[0].attention.shape.head_width, 16u);
  EXPECT_EQ(spec_without("mistral", "sliding_window").layers[0].attention.window, 4096u);
  EXPECT_EQ(spec_without("mixtral", "sliding_window").layers[0].attention.window, 0u);
  EXPECT_EQ(spec_without("mixtral", "num_experts_per_tok").layers[0].feed_forward.experts_per_token, 2u);
  EXPECT_EQ(spec_without("qwen2", "max_position_embeddings").context, 32768u);
}

TEST(Families, AKeyThatSaysNullIsNotLeftOut) {
  EXPECT_EQ(spec_with("mistral", "sliding_window", "null").layers[0].attention.window, 0u);
  EXPECT_EQ(spec_with("mixtral", "num_key_value_heads", "null").layers[0].attention.shape.kv_heads, 4u);
  EXPECT_NE(refusal("mixtral", "num_key_value_heads", "8"), "");
}

TEST(Families, AnOutputMatrixThatShouldBeThereIsMissed) {
  EXPECT_NE(refusal("llama_tied", "tie_word_embeddings", "false").find("lm_head"), std::string::npos);
}

}  // namespace
}  // namespace caravan
