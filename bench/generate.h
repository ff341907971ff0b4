#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compute/format.h"

namespace caravan {

// The shape of a model whose weights are noise: what speed depends on, and nothing else.
struct ModelShape {
  std::string_view name;
  std::string_view architecture;  // llama or qwen3moe
  uint32_t layers = 0;
  uint32_t width = 0;
  uint32_t feed_forward = 0;  // of one expert, where there are experts
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_width = 0;
  uint32_t vocabulary = 0;
  uint32_t experts = 0;
  uint32_t experts_per_token = 0;
  uint32_t context = 0;
  double rope_base = 10000;
};

// Unknown, start and end, and the bytes.
inline constexpr uint32_t kLeastGeneratedVocabulary = 3 + 256;

// "tiny", "deep" (many small layers), "wide" (few large ones, with large KV), "0.2b", "1.1b" (TinyLlama),
// "8b" (Llama 3), "30b-a3b" (Qwen 3 MoE).
std::optional<ModelShape> model_shape(std::string_view name);
std::vector<std::string_view> model_shape_names();
// Bytes of all weights.
uint64_t generated_bytes(const ModelShape& shape, TensorType type);

// Writes a GGUF file that loads and runs: matrices of `type` with independent uniform values of variance
// 1 / fan in, norms of 1, a vocabulary of bytes and numbered words. The same file for the same seed.
// `advance` gets bytes as they are written. Throws kUnsupported when a row is no multiple of the block, kIo.
void generate_model(const ModelShape& shape, TensorType type, uint64_t seed, const std::string& path,
                    const std::function<void(uint64_t bytes)>& advance);

}  // namespace caravan
