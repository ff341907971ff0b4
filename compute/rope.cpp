#include "compute/rope.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "compute/math.h"

namespace caravan {
namespace {

constexpr double kPi = 0x1.921fb54442d18p+1;

void check(const RopeScaling& scaling) {
  const bool needs_context =
      scaling.kind == RopeScalingKind::kLlama3 || scaling.kind == RopeScalingKind::kYarn;
  if (scaling.kind != RopeScalingKind::kNone && !(scaling.factor > 0 && std::isfinite(scaling.factor)))
    fail(ErrorCode::kInvalidArgument, "a rope scaling by {}", scaling.factor);
  if (needs_context && !(scaling.original_context > 0 && std::isfinite(scaling.original_context)))
    fail(ErrorCode::kInvalidArgument, "a rope scaling from an original context of {}",
         scaling.original_context);
  if (scaling.kind == RopeScalingKind::kLlama3 &&
      !(scaling.low_frequency_factor > 0 && scaling.high_frequency_factor > scaling.low_frequency_factor))
    fail(ErrorCode::kInvalidArgument, "llama3 rope factors {} and {}", scaling.low_frequency_factor,
         scaling.high_frequency_factor);
  if (scaling.kind == RopeScalingKind::kYarn && !(scaling.beta_fast > 0 && scaling.beta_slow > 0))
    fail(ErrorCode::kInvalidArgument, "yarn betas {} and {}", scaling.beta_fast, scaling.beta_slow);
}

void scale_llama3(std::vector<float>& frequencies, const RopeScaling& scaling) {
  const float longest = scaling.original_context / scaling.low_frequency_factor;
  const float shortest = scaling.original_context / scaling.high_frequency_factor;
  for (float& frequency : frequencies) {
    const float wavelength = static_cast<float>(2 * kPi) / frequency;
    if (wavelength < shortest) continue;
    const float stretched = frequency / scaling.factor;
    if (wavelength > longest) {
      frequency = stretched;
      continue;
    }
    const float smooth = (scaling.original_context / wavelength - scaling.low_frequency_factor) /
                         (scaling.high_frequency_factor - scaling.low_frequency_factor);
    frequency = (1 - smooth) * stretched + smooth * frequency;
  }
}

// The frequency, counted from 0, that turns `turns` times in the original context.
double yarn_dimension(double turns, double theta, uint32_t width, const RopeScaling& scaling) {
  return width * log_f64(scaling.original_context / (turns * 2 * kPi)) / (2 * log_f64(theta));
}

void scale_yarn(std::vector<float>& frequencies, double theta, uint32_t width, const RopeScaling& scaling) {
  double low = yarn_dimension(scaling.beta_fast, theta, width, scaling);
  double high = yarn_dimension(scaling.beta_slow, theta, width, scaling);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(width) - 1);
  if (low == high) high += 0.001;
  const float start = static_cast<float>(low), length = static_cast<float>(high - low);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = std::clamp((static_cast<float>(i) - start) / length, 0.0f, 1.0f);
    const float kept = 1 - ramp;
    const float stretched = 1.0f / (scaling.factor * (1.0f / frequencies[i]));
    frequencies[i] = stretched * (1 - kept) + frequencies[i] * kept;
  }
}

float yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0f : static_cast<float>(0.1 * mscale * log_f64(factor) + 1.0);
}

}  // namespace

std::vector<float> rope_frequencies(double theta, uint32_t width) {
  CHECK(width % 2 == 0u);
  if (!(theta > 0 && std::isfinite(theta))) fail(ErrorCode::kInvalidArgument, "a rope base of {}", theta);
  std::vector<float> frequencies(width / 2);
  for (uint32_t i = 0; i < width / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(width);
    frequencies[i] = 1.0f / static_cast<float>(pow_f64(theta, exponent));
  }
  return frequencies;
}

std::vector<float> rope_frequencies(double theta, uint32_t width, const RopeScaling& scaling) {
  check(scaling);
  std::vector<float> frequencies = rope_frequencies(theta, width);
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
      break;
    case RopeScalingKind::kLinear:
      for (float& frequency : frequencies) frequency /= scaling.factor;
      break;
    case RopeScalingKind::kLlama3:
      scale_llama3(frequencies, scaling);
      break;
    case RopeScalingKind::kYarn:
      if (theta == 1) fail(ErrorCode::kInvalidArgument, "yarn with a rope base of 1");
      scale_yarn(frequencies, theta, width, scaling);
      break;
  }
  return frequencies;
}

void divide_frequencies(std::span<float> frequencies, std::span<const float> divisors) {
  if (frequencies.size() != divisors.size())
    fail(ErrorCode::kInvalidArgument, "{} rope divisors for {} frequencies", divisors.size(),
         frequencies.size());
  for (size_t i = 0; i < frequencies.size(); ++i) {
    if (!(divisors[i] > 0)) fail(ErrorCode::kInvalidArgument, "rope divisor {} is {}", i, divisors[i]);
    frequencies[i] /= divisors[i];
  }
}

float rope_magnitude(const RopeScaling& scaling) {
  if (scaling.kind != RopeScalingKind::kYarn) return 1;
  if (scaling.attention_factor) return *scaling.attention_factor;
  if (scaling.mscale.value_or(0) != 0 && scaling.mscale_all_dim.value_or(0) != 0)
    return yarn_mscale(scaling.factor, *scaling.mscale) /
           yarn_mscale(scaling.factor, *scaling.mscale_all_dim);
  return yarn_mscale(scaling.factor, 1);
}

std::vector<float> rope_pairs(std::span<const float> frequencies, float magnitude, uint32_t positions) {
  std::vector<float> pairs;
  pairs.reserve(uint64_t{positions} * frequencies.size() * 2);
  for (uint32_t position = 0; position < positions; ++position) {
    for (float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      pairs.push_back(static_cast<float>(cos_f64(angle)) * magnitude);
      pairs.push_back(static_cast<float>(sin_f64(angle)) * magnitude);
    }
  }
  return pairs;
}

}  // namespace caravan
