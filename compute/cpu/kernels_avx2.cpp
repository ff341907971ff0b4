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

// Pairs of products in 16 bits: at most 2 * 63 * 127 or, by moving the weight's sign to x, 2 * 128 * 127, so
// that nothing saturates.
template <Sum kSum>
inline __m256i add_products(__m256i sum, __m256i weight, __m256i x) {
  if constexpr (kSum == Sum::kSigned) {
    x = _mm256_sign_epi8(x, weight);
    weight = _mm256_abs_epi8(weight);
  }
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weight, x), _mm256_set1_epi16(1)));
}

inline __m256i load8(const void* from) {
  return _mm256_load_si256(static_cast<const __m256i*>(from));
}

template <Sum kSum, uint32_t R>
void add_segment(const Tile& tile, uint32_t blocks, const RowBlocks* rows, float* total) {
  for (int side = 0; side < 2; ++side) {  // 8 of the 16 outputs
    __m256 sum[R];
    for (uint32_t r = 0; r < R; ++r) sum[r] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < blocks; ++b) {
      const uint8_t* weight = tile.q[b][0] + 32 * side;
      const __m256 scale = _mm256_load_ps(tile.scale[b] + 8 * side);
      for (uint32_t r = 0; r < R; ++r) {
        const int8_t* q = rows[r].q + b * kActivationBlock;
        __m256i products;
        if constexpr (kSum == Sum::kHalves) {
          __m256i low = _mm256_set1_epi32(rows[r].start[2 * b]),
                  high = _mm256_set1_epi32(rows[r].start[2 * b + 1]);
          for (int c = 0; c < 4; ++c) {
            low = add_products<kSum>(low, load8(weight + 64 * c), broadcast(q + 4 * c));
            high = add_products<kSum>(high, load8(weight + 64 * (c + 4)), broadcast(q + 16 + 4 * c));
          }
          products = _mm256_add_epi32(_mm256_mullo_epi32(low, load8(tile.half_scale[b][0] + 8 * side)),
                                      _mm256_mullo_epi32(high, load8(tile.half_scale[b][1] + 8 * side)));
        } else {
          products = kSum == Sum::kStart ? _mm256_set1_epi32(rows[r].start[b]) : _mm256_setzero_si256();
          for (int c = 0; c < 8; ++c) {
            products = add_products<kSum>(products, load8(weight + 64 * c), broadcast(q + 4 * c));
          }
        }
        const __m256 both_scales = _mm256_mul_ps(scale, _mm256_set1_ps(rows[r].scale[b]));
        sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), both_scales, sum[r]);
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
