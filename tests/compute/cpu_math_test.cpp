#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/random.h"
#include "compute/math.h"
#include "compute/rope.h"

namespace caravan {
namespace {

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The distance of neighbouring f32 around `value`.
double last_place(double value) {
  const float rounded = std::fabs(static_cast<float>(value));
  if (rounded < std::numeric_limits<float>::min()) return 0x1p-149;
  return std::ldexp(1.0, std::ilogb(rounded) - 23);
}

TEST(Math, ExpIsWithinTwoUnitsInTheLastPlaceOverItsWholeRange) {
  double worst = 0;
  for (uint64_t i = 0; i < 4'000'000; ++i) {
    // Every 1073rd float: all exponents of both signs.
    const float x = from_bits(static_cast<uint32_t>(i * 1073));
    if (!(x > -110.0f && x < 88.72f)) continue;
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::fabs(exp_f32(x) - exact) / last_place(exact));
  }
  EXPECT_LE(worst, 1.5);
  EXPECT_GE(worst, 0.4) << "the check sees no rounding at all";
}

TEST(Math, ExpAtTheEndsOfItsRange) {
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(exp_f32(-104.0f), 0.0f);
  EXPECT_GT(exp_f32(-103.0f), 0.0f);
  EXPECT_EQ(exp_f32(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_EQ(exp_f32(88.73f), std::numeric_limits<float>::infinity());
  EXPECT_LT(exp_f32(88.72f), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(exp_f32(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Math, DoublesAgreeWithTheCLibrary) {
  SeededRandom random(1);
  for (int i = 0; i < 200'000; ++i) {
    const double angle = (random.unit() - 0.5) * 0x1p25, power = (random.unit() - 0.5) * 1000;
    EXPECT_NEAR(sin_f64(angle), std::sin(angle), 1e-15);
    EXPECT_NEAR(cos_f64(angle), std::cos(angle), 1e-15);
    EXPECT_NEAR(exp_f64(power) / std::exp(power), 1.0, 1e-15);
    const double positive = std::exp(power);
    EXPECT_NEAR(log_f64(positive), std::log(positive), 1e-15 * std::max(1.0, std::fabs(power)));
    if (HasFailure()) return;
  }
  EXPECT_EQ(log_f64(1.0), 0.0);
  EXPECT_EQ(exp_f64(0.0), 1.0);
}

TEST(Rope, PairsAreTheCosinesAndSinesOfTheRoundedAngle) {
  const std::vector<float> frequencies = rope_frequencies(10000.0, 64);
  ASSERT_EQ(frequencies.size(), 32u);
  const std::vector<float> pairs = rope_pairs(frequencies, 1.0f, 5000);
  for (uint32_t position = 0; position < 5000; position += 7) {
    for (uint32_t i = 0; i < 32; ++i) {
      EXPECT_NEAR(frequencies[i], std::pow(10000.0, -2.0 * i / 64), 1e-7 * frequencies[i] * 2);
      const double angle = static_cast<float>(position) * frequencies[i];
      ASSERT_NEAR(pairs[(position * 32 + i) * 2], std::cos(angle), 1e-7);
      ASSERT_NEAR(pairs[(position * 32 + i) * 2 + 1], std::sin(angle), 1e-7);
    }
  }
}

TEST(Rope, LinearStretchesAllFrequencies) {
  RopeScaling scaling{.kind = RopeScalingKind::kLinear, .factor = 4};
  const auto plain = rope_frequencies(500000.0, 128), scaled = rope_frequencies(500000.0, 128, scaling);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(scaled[i], plain[i] / 4);
  EXPECT_EQ(rope_magnitude(scaling), 1.0f);
}

TEST(Rope, Llama3KeepsShortWavesAndStretchesLongOnes) {
  RopeScaling scaling{.kind = RopeScalingKind::kLlama3, .factor = 32, .original_context = 8192};
  const auto plain = rope_frequencies(500000.0, 64), scaled = rope_frequencies(500000.0, 64, scaling);
  int kept = 0, stretched = 0, between = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2 * M_PI / plain[i];
    if (wavelength < 8192.0 / 4) {
      EXPECT_EQ(scaled[i], plain[i]);
      ++kept;
    } else if (wavelength > 8192.0) {
      EXPECT_EQ(scaled[i], plain[i] / 32);
      ++stretched;
    } else {
      const double smooth = (8192 / wavelength - 1) / 3;
      EXPECT_NEAR(scaled[i], (1 - smooth) * plain[i] / 32 + smooth * plain[i], 2e-6 * plain[i]);
      ++between;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(stretched, 0);
  EXPECT_GT(between, 0);
}

TEST(Rope, YarnBlendsAlongARampAndRaisesTheMagnitude) {
  RopeScaling scaling{.kind = RopeScalingKind::kYarn, .factor = 4, .original_context = 32768};
  const auto plain = rope_frequencies(1e6, 128), scaled = rope_frequencies(1e6, 128, scaling);
  const auto dimension = [](double turns) {
    return 128 * std::log(32768 / (turns * 2 * M_PI)) / (2 * std::log(1e6));
  };
  const double low = std::floor(dimension(32)), high = std::ceil(dimension(1));
  for (size_t i = 0; i < plain.size(); ++i) {
    const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - low) / (high - low)));
    EXPECT_NEAR(scaled[i], plain[i] / 4 * ramp + plain[i] * (1 - ramp), 1e-6 * plain[i]);
  }
  EXPECT_EQ(scaled.front(), plain.front());
  EXPECT_NEAR(scaled.back(), plain.back() / 4, 1e-6 * plain.back());
  EXPECT_NEAR(rope_magnitude(scaling), 0.1 * std::log(4.0) + 1, 1e-6);
  scaling.mscale = 0.707f;
  scaling.mscale_all_dim = 1.0f;
  EXPECT_NEAR(rope_magnitude(scaling), (0.0707 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1), 1e-6);
  scaling.attention_factor = 1.5f;
  EXPECT_EQ(rope_magnitude(scaling), 1.5f);
  EXPECT_NEAR(rope_pairs(scaled, 1.5f, 1)[0], 1.5, 0);
  scaling.truncate = false;
  EXPECT_NE(rope_frequencies(1e6, 128, scaling), scaled);
}

TEST(Rope, NumbersNoScalingCanHaveAreRefused) {
  EXPECT_THROW(rope_frequencies(0.0, 64), Error);
  RopeScaling scaling{.kind = RopeScalingKind::kLinear, .factor = 0};
  EXPECT_THROW(rope_frequencies(1e4, 64, scaling), Error);
  scaling = {.kind = RopeScalingKind::kYarn, .factor = 4};
  EXPECT_THROW(rope_frequencies(1e4, 64, scaling), Error);
  std::vector<float> frequencies(4, 1.0f);
  EXPECT_THROW(divide_frequencies(frequencies, std::vector<float>(3, 1.0f)), Error);
  EXPECT_THROW(divide_frequencies(frequencies, std::vector<float>(4, 0.0f)), Error);
  divide_frequencies(frequencies, std::vector<float>{1, 2, 4, 8});
  EXPECT_EQ(frequencies, (std::vector<float>{1, 0.5f, 0.25f, 0.125f}));
}

}  // namespace
}  // namespace caravan
