#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace caravan {

// Tensor formats as GGUF numbers them (ggml.h, enum ggml_type). Block layouts: compute/blocks.h.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

struct FormatTraits {
  TensorType type;
  std::string_view name;    // "Q4_K"
  uint32_t block_elements;  // 1, 32 or 256
  uint32_t block_bytes;
};

// Nothing for a number that no format here has.
std::optional<TensorType> tensor_type_from_ggml(uint32_t number);
// The printed name of any ggml type number, known here or not ("IQ2_XS"), for error messages.
std::string_view ggml_type_name(uint32_t number);
// Case does not matter: "q4_0". Nothing when unknown.
std::optional<TensorType> tensor_type_from_name(std::string_view name);
const FormatTraits& traits(TensorType type);
inline std::string_view name(TensorType type) {
  return traits(type).name;
}

// Bytes of a row of `columns` elements; `columns` must be a multiple of the block.
uint64_t row_bytes(TensorType type, uint64_t columns);

// Dequantizes whole blocks: out.size() is a multiple of the block, blocks.size() == row_bytes(type,
// out.size()).
void dequantize(TensorType type, std::span<const std::byte> blocks, std::span<float> out);
// The reverse, for the types the program writes: F32, F16, BF16, Q8_0, Q4_0 (and what tests need). Throws
// kUnsupported for the others.
void quantize(TensorType type, std::span<const float> values, std::span<std::byte> blocks);

// IEEE half and bfloat16, round to nearest even.
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);
inline float bfloat16_to_float(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}
inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40u;  // a NaN stays one
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

}  // namespace caravan
