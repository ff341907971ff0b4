#include <cstring>

#include "base/check.h"
#include "compute/blocks.h"
#include "compute/format.h"

namespace caravan {

namespace {

void expand(const BlockQ4_0& block, float* out) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block.quants[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block.quants[i] >> 4) - 8);
  }
}

void expand(const BlockQ4_1& block, float* out) {
  const float d = half_to_float(block.d), m = half_to_float(block.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block.quants[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block.quants[i] >> 4) + m;
  }
}

// The 5-bit integer of element i.
template <class Block>
int five_bits(const Block& block, int i) {
  const int nibble = i < 16 ? block.quants[i] & 15 : block.quants[i - 16] >> 4;
  return nibble | (block.high[i / 8] >> (i % 8) & 1) << 4;
}

void expand(const BlockQ5_0& block, float* out) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(five_bits(block, i) - 16);
}

void expand(const BlockQ5_1& block, float* out) {
  const float d = half_to_float(block.d), m = half_to_float(block.m);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(five_bits(block, i)) + m;
}

void expand(const BlockQ8_0& block, float* out) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(block.quants[i]);
}

void expand(const BlockQ4_K& block, float* out) {
  const float d = half_to_float(block.d), m = half_to_float(block.m);
  uint8_t scales[8], minima[8];
  unpack_scales(block.scales, scales, minima);
  for (int run = 0; run < 8; ++run) {
    const float scale = d * scales[run], minimum = m * minima[run];
    const uint8_t* quants = block.quants + run / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = run % 2 ? quants[i] >> 4 : quants[i] & 15;
      out[run * 32 + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void expand(const BlockQ5_K& block, float* out) {
  const float d = half_to_float(block.d), m = half_to_float(block.m);
  uint8_t scales[8], minima[8];
  unpack_scales(block.scales, scales, minima);
  for (int run = 0; run < 8; ++run) {
    const float scale = d * scales[run], minimum = m * minima[run];
    const uint8_t* quants = block.quants + run / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = (run % 2 ? quants[i] >> 4 : quants[i] & 15) | (block.high[i] >> run & 1) << 4;
      out[run * 32 + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void expand(const BlockQ6_K& block, float* out) {
  const float d = half_to_float(block.d);
  for (int run = 0; run < 8; ++run) {
    const int half = run / 4, part = run % 4;
    const uint8_t* low = block.low + half * 64 + part % 2 * 32;
    const uint8_t* high = block.high + half * 32;
    for (int i = 0; i < 32; ++i) {
      const int nibble = part < 2 ? low[i] & 15 : low[i] >> 4;
      const int q = (nibble | (high[i] >> (2 * part) & 3) << 4) - 32;
      const float scale = d * static_cast<float>(block.scales[run * 2 + i / 16]);
      out[run * 32 + i] = scale * static_cast<float>(q);
    }
  }
}

template <class Block>
void expand_all(std::span<const std::byte> blocks, std::span<float> out) {
  const size_t elements = out.size() / (blocks.size() / sizeof(Block));
  for (size_t i = 0; i < blocks.size() / sizeof(Block); ++i) {
    Block block;
    std::memcpy(&block, blocks.data() + i * sizeof(Block), sizeof(Block));
    expand(block, out.data() + i * elements);
  }
}

template <class Convert>
void widen(std::span<const std::byte> halves, std::span<float> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, halves.data() + 2 * i, 2);
    out[i] = convert(bits);
  }
}

}  // namespace

void dequantize(TensorType type, std::span<const std::byte> blocks, std::span<float> out) {
  CHECK(blocks.size() == row_bytes(type, out.size()));
  if (out.empty()) return;
  switch (type) {
    case TensorType::kF32:
      std::memcpy(out.data(), blocks.data(), blocks.size());
      return;
    case TensorType::kF16:
      return widen(blocks, out, half_to_float);
    case TensorType::kBF16:
      return widen(blocks, out, bfloat16_to_float);
    case TensorType::kQ4_0:
      return expand_all<BlockQ4_0>(blocks, out);
    case TensorType::kQ4_1:
      return expand_all<BlockQ4_1>(blocks, out);
    case TensorType::kQ5_0:
      return expand_all<BlockQ5_0>(blocks, out);
    case TensorType::kQ5_1:
      return expand_all<BlockQ5_1>(blocks, out);
    case TensorType::kQ8_0:
      return expand_all<BlockQ8_0>(blocks, out);
    case TensorType::kQ4_K:
      return expand_all<BlockQ4_K>(blocks, out);
    case TensorType::kQ5_K:
      return expand_all<BlockQ5_K>(blocks, out);
    case TensorType::kQ6_K:
      return expand_all<BlockQ6_K>(blocks, out);
  }
}

}  // namespace caravan
