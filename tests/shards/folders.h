#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "fixtures.h"

namespace caravan {

// A folder that is gone with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_(testing::TempDir() + "caravan-shards-" + std::to_string(::getpid())) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  void write(const std::string& name, std::string_view text) const { write_bytes(file(name), text); }

 private:
  std::string path_;
};

// A safetensors file of F32 tensors, element i of each being its number in the list plus i / 64.
struct PlainTensor {
  std::string name;
  std::vector<uint64_t> shape;
};

inline std::string safetensors_text(const std::string& header, std::string_view data) {
  const uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), 8);
  return text.append(header).append(data);
}

inline std::string safetensors_of(const std::vector<PlainTensor>& tensors) {
  std::string header = "{", data;
  for (size_t t = 0; t < tensors.size(); ++t) {
    uint64_t count = 1;
    std::string shape;
    for (const uint64_t size : tensors[t].shape) {
      count *= size;
      shape += (shape.empty() ? "" : ",") + std::to_string(size);
    }
    const size_t begin = data.size();
    for (uint64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(t) + static_cast<float>(i) / 64;
      data.append(reinterpret_cast<const char*>(&value), 4);
    }
    header += (t ? "," : "") + ("\"" + tensors[t].name + "\":{\"dtype\":\"F32\",\"shape\":[" + shape) +
              "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  return safetensors_text(header + "}", data);
}

// The tensors of a Llama of the given layers: width 8, feed-forward 12, two heads, 16 tokens.
inline std::vector<PlainTensor> llama_tensors(uint32_t layers) {
  std::vector<PlainTensor> tensors = {{"model.embed_tokens.weight", {16, 8}}, {"model.norm.weight", {8}}};
  for (uint32_t i = 0; i < layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    for (const char* name : {"q", "k", "v", "o"})
      tensors.push_back({layer + "self_attn." + name + "_proj.weight", {8, 8}});
    tensors.push_back({layer + "input_layernorm.weight", {8}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {8}});
    tensors.push_back({layer + "mlp.gate_proj.weight", {12, 8}});
    tensors.push_back({layer + "mlp.up_proj.weight", {12, 8}});
    tensors.push_back({layer + "mlp.down_proj.weight", {8, 12}});
  }
  return tensors;
}

inline const char* llama_config() {
  return R"({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 12,
             "num_attention_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "vocab_size": 16,
             "rope_theta": 10000.0, "rope_scaling": null, "tie_word_embeddings": true, "ids": [1, 2]})";
}

}  // namespace caravan
