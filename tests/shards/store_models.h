#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/random.h"
#include "folders.h"
#include "shards/manifest.h"

namespace caravan {

// Random small models as Hugging Face folders of noise: dense or of experts, with an output matrix of their
// own or tied, some groups longer than a chunk.
struct RandomModel {
  bool experts = false;
  bool tied = false;
  uint32_t layers = 1;
  uint32_t vocabulary = 16;
  uint32_t width = 8;
  uint64_t weights = 1;  // seed; the same one gives the same groups where shapes are the same
};

inline RandomModel random_model(Random& random) {
  RandomModel model;
  model.experts = random.below(2) == 1;
  model.tied = random.below(2) == 1;
  model.layers = static_cast<uint32_t>(1 + random.below(3));
  model.width = static_cast<uint32_t>(8 << random.below(4));
  model.vocabulary = static_cast<uint32_t>(16 + random.below(random.below(3) == 0 ? 9000 : 300));
  model.weights = random.next();
  return model;
}

inline std::vector<PlainTensor> tensors_of(const RandomModel& model) {
  const uint64_t width = model.width, inner = width * 3 / 2;
  std::vector<PlainTensor> tensors = {{"model.embed_tokens.weight", {model.vocabulary, width}},
                                      {"model.norm.weight", {width}}};
  if (!model.tied) tensors.push_back({"lm_head.weight", {model.vocabulary, width}});
  for (uint32_t i = 0; i < model.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    for (const char* name : {"q", "k", "v", "o"})
      tensors.push_back({layer + "self_attn." + name + "_proj.weight", {width, width}});
    tensors.push_back({layer + "input_layernorm.weight", {width}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {width}});
    if (!model.experts) {
      tensors.push_back({layer + "mlp.gate_proj.weight", {inner, width}});
      tensors.push_back({layer + "mlp.up_proj.weight", {inner, width}});
      tensors.push_back({layer + "mlp.down_proj.weight", {width, inner}});
      continue;
    }
    tensors.push_back({layer + "block_sparse_moe.gate.weight", {4, width}});
    for (int expert = 0; expert < 4; ++expert) {
      const std::string name = layer + "block_sparse_moe.experts." + std::to_string(expert) + ".";
      tensors.push_back({name + "w1.weight", {inner, width}});
      tensors.push_back({name + "w3.weight", {inner, width}});
      tensors.push_back({name + "w2.weight", {width, inner}});
    }
  }
  return tensors;
}

// Writes the folder. Values of a tensor depend on the seed and its name alone.
inline void write_model(const RandomModel& model, const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::string header = "{", data;
  for (const PlainTensor& tensor : tensors_of(model)) {
    uint64_t count = 1;
    std::string shape;
    for (const uint64_t size : tensor.shape) {
      count *= size;
      shape += (shape.empty() ? "" : ",") + std::to_string(size);
    }
    const size_t begin = data.size();
    uint64_t state = model.weights;
    for (const char letter : tensor.name) state = mix64(state ^ static_cast<uint8_t>(letter));
    SeededRandom values(state);
    for (uint64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(values.unit());
      data.append(reinterpret_cast<const char*>(&value), 4);
    }
    header += (header.size() > 1 ? "," : "") + ("\"" + tensor.name + "\":{\"dtype\":\"F32\",\"shape\":[") +
              shape + "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) +
              "]}";
  }
  write_bytes(folder + "/model.safetensors", safetensors_text(header + "}", data));
  write_bytes(folder + "/config.json",
              std::string(R"({"model_type": ")") + (model.experts ? "mixtral" : "llama") +
                  R"(", "num_hidden_layers": )" + std::to_string(model.layers) +
                  R"(, "tie_word_embeddings": )" + (model.tied ? "true" : "false") +
                  R"(, "rope_theta": 10000.5, "ids": [1, 2], "names": ["a", "b"], "flags": [true, false]})");
  write_bytes(folder + "/tokenizer.json", "{\"model\": {}}");
  write_bytes(folder + "/chat_template.jinja", "{{ messages }}");
}

}  // namespace caravan
