// The scalar twin: plain C++, the law that the vector kernels are compared with.
#include <cstring>

#include "base/limits.h"
#include "compute/cpu/exp_constants.h"
#include "compute/cpu/kernels.h"

namespace caravan::cpu {
namespace {

#include "compute/cpu/vector_plain.inc"

void prefetch(const void*, uint64_t) {}

#include "compute/cpu/row_kernels.inc"
// After the rows' kernels, which they use.
#include "compute/cpu/float_matmul.inc"
#include "compute/cpu/mix_kernel.inc"

float half_at(const uint8_t* at) {
  Half half;
  std::memcpy(&half, at, 2);
  return to_f32(half);
}

// One block of 32 weights of any quantized format: weight i = scale * half_scale[i / 16] * q[i] + minimum.
struct Block32 {
  int32_t q[32];
  int32_t half_scale[2] = {1, 1};
  float scale = 0;
  float minimum = 0;
  bool has_minimum = false;
};

void nibbles(const uint8_t* from, int32_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = from[i] & 15;
    q[i + 16] = from[i] >> 4;
  }
}

void fifth_bits(const uint8_t* from, int32_t* q) {
  uint32_t bits;
  std::memcpy(&bits, from, 4);
  for (int i = 0; i < 32; ++i) q[i] += static_cast<int32_t>(bits >> i & 1) << 4;
}

Block32 legacy_block(TensorType type, const uint8_t* from) {
  Block32 block;
  block.scale = half_at(from);
  int32_t offset = 0;
  switch (type) {
    case TensorType::kQ4_0:
      nibbles(from + 2, block.q);
      offset = 8;
      break;
    case TensorType::kQ4_1:
      nibbles(from + 4, block.q);
      block.has_minimum = true;
      break;
    case TensorType::kQ5_0:
      nibbles(from + 6, block.q);
      fifth_bits(from + 2, block.q);
      offset = 16;
      break;
    case TensorType::kQ5_1:
      nibbles(from + 8, block.q);
      fifth_bits(from + 4, block.q);
      block.has_minimum = true;
      break;
    default:  // Q8_0
      for (int i = 0; i < 32; ++i) block.q[i] = static_cast<int8_t>(from[2 + i]);
  }
  for (int32_t& q : block.q) q -= offset;
  if (block.has_minimum) block.minimum = half_at(from + 2);
  return block;
}

// Sub-block `part` of a block of 256 of Q4_K or Q5_K: d, dmin, 12 bytes of 6-bit scales and minima, for Q5_K
// 32 bytes of fifth bits, then nibbles.
Block32 k_block(bool five_bits, const uint8_t* from, uint32_t part) {
  const uint8_t* packed = from + 4;
  uint32_t scale, minimum;
  if (part < 4) {
    scale = packed[part] & 63;
    minimum = packed[part + 4] & 63;
  } else {
    scale = (packed[part + 4] & 15) | (packed[part - 4] >> 6) << 4;
    minimum = (packed[part + 4] >> 4) | (packed[part] >> 6) << 4;
  }
  Block32 block;
  block.scale = half_at(from) * static_cast<float>(scale);
  block.minimum = -(half_at(from + 2) * static_cast<float>(minimum));
  block.has_minimum = true;
  const uint8_t* fifth = from + 16;
  const uint8_t* low = from + (five_bits ? 48 : 16) + part / 2 * 32;
  for (int i = 0; i < 32; ++i) {
    block.q[i] = part % 2 ? low[i] >> 4 : low[i] & 15;
    if (five_bits) block.q[i] += (fifth[i] >> part & 1) << 4;
  }
  return block;
}

// Sub-block `part` of a Q6_K block: 128 bytes of low nibbles, 64 of high pairs, 16 scales, d.
Block32 q6_k_block(const uint8_t* from, uint32_t part) {
  const uint8_t* low = from + part / 4 * 64 + part % 2 * 32;
  const uint8_t* high = from + 128 + part / 4 * 32;
  Block32 block;
  block.scale = half_at(from + 208);
  for (int h = 0; h < 2; ++h) block.half_scale[h] = static_cast<int8_t>(from[192 + part * 2 + h]);
  for (int i = 0; i < 32; ++i) {
    int32_t nibble = part % 4 < 2 ? low[i] & 15 : low[i] >> 4;
    block.q[i] = (nibble | (high[i] >> (part % 4 * 2) & 3) << 4) - 32;
  }
  return block;
}

Block32 block32(TensorType type, const uint8_t* row, uint32_t index) {
  switch (type) {
    case TensorType::kQ4_K:
      return k_block(false, row + index / 8 * 144, index % 8);
    case TensorType::kQ5_K:
      return k_block(true, row + index / 8 * 176, index % 8);
    case TensorType::kQ6_K:
      return q6_k_block(row + index / 8 * 210, index % 8);
    case TensorType::kQ4_0:
      return legacy_block(type, row + index * 18);
    case TensorType::kQ4_1:
      return legacy_block(type, row + index * 20);
    case TensorType::kQ5_0:
      return legacy_block(type, row + index * 22);
    case TensorType::kQ5_1:
      return legacy_block(type, row + index * 24);
    case TensorType::kQ8_0:
      return legacy_block(type, row + index * 34);
    default:
      __builtin_trap();
  }
}

float add_block(const Block32& block, const int8_t* x, const float* scale, float scaled_sum, float sum) {
  float half[2];
  for (int h = 0; h < 2; ++h) {
    int32_t products = 0;
    for (int i = 16 * h; i < 16 * h + 16; ++i) products += block.q[i] * x[i];
    half[h] = static_cast<float>(block.half_scale[h] * products);
  }
  const float both_halves = __builtin_fmaf(half[1], scale[1], half[0] * scale[0]);
  sum = __builtin_fmaf(both_halves, block.scale, sum);
  if (block.has_minimum) sum = __builtin_fmaf(block.minimum, scaled_sum, sum);
  return sum;
}

void matmul(const MatmulJob& job, uint32_t first, uint32_t last, uint8_t* scratch) {
  if (float_matmul_any(job, first, last)) return;
  const uint32_t blocks = job.columns / kActivationBlock,
                 blocks_a_segment = kSegmentColumns / kActivationBlock;
  float* total = reinterpret_cast<float*>(scratch);
  float* sum = total + job.rows;
  for (uint32_t output = first; output < last; ++output) {
    const uint8_t* weights = job.weights + output * job.row_bytes;
    for (uint32_t r = 0; r < job.rows; ++r) total[r] = sum[r] = 0.0f;
    for (uint32_t b = 0; b < blocks; ++b) {
      const Block32 block = block32(job.type, weights, b);
      const bool ends = b + 1 == blocks || (b + 1) % blocks_a_segment == 0;
      for (uint32_t r = 0; r < job.rows; ++r) {
        const uint64_t at = uint64_t{r} * blocks + b;
        sum[r] = add_block(block, job.quantized.q + at * kActivationBlock, job.quantized.scale + 2 * at,
                           job.quantized.scaled_sum[at], sum[r]);
        if (ends) {
          total[r] += sum[r];
          sum[r] = 0.0f;
        }
      }
    }
    for (uint32_t r = 0; r < job.rows; ++r) job.out[r * job.out_stride + output] = total[r];
  }
}

constexpr Kernels kKernels{"scalar", quantize,    matmul, rms_norm, gate,       softmax,
                           rope,     store_state, mix,    divide,   add_scaled, widen};

}  // namespace

const Kernels& scalar_kernels() {
  return kKernels;
}

}  // namespace caravan::cpu
