// Kernels for AVX2, FMA and F16C. Everything but the table is anonymous, and only light headers are included:
// no inline function of another part may be compiled for this instruction set.
#include <immintrin.h>

#include <cstdint>

#include "base/limits.h"
#include "compute/cpu/exp_constants.h"
#include "compute/cpu/isa.h"
#include "compute/cpu/kernels.h"

namespace caravan::cpu {
namespace {

#include "compute/cpu/vector_avx2.inc"

// The address may lie behind the end: it is only a hint.
inline void prefetch(const void* from, uint64_t distance) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(from) + distance), _MM_HINT_T0);
}

inline const U& stored_bytes(const U& bytes) {
  return bytes;
}

constexpr bool kSignedBytes = true;
constexpr uint32_t kRowsTogether = 4;

#include "compute/cpu/row_kernels.inc"
// After the rows' kernels, which they use.
#include "compute/cpu/float_matmul.inc"
#include "compute/cpu/mix_kernel.inc"

#include "compute/cpu/tile.inc"

inline __m256i broadcast(const int8_t* q) {
  int32_t dword;
  __builtin_memcpy(&dword, q, 4);
  return _mm256_set1_epi32(dword);
}

// Sums of pairs of products in 16 bits, at most 2 * 31 * 127 (2 * 63 * 127 with halves): so many of them may
// be added before they are widened. With signed bytes, 2 * 128 * 127 once the weight's sign is moved to x.
template <Sum kSum>
constexpr uint32_t kNarrow = kSum == Sum::kSigned   ? 1
                             : kSum == Sum::kHalves ? 2
                                                    : 4;

inline __m256i load8(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

template <Sum kSum>
inline __m256i add_products(__m256i sum, const __m256i* weight, const int8_t* q) {
  __m256i narrow;
  if constexpr (kSum == Sum::kSigned) {
    narrow = _mm256_maddubs_epi16(_mm256_abs_epi8(weight[0]), _mm256_sign_epi8(broadcast(q), weight[0]));
  } else {
    narrow = _mm256_maddubs_epi16(weight[0], broadcast(q));
    for (uint32_t i = 1; i < kNarrow<kSum>; ++i) {
      narrow = _mm256_add_epi16(narrow, _mm256_maddubs_epi16(weight[i], broadcast(q + 4 * i)));
    }
  }
  return _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1)));
}

// The exact sums of both halves of one block, of 8 outputs and R rows.
template <Sum kSum, uint32_t R>
inline void block_products(const Tile& tile, uint32_t b, int side, const RowBlocks* rows, __m256i* low,
                           __m256i* high) {
  for (uint32_t r = 0; r < R; ++r) {
    const bool starts = kSum == Sum::kStart || kSum == Sum::kHalves;
    low[r] = starts ? _mm256_set1_epi32(rows[r].start[2 * b]) : _mm256_setzero_si256();
    high[r] = starts ? _mm256_set1_epi32(rows[r].start[2 * b + 1]) : _mm256_setzero_si256();
  }
  for (uint32_t c = 0; c < 8; c += kNarrow<kSum>) {
    __m256i weight[kNarrow<kSum>];
    for (uint32_t i = 0; i < kNarrow<kSum>; ++i) weight[i] = load8(tile.q[b][c + i] + 32 * side);
    for (uint32_t r = 0; r < R; ++r) {
      __m256i& to = c < 4 ? low[r] : high[r];
      to = add_products<kSum>(to, weight, rows[r].q + b * kActivationBlock + 4 * c);
    }
  }
  if constexpr (kSum == Sum::kHalves) {
    for (uint32_t r = 0; r < R; ++r) {
      low[r] = _mm256_mullo_epi32(low[r], load8(tile.half_scale[b][0] + 8 * side));
      high[r] = _mm256_mullo_epi32(high[r], load8(tile.half_scale[b][1] + 8 * side));
    }
  }
}

template <Sum kSum, uint32_t R>
void add_segment(const Tile& tile, uint32_t blocks, const RowBlocks* rows, float* total) {
  for (int side = 0; side < 2; ++side) {  // 8 of the 16 outputs
    __m256 sum[R];
    for (uint32_t r = 0; r < R; ++r) sum[r] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < blocks; ++b) {
      __m256i low[R], high[R];
      block_products<kSum, R>(tile, b, side, rows, low, high);
      const __m256 scale = _mm256_load_ps(tile.scale[b] + 8 * side);
      for (uint32_t r = 0; r < R; ++r) {
        const __m256 both_halves =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(high[r]), _mm256_set1_ps(rows[r].scale[2 * b + 1]),
                            _mm256_mul_ps(_mm256_cvtepi32_ps(low[r]), _mm256_set1_ps(rows[r].scale[2 * b])));
        sum[r] = _mm256_fmadd_ps(both_halves, scale, sum[r]);
        if constexpr (kSum == Sum::kMinimum) {
          sum[r] = _mm256_fmadd_ps(_mm256_load_ps(tile.minimum[b] + 8 * side),
                                   _mm256_set1_ps(rows[r].scaled_sum[b]), sum[r]);
        }
      }
    }
    for (uint32_t r = 0; r < R; ++r) {
      float* to = total + 16 * r + 8 * side;
      _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), sum[r]));
    }
  }
}

constexpr Kernels kKernels{"avx2", quantize,    matmul, rms_norm, gate,       softmax,
                           rope,   store_state, mix,    divide,   add_scaled, widen};

}  // namespace

const Kernels* avx2_kernels() {
  return &kKernels;
}

}  // namespace caravan::cpu
