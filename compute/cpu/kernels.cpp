#include "compute/cpu/kernels.h"

#include "base/limits.h"
#include "compute/cpu/isa.h"

namespace caravan::cpu {

uint64_t worker_scratch_bytes(uint32_t max_rows, uint32_t max_head_width) {
  const uint64_t rows = max_rows + 16;  // a kernel may round up
  const uint64_t matmul = kTileScratchBytes + rows * kTileOutputs * sizeof(float);
  const uint64_t mix =
      uint64_t{kMaxQueryBatch} * (limits::kMixPiecePositions + max_head_width) * sizeof(float);
  const uint64_t larger = matmul > mix ? matmul : mix;
  return (larger + 63) / 64 * 64;
}

const Kernels* kernels_of(Isa isa) {
  const Kernels* avx512 = has_avx512() ? avx512_kernels() : nullptr;
  const Kernels* avx2 = has_avx2() ? avx2_kernels() : nullptr;
  switch (isa) {
    case Isa::kScalar:
      return &scalar_kernels();
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
    case Isa::kBest:
      break;
  }
  return avx512 ? avx512 : avx2 ? avx2 : &scalar_kernels();
}

}  // namespace caravan::cpu
