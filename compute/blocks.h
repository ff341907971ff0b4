#pragma once

#include <cstddef>
#include <cstdint>

// The block layouts of GGUF files, as they lie in memory: little-endian, no padding, no alignment (read them
// by memcpy). Halves are kept as their bits. x is the value, q the stored integer.
namespace caravan {

inline constexpr uint32_t kBlock = 32;        // elements of a small block
inline constexpr uint32_t kSuperBlock = 256;  // elements of a K block

// x = d (q - 8); element i in the low, i + 16 in the high nibble of quants[i].
struct BlockQ4_0 {
  uint16_t d;
  uint8_t quants[16];
};

// x = d q + m
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t quants[16];
};

// x = d (q - 16); bit i of `high` (a little-endian u32) is the fifth bit of element i.
struct BlockQ5_0 {
  uint16_t d;
  uint8_t high[4];
  uint8_t quants[16];
};

// x = d q + m
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t high[4];
  uint8_t quants[16];
};

// x = d q
struct BlockQ8_0 {
  uint16_t d;
  int8_t quants[32];
};

// Eight runs of 32: x = d s_j q - m n_j, with 6-bit s_j and n_j packed in `scales` (unpack_scales). Of each
// 64 elements the first 32 are low nibbles, the next 32 the high ones.
struct BlockQ4_K {
  uint16_t d;
  uint16_t m;
  uint8_t scales[12];
  uint8_t quants[128];
};

// As Q4_K; bit j of high[i] is the fifth bit of element i of run j.
struct BlockQ5_K {
  uint16_t d;
  uint16_t m;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t quants[128];
};

// Sixteen runs of 16: x = d s_j (q - 32), q of 6 bits. Of each 128 elements, four runs of 32 share 64 bytes
// of `low` and 32 bytes of `high`: run 0 low nibbles of bytes 0-31, run 1 of 32-63, runs 2 and 3 the high
// nibbles; run r's upper bits are bits 2r and 2r + 1 of `high`.
struct BlockQ6_K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210);

// The eight scales and minima of a Q4_K or Q5_K block, 6 bits each. The low six bits of bytes 0-3 and 4-7 are
// those of runs 0-3; runs 4-7 have their low four bits in bytes 8-11 (scale low, minimum high nibble) and
// their upper two bits on top of bytes 0-3 and 4-7.
inline void unpack_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t minima[8]) {
  for (int j = 0; j < 4; ++j) {
    scales[j] = packed[j] & 63;
    minima[j] = packed[j + 4] & 63;
    scales[j + 4] = static_cast<uint8_t>((packed[j + 8] & 15) | (packed[j] >> 6 << 4));
    minima[j + 4] = static_cast<uint8_t>((packed[j + 8] >> 4) | (packed[j + 4] >> 6 << 4));
  }
}

inline void pack_scales(const uint8_t scales[8], const uint8_t minima[8], uint8_t packed[12]) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(scales[j] | (scales[j + 4] >> 4 << 6));
    packed[j + 4] = static_cast<uint8_t>(minima[j] | (minima[j + 4] >> 4 << 6));
    packed[j + 8] = static_cast<uint8_t>((scales[j + 4] & 15) | ((minima[j + 4] & 15) << 4));
  }
}

}  // namespace caravan
