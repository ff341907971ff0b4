#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/error.h"
#include "compute/blocks.h"
#include "compute/format.h"

// Quantizers search their scales: of a row of candidate step sizes, each is fitted to its integers by least
// squares and the one that leaves the smallest squared error wins. Q8_0 needs no search. All arithmetic is
// plain f32 in a fixed order, so that every CPU writes the same file.
namespace caravan {

namespace {

// To the nearest integer, ties to even, for |x| < 2^22: the sum leaves the integer in the mantissa.
int nearest(float x) {
  return static_cast<int>((x + 0x1.8p23f) - 0x1.8p23f);
}

// The nearest integer in [low, high]; the clamp comes first, so that no cast meets a value it cannot hold.
int nearest_within(float x, int low, int high) {
  return nearest(std::clamp(x, static_cast<float>(low), static_cast<float>(high)));
}

// To the nearest integer, ties away from zero.
int nearest_away(float x) {
  const int whole = static_cast<int>(x);
  const float rest = x - static_cast<float>(whole);
  return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

uint16_t checked_half(float value) {
  const uint16_t half = float_to_half(value);
  if ((half & 0x7c00u) == 0x7c00u)
    fail(ErrorCode::kUnsupported, "a block scale of {} does not fit in 16 bits", value);
  return half;
}

float inverse(float value) {
  const float result = value != 0 ? 1.0f / value : 0.0f;
  return std::isfinite(result) ? result : 0.0f;
}

// The value of largest magnitude, with its sign.
float extreme(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i)
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  return largest;
}

// The squared error that a stored scale leaves, in units of `largest`, so that no square under- or overflows.
float symmetric_error(const float* x, int count, int bound, float stored, float largest) {
  const float factor = inverse(stored);
  if (!std::isfinite(stored)) return std::numeric_limits<float>::infinity();
  float error = 0;
  for (int i = 0; i < count; ++i) {
    const float q = static_cast<float>(nearest_within(factor * x[i], -bound, bound - 1));
    const float difference = (stored * q - x[i]) / largest;
    error += difference * difference;
  }
  return error;
}

// The scale of x ~ scale * q, q in [-bound, bound - 1], that leaves the smallest squared error.
float fit_symmetric(const float* x, int count, int bound, float (*as_stored)(float)) {
  const float largest = extreme(x, count);
  if (largest == 0) return 0;
  // The extreme value takes -bound, the one integer without a positive twin; candidates stretch or shrink
  // the steps around that by up to an eighth.
  const float plain = largest / -static_cast<float>(bound);
  float best = plain, best_gain = -1;
  for (int step = -8; step <= 8; ++step) {
    const float steps =
        -(static_cast<float>(bound) + static_cast<float>(bound) * static_cast<float>(step) / 64);
    const float factor = steps / largest;
    if (!std::isfinite(factor)) return 0;
    float product = 0, square = 0;
    for (int i = 0; i < count; ++i) {
      const float q = static_cast<float>(nearest_within(factor * x[i], -bound, bound - 1));
      product += q * (x[i] / largest);
      square += q * q;
    }
    // The error left after least squares is sum(x^2) - product^2 / square.
    if (square > 0 && product * product > best_gain * square) {
      best_gain = product * product / square;
      best = largest * (product / square);
    }
  }
  // What is best before rounding may be worse after it than the plain choice, which many a block fits
  // exactly.
  const float plain_error = symmetric_error(x, count, bound, as_stored(plain), largest);
  return plain_error <= symmetric_error(x, count, bound, as_stored(best), largest) ? plain : best;
}

struct Affine {
  float scale = 0;
  float minimum = 0;  // x ~ scale * q + minimum
};

// Sums of a fit of x ~ scale * q + minimum.
struct Moments {
  float n = 0, q = 0, qq = 0, x = 0, qx = 0, xx = 0;
  float error(const Affine& fit) const {
    const float s = fit.scale, m = fit.minimum;
    return xx + s * s * qq + m * m * n + 2 * s * m * q - 2 * s * qx - 2 * m * x;
  }
};

Affine solve(const Moments& sums, bool minimum_not_positive) {
  const float determinant = sums.n * sums.qq - sums.q * sums.q;
  Affine fit;
  if (determinant > 0) {
    fit.scale = (sums.n * sums.qx - sums.q * sums.x) / determinant;
    fit.minimum = (sums.qq * sums.x - sums.q * sums.qx) / determinant;
  }
  if (minimum_not_positive && fit.minimum > 0) {
    fit.minimum = 0;
    fit.scale = sums.qq > 0 ? sums.qx / sums.qq : 0;
  }
  return fit;
}

// x ~ scale * q + minimum, q in [0, levels]. K blocks store -minimum unsigned: `minimum_not_positive`.
Affine fit_affine(const float* x, int count, int levels, bool minimum_not_positive) {
  float low = x[0], high = x[0];
  for (int i = 1; i < count; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]);
  if (minimum_not_positive) low = std::min(low, 0.0f), high = std::max(high, low);
  const float range = high - low;
  // A range that is no f32 number has ends that no block can hold: the caller's half refuses them.
  if (!(range > 0) || !std::isfinite(range) || !std::isfinite(static_cast<float>(levels) / range))
    return {0, low};
  Affine best{range / static_cast<float>(levels), low};
  float best_error = std::numeric_limits<float>::max();
  for (int step = -6; step <= 10; ++step) {
    // In units of the range, so that no square under- or overflows.
    const float factor = static_cast<float>(levels) * (1 + static_cast<float>(step) / 60);
    Affine fit{1 / factor, 0};
    for (int round = 0; round < 2; ++round) {
      const float slope = inverse(fit.scale);
      Moments sums;
      sums.n = static_cast<float>(count);
      for (int i = 0; i < count; ++i) {
        const float value = (x[i] - low) / range;
        const float q = static_cast<float>(nearest_within((value - fit.minimum) * slope, 0, levels));
        sums.q += q, sums.qq += q * q, sums.x += value, sums.qx += q * value, sums.xx += value * value;
      }
      fit = solve(sums, minimum_not_positive && low == 0);
      if (!(fit.scale > 0)) break;
      const float error = sums.error(fit);
      if (error < best_error && !(minimum_not_positive && low + fit.minimum * range > 0)) {
        best_error = error;
        best = {fit.scale * range, low + fit.minimum * range};
      }
    }
  }
  return best;
}

void pack_nibbles(const uint8_t* q, uint8_t* packed) {
  for (int i = 0; i < 16; ++i) packed[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
}

void pack_fifth_bits(const uint8_t* q, uint8_t* high) {
  std::memset(high, 0, 4);
  for (int i = 0; i < 32; ++i) high[i / 8] = static_cast<uint8_t>(high[i / 8] | (q[i] >> 4 & 1) << (i % 8));
}

// q = x / scale + bound for the scale as it is stored; returns that scale.
uint16_t symmetric_block(const float* x, int bound, uint8_t* q) {
  const uint16_t stored = checked_half(
      fit_symmetric(x, 32, bound, [](float scale) { return half_to_float(float_to_half(scale)); }));
  const float factor = inverse(half_to_float(stored));
  for (int i = 0; i < 32; ++i)
    q[i] = static_cast<uint8_t>(nearest_within(factor * x[i], -bound, bound - 1) + bound);
  return stored;
}

void compress(const float* x, BlockQ4_0& block) {
  uint8_t q[32];
  block.d = symmetric_block(x, 8, q);
  pack_nibbles(q, block.quants);
}

void compress(const float* x, BlockQ5_0& block) {
  uint8_t q[32];
  block.d = symmetric_block(x, 16, q);
  pack_nibbles(q, block.quants);
  pack_fifth_bits(q, block.high);
}

// Of 32 values, with scale and minimum as they are stored; in units of `range`.
float affine_error(const float* x, int levels, const Affine& fit, float range) {
  const float scale = half_to_float(float_to_half(fit.scale)), factor = inverse(scale);
  const float minimum = half_to_float(float_to_half(fit.minimum));
  if (!std::isfinite(scale) || !std::isfinite(minimum)) return std::numeric_limits<float>::infinity();
  float error = 0;
  for (int i = 0; i < 32; ++i) {
    const float level = static_cast<float>(nearest_within((x[i] - minimum) * factor, 0, levels));
    const float difference = (scale * level + minimum - x[i]) / range;
    error += difference * difference;
  }
  return error;
}

template <class Block>
void affine_block(const float* x, int levels, Block& block, uint8_t* q) {
  Affine fit = fit_affine(x, 32, levels, false);
  // What is best before rounding may be worse after it than the plain choice.
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float range = *high - *low;
  const Affine plain{range / static_cast<float>(levels), *low};
  if (range > 0 && std::isfinite(range) &&
      affine_error(x, levels, plain, range) <= affine_error(x, levels, fit, range))
    fit = plain;
  block.d = checked_half(fit.scale);
  block.m = checked_half(fit.minimum);
  const float factor = inverse(half_to_float(block.d)), minimum = half_to_float(block.m);
  for (int i = 0; i < 32; ++i)
    q[i] = static_cast<uint8_t>(nearest_within((x[i] - minimum) * factor, 0, levels));
  pack_nibbles(q, block.quants);
}

void compress(const float* x, BlockQ4_1& block) {
  uint8_t q[32];
  affine_block(x, 15, block, q);
}

void compress(const float* x, BlockQ5_1& block) {
  uint8_t q[32];
  affine_block(x, 31, block, q);
  pack_fifth_bits(q, block.high);
}

void compress(const float* x, BlockQ8_0& block) {
  const float d = std::fabs(extreme(x, 32)) / 127.0f;
  const float factor = inverse(d);
  block.d = checked_half(d);
  for (int i = 0; i < 32; ++i) block.quants[i] = static_cast<int8_t>(nearest_away(x[i] * factor));
}

// The integers of a run for given scale and minimum, and the squared error they leave.
float quantize_run(const float* x, float scale, float minimum, int levels, uint8_t* q) {
  const float factor = inverse(scale);
  float error = 0;
  for (int i = 0; i < 32; ++i) {
    const int value = nearest_within((x[i] + minimum) * factor, 0, levels);
    q[i] = static_cast<uint8_t>(value);
    const float difference = scale * static_cast<float>(value) - minimum - x[i];
    error += difference * difference;
  }
  return error;
}

// Scales, minima and integers of a Q4_K or Q5_K block: each run is fitted alone, the fits are rounded to six
// bits, and each run then takes the best of the neighbouring pairs of rounded values.
template <class Block>
void affine_super_block(const float* x, int levels, Block& block, uint8_t* q) {
  Affine fits[8];
  float largest_scale = 0, largest_minimum = 0;
  for (int run = 0; run < 8; ++run) {
    fits[run] = fit_affine(x + 32 * run, 32, levels, true);
    largest_scale = std::max(largest_scale, fits[run].scale);
    largest_minimum = std::max(largest_minimum, -fits[run].minimum);
  }
  block.d = checked_half(largest_scale / 63);
  block.m = checked_half(largest_minimum / 63);
  const float d = half_to_float(block.d), m = half_to_float(block.m);
  uint8_t scales[8], minima[8];
  for (int run = 0; run < 8; ++run) {
    const int scale = nearest(std::min(fits[run].scale * inverse(d), 64.0f));
    const int minimum = nearest(std::min(-fits[run].minimum * inverse(m), 64.0f));
    float best = std::numeric_limits<float>::infinity();
    uint8_t candidate[32];
    for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, 63); ++s)
      for (int n = std::max(minimum - 1, 0); n <= std::min(minimum + 1, 63); ++n) {
        const float error = quantize_run(x + 32 * run, d * static_cast<float>(s), m * static_cast<float>(n),
                                         levels, candidate);
        if (error >= best) continue;
        best = error;
        scales[run] = static_cast<uint8_t>(s);
        minima[run] = static_cast<uint8_t>(n);
        std::memcpy(q + 32 * run, candidate, 32);
      }
    if (std::isinf(best)) fail(ErrorCode::kUnsupported, "values of {} are too large", extreme(x, 256));
  }
  pack_scales(scales, minima, block.scales);
  for (int run = 0; run < 8; run += 2)
    for (int i = 0; i < 32; ++i)
      block.quants[run * 16 + i] =
          static_cast<uint8_t>((q[32 * run + i] & 15) | (q[32 * run + 32 + i] & 15) << 4);
}

void compress(const float* x, BlockQ4_K& block) {
  uint8_t q[256];
  affine_super_block(x, 15, block, q);
}

void compress(const float* x, BlockQ5_K& block) {
  uint8_t q[256];
  affine_super_block(x, 31, block, q);
  std::memset(block.high, 0, sizeof block.high);
  for (int i = 0; i < 256; ++i)
    block.high[i % 32] = static_cast<uint8_t>(block.high[i % 32] | (q[i] >> 4) << (i / 32));
}

void compress(const float* x, BlockQ6_K& block) {
  float scales[16];
  for (int run = 0; run < 16; ++run)
    scales[run] = fit_symmetric(x + 16 * run, 16, 32, [](float scale) { return scale; });
  // The largest scale takes -128, the extreme of a signed byte.
  block.d = checked_half(extreme(scales, 16) / -128);
  const float d = half_to_float(block.d);
  uint8_t q[256];
  for (int run = 0; run < 16; ++run) {
    block.scales[run] = static_cast<int8_t>(nearest_within(scales[run] * inverse(d), -128, 127));
    const float factor = inverse(d * static_cast<float>(block.scales[run]));
    for (int i = 16 * run; i < 16 * run + 16; ++i)
      q[i] = static_cast<uint8_t>(nearest_within(factor * x[i], -32, 31) + 32);
  }
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      const uint8_t* run = q + 128 * half + i;
      block.low[64 * half + i] = static_cast<uint8_t>((run[0] & 15) | (run[64] & 15) << 4);
      block.low[64 * half + 32 + i] = static_cast<uint8_t>((run[32] & 15) | (run[96] & 15) << 4);
      block.high[32 * half + i] =
          static_cast<uint8_t>(run[0] >> 4 | run[32] >> 4 << 2 | run[64] >> 4 << 4 | run[96] >> 4 << 6);
    }
}

template <class Block>
void compress_all(std::span<const float> values, std::span<std::byte> blocks) {
  const size_t count = blocks.size() / sizeof(Block);
  const size_t elements = values.size() / count;
  for (size_t i = 0; i < count; ++i) {
    Block block;
    compress(values.data() + i * elements, block);
    std::memcpy(blocks.data() + i * sizeof(Block), &block, sizeof(Block));
  }
}

template <class Convert>
void narrow(std::span<const float> values, std::span<std::byte> halves, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = convert(values[i]);
    std::memcpy(halves.data() + 2 * i, &bits, 2);
  }
}

// Integers of a value that is infinite or no number have no meaning, and one such value would spoil a block.
void require_finite(TensorType type, std::span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      fail(ErrorCode::kUnsupported, "value {} is {}: not finite, {} cannot hold it", i, values[i],
           traits(type).name);
}

}  // namespace

void quantize(TensorType type, std::span<const float> values, std::span<std::byte> blocks) {
  CHECK(blocks.size() == row_bytes(type, values.size()));
  if (values.empty()) return;
  if (traits(type).block_elements > 1) require_finite(type, values);
  switch (type) {
    case TensorType::kF32:
      std::memcpy(blocks.data(), values.data(), blocks.size());
      return;
    case TensorType::kF16:
      return narrow(values, blocks, float_to_half);
    case TensorType::kBF16:
      return narrow(values, blocks, float_to_bfloat16);
    case TensorType::kQ4_0:
      return compress_all<BlockQ4_0>(values, blocks);
    case TensorType::kQ4_1:
      return compress_all<BlockQ4_1>(values, blocks);
    case TensorType::kQ5_0:
      return compress_all<BlockQ5_0>(values, blocks);
    case TensorType::kQ5_1:
      return compress_all<BlockQ5_1>(values, blocks);
    case TensorType::kQ8_0:
      return compress_all<BlockQ8_0>(values, blocks);
    case TensorType::kQ4_K:
      return compress_all<BlockQ4_K>(values, blocks);
    case TensorType::kQ5_K:
      return compress_all<BlockQ5_K>(values, blocks);
    case TensorType::kQ6_K:
      return compress_all<BlockQ6_K>(values, blocks);
  }
}

}  // namespace caravan
