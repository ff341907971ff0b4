// Kernels for AVX-512 F, BW, DQ, VL and VNNI. Everything but the table is anonymous, and only light headers
// are included: no inline function of another part may be compiled for this instruction set.
#include <immintrin.h>

#include <cstdint>

#include "base/limits.h"
#include "compute/cpu/exp_constants.h"
#include "compute/cpu/isa.h"
#include "compute/cpu/kernels.h"

namespace caravan::cpu {
namespace {

#include "compute/cpu/vector_avx512.inc"

// The address may lie behind the end: it is only a hint.
inline void prefetch(const void* from, uint64_t distance) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(from) + distance), _MM_HINT_T0);
}

// The instruction multiplies unsigned by signed bytes: Q8_0 is moved up by 128.
inline U stored_bytes(U bytes) {
  return differ(bytes, set1_dword(0x80808080));
}

constexpr bool kSignedBytes = false;
constexpr uint32_t kRowsTogether = 8;

#include "compute/cpu/row_kernels.inc"
// After the rows' kernels, which they use.
#include "compute/cpu/float_matmul.inc"
#include "compute/cpu/mix_kernel.inc"

#include "compute/cpu/tile.inc"

inline __m512i broadcast(const int8_t* q) {
  int32_t dword;
  __builtin_memcpy(&dword, q, 4);
  return _mm512_set1_epi32(dword);
}

// total[r] += the segment's sums of rows r of R. Rows run side by side, since one chain of products is slow.
template <Sum kSum, uint32_t R>
void add_segment(const Tile& tile, uint32_t blocks, const RowBlocks* rows, float* total) {
  F sum[R];
  for (uint32_t r = 0; r < R; ++r) sum[r] = set1(0.0f);
  for (uint32_t b = 0; b < blocks; ++b) {
    __m512i low[R], high[R];
    for (uint32_t r = 0; r < R; ++r) {
      const bool starts = kSum == Sum::kStart || kSum == Sum::kHalves;
      low[r] = starts ? _mm512_set1_epi32(rows[r].start[2 * b]) : _mm512_setzero_si512();
      high[r] = starts ? _mm512_set1_epi32(rows[r].start[2 * b + 1]) : _mm512_setzero_si512();
    }
    for (uint32_t c = 0; c < 8; ++c) {
      const __m512i weight = _mm512_load_si512(tile.q[b][c]);
      for (uint32_t r = 0; r < R; ++r) {
        __m512i& to = c < 4 ? low[r] : high[r];
        to = _mm512_dpbusd_epi32(to, weight, broadcast(rows[r].q + b * kActivationBlock + 4 * c));
      }
    }
    const F scale = load(tile.scale[b]);
    for (uint32_t r = 0; r < R; ++r) {
      if constexpr (kSum == Sum::kHalves) {
        low[r] = _mm512_mullo_epi32(low[r], _mm512_load_si512(tile.half_scale[b][0]));
        high[r] = _mm512_mullo_epi32(high[r], _mm512_load_si512(tile.half_scale[b][1]));
      }
      const F both_halves = fma(to_floats(high[r]), set1(rows[r].scale[2 * b + 1]),
                                mul(to_floats(low[r]), set1(rows[r].scale[2 * b])));
      sum[r] = fma(both_halves, scale, sum[r]);
      if constexpr (kSum == Sum::kMinimum) {
        sum[r] = fma(load(tile.minimum[b]), set1(rows[r].scaled_sum[b]), sum[r]);
      }
    }
  }
  for (uint32_t r = 0; r < R; ++r) store(total + 16 * r, add(load(total + 16 * r), sum[r]));
}

constexpr Kernels kKernels{"avx512", quantize,    matmul, rms_norm, gate,       softmax,
                           rope,     store_state, mix,    divide,   add_scaled, widen};

}  // namespace

const Kernels* avx512_kernels() {
  return &kKernels;
}

}  // namespace caravan::cpu
