#pragma once

#include <cstdint>

namespace caravan::cpu {

struct Kernels;

// A tile of one segment: 16 blocks of 32 x 16 bytes, with scales, minima and half scales of 16 outputs; then
// room for a copy of 16 rows of a segment as stored (544 bytes at most).
inline constexpr uint64_t kStagedRowBytes = 576;
inline constexpr uint64_t kTileScratchBytes = 16 * (512 + 64 * 4) + 16 * kStagedRowBytes;

// What the processor and the operating system offer.
bool has_avx2();    // with FMA and F16C
bool has_avx512();  // F, BW, DQ, VL and VNNI

const Kernels& scalar_kernels();
// Null when the build is for another processor family.
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

}  // namespace caravan::cpu
