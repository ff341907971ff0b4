#include "compute/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "compute/format.h"

namespace caravan {
namespace {

constexpr CodecId kAllCodecs[] = {CodecId::kF32, CodecId::kBf16, CodecId::kInt8};
constexpr uint32_t kWidths[] = {1, 2, 63, 64, 65, 100, 256, 257, 1000, 4096};

std::vector<std::byte> encode(CodecId codec, const std::vector<float>& values, uint32_t width) {
  const auto rows = static_cast<uint32_t>(values.size() / width);
  std::vector<std::byte> bytes(rows * encoded_row_bytes(codec, width));
  encode_rows(codec, values.data(), rows, width, bytes.data());
  return bytes;
}

std::vector<float> decode(CodecId codec, const std::vector<std::byte>& bytes, uint32_t rows, uint32_t width) {
  std::vector<float> values(size_t{rows} * width);
  decode_rows(codec, bytes, rows, width, values.data());
  return values;
}

std::vector<float> round_trip(CodecId codec, const std::vector<float>& values, uint32_t width) {
  return decode(codec, encode(codec, values, width), static_cast<uint32_t>(values.size() / width), width);
}

float gaussian(Random& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.unit()));
  return static_cast<float>(radius * std::cos(6.283185307179586 * random.unit()));
}

// Rows of the residual stream's kind: a few channels 10^5 times the median.
std::vector<float> massive_rows(uint64_t seed, uint32_t rows, uint32_t width) {
  SeededRandom random(seed);
  std::vector<float> values(size_t{rows} * width);
  for (float& value : values) value = gaussian(random);
  for (uint32_t row = 0; row < rows; ++row)
    for (uint32_t i = 0; i < int8_outliers(width); ++i)
      values[size_t{row} * width + random.below(width)] *= 1e5f;
  return values;
}

// The bound of compute/codec.h, worked out again from the values: each channel that is not among the largest
// errs by half a step of its group, the largest by one part in 256.
void expect_within_bound(const float* row, const float* decoded, uint32_t width) {
  std::vector<uint32_t> order(width);
  for (uint32_t i = 0; i < width; ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [row](uint32_t a, uint32_t b) { return std::fabs(row[a]) > std::fabs(row[b]); });
  std::vector<bool> aside(width, false);
  for (uint32_t i = 0; i < int8_outliers(width); ++i) aside[order[i]] = true;
  for (uint32_t begin = 0; begin < width; begin += 64) {
    const uint32_t end = std::min(begin + 64, width);
    double largest = 0;
    for (uint32_t i = begin; i < end; ++i)
      if (!aside[i]) largest = std::max(largest, std::fabs(static_cast<double>(row[i])));
    const double step = std::max(largest / 127 * (1 + 0x1p-7), 0x1p-126);
    for (uint32_t i = begin; i < end; ++i) {
      const double error = std::fabs(static_cast<double>(decoded[i]) - row[i]);
      ASSERT_LE(error, aside[i] ? std::max(std::fabs(static_cast<double>(row[i])) * 0x1p-8, 0x1p-134)
                                : step * (0.5 + 0x1p-15))
          << "channel " << i << " of " << width << ": " << row[i] << " became " << decoded[i];
    }
  }
}

TEST(Codec, F32IsExact) {
  for (const uint32_t width : kWidths) {
    const auto values = massive_rows(width, 3, width);
    EXPECT_EQ(round_trip(CodecId::kF32, values, width), values);
  }
}

TEST(Codec, Bf16RoundsEachValueAsTheFormatDoes) {
  for (const uint32_t width : kWidths) {
    auto values = massive_rows(width, 3, width);
    values[0] = std::numeric_limits<float>::infinity();
    values.back() = std::numeric_limits<float>::max();
    const auto decoded = round_trip(CodecId::kBf16, values, width);
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(decoded[i], bfloat16_to_float(float_to_bfloat16(values[i])));
  }
  EXPECT_TRUE(std::isnan(round_trip(CodecId::kBf16, {std::nanf("")}, 1)[0]));
}

TEST(Codec, Int8KeepsItsBoundUnderMassiveChannels) {
  for (const uint32_t width : kWidths)
    for (uint64_t seed = 1; seed <= 10; ++seed) {
      const auto values = massive_rows(seed * 1000 + width, 4, width);
      const auto decoded = round_trip(CodecId::kInt8, values, width);
      for (uint32_t row = 0; row < 4; ++row)
        expect_within_bound(values.data() + size_t{row} * width, decoded.data() + size_t{row} * width, width);
    }
}

TEST(Codec, Int8KeepsItsBoundAtAnyScale) {
  for (int exponent = -149; exponent <= 126; exponent += 5) {
    SeededRandom random(static_cast<uint64_t>(exponent + 200));
    std::vector<float> values(4 * 200);
    for (float& value : values) value = std::ldexp(static_cast<float>(random.unit()) * 2 - 1, exponent);
    const auto decoded = round_trip(CodecId::kInt8, values, 200);
    for (uint32_t row = 0; row < 4; ++row)
      expect_within_bound(values.data() + row * 200, decoded.data() + row * 200, 200);
  }
}

// Against the error that a single scale a group would leave in a row with massive channels.
TEST(Codec, Int8LeavesOrdinaryChannelsTheirPrecision) {
  const uint32_t width = 4096;
  const auto values = massive_rows(7, 8, width);
  const auto decoded = round_trip(CodecId::kInt8, values, width);
  double error = 0, norm = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::fabs(values[i]) > 10) continue;
    error += std::pow(static_cast<double>(decoded[i]) - values[i], 2);
    norm += std::pow(static_cast<double>(values[i]), 2);
  }
  EXPECT_LT(std::sqrt(error / norm), 0.01);
}

TEST(Codec, Int8ShowsInfinitiesAndNans) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values(128, 1.0f);
  values[5] = -infinity;
  auto decoded = round_trip(CodecId::kInt8, values, 128);
  EXPECT_EQ(decoded[5], -infinity);
  EXPECT_NEAR(decoded[6], 1.0f, 0.01f);
  values[7] = std::nanf("");
  decoded = round_trip(CodecId::kInt8, values, 128);  // one channel can be set aside, two are not finite
  for (uint32_t i = 0; i < 64; ++i) EXPECT_FALSE(std::isfinite(decoded[i]));
  for (uint32_t i = 64; i < 128; ++i) EXPECT_NEAR(decoded[i], 1.0f, 0.01f);
}

TEST(Codec, ARowDoesNotDependOnItsNeighbours) {
  for (const CodecId codec : kAllCodecs)
    for (const uint32_t width : {65u, 256u, 1000u}) {
      const auto values = massive_rows(width, 5, width);
      const auto together = encode(codec, values, width);
      const size_t bytes = encoded_row_bytes(codec, width);
      for (uint32_t row = 0; row < 5; ++row) {
        const auto first = values.begin() + static_cast<std::ptrdiff_t>(size_t{row} * width);
        const auto alone = encode(codec, {first, first + width}, width);
        EXPECT_EQ(std::memcmp(alone.data(), together.data() + row * bytes, bytes), 0);
      }
    }
}

TEST(Codec, Bf16IsIdempotent) {
  const auto values = massive_rows(3, 2, 300);
  const auto once = round_trip(CodecId::kBf16, values, 300);
  EXPECT_EQ(round_trip(CodecId::kBf16, once, 300), once);
}

TEST(Codec, RefusesHostileBytes) {
  for (const CodecId codec : kAllCodecs) {
    std::vector<float> out(2 * 100);
    const size_t bytes = 2 * encoded_row_bytes(codec, 100);
    for (const size_t wrong : {size_t{0}, bytes - 1, bytes + 1})
      EXPECT_THROW(decode_rows(codec, std::vector<std::byte>(wrong), 2, 100, out.data()), Error);
  }
  const uint32_t width = 600;
  const auto good = encode(CodecId::kInt8, massive_rows(1, 1, width), width);
  const size_t numbers = good.size() - 4 * int8_outliers(width);
  std::vector<float> out(width);
  for (uint32_t i = 0; i < int8_outliers(width); ++i)
    for (const uint16_t number : {uint16_t{600}, uint16_t{601}, uint16_t{65535}}) {
      auto bad = good;
      std::memcpy(bad.data() + numbers + 2 * i, &number, 2);
      EXPECT_THROW(decode_rows(CodecId::kInt8, bad, 1, width, out.data()), Error);
    }
  auto doubled = good;
  std::memcpy(doubled.data() + numbers + 2, doubled.data() + numbers, 2);
  EXPECT_THROW(decode_rows(CodecId::kInt8, doubled, 1, width, out.data()), Error);
  SeededRandom random(9);
  for (int turn = 0; turn < 2000; ++turn) {
    std::vector<std::byte> noise(good.size());
    random.fill({reinterpret_cast<uint8_t*>(noise.data()), noise.size()});
    try {
      decode_rows(CodecId::kInt8, noise, 1, width, out.data());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    }
  }
}

TEST(Codec, KnowsNamesNumbersAndSizes) {
  for (const CodecId codec : kAllCodecs) {
    EXPECT_EQ(codec_from_name(name(codec)), codec);
    EXPECT_EQ(codec_from_number(static_cast<uint8_t>(codec)), codec);
  }
  EXPECT_FALSE(codec_from_name("f16"));
  EXPECT_FALSE(codec_from_number(3));
  EXPECT_EQ(encoded_row_bytes(CodecId::kF32, 4096), 16384u);
  EXPECT_EQ(encoded_row_bytes(CodecId::kBf16, 4096), 8192u);
  EXPECT_EQ(encoded_row_bytes(CodecId::kInt8, 4096), 4096u + 2 * 64 + 4 * 16);
  EXPECT_EQ(encoded_row_bytes(CodecId::kInt8, 65), 65u + 2 * 2 + 4);
}

}  // namespace
}  // namespace caravan
