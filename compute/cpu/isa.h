#pragma once

#include <cstdint>

namespace caravan::cpu {

struct Kernels;

// A tile of one segment, unpacked: 16 blocks of 32 x 16 bytes, with scales, minima and half scales of 16
// outputs.
inline constexpr uint64_t kTileScratchBytes = 16 * (512 + 64 * 4);

// What the processor and the operating system offer.
bool has_avx2();    // with FMA and F16C
bool has_avx512();  // F, BW, DQ, VL and VNNI

const Kernels& scalar_kernels();
// Null when the build is for another processor family.
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

}  // namespace caravan::cpu
