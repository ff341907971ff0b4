#include "model/families.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/error.h"
#include "shards/manifest.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string config_of(const std::string& name) {
  std::ifstream in(fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases" / name / "config.json");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The named reference case with one more line at the head of its config, in place of any that had the key.
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
  config.insert(config.find('{') + 1, "\n\"" + key + "\": " + value + ",");
  std::ofstream(folder.path() + "/config.json") << config;
  for (const auto& entry :
       fs::directory_iterator(fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases" / name))
    if (entry.path().filename().string().starts_with("model"))
      fs::create_symlink(entry.path(), fs::path(folder.path()) / entry.path().filename());
  return read_spec(read_manifest(folder.path()));
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

TEST(Families, AnOutputMatrixThatShouldBeThereIsMissed) {
  EXPECT_NE(refusal("llama_tied", "tie_word_embeddings", "false").find("lm_head"), std::string::npos);
}

}  // namespace
}  // namespace caravan
