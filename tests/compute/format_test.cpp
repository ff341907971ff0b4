#include "compute/format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "compute/blocks.h"

namespace caravan {
namespace {

constexpr TensorType kAllTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                    TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1,
                                    TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ4_K,
                                    TensorType::kQ5_K, TensorType::kQ6_K};

// Relative RMS errors that a quantizer of this type may have on Gaussian rows with a few outliers: what the
// best publicly known quantizers reach on such data (the fourth column of the format goldens' index), with
// 10 % of room.
const std::map<TensorType, double> kErrorBounds = {
    {TensorType::kQ4_0, 0.104523}, {TensorType::kQ4_1, 0.081371}, {TensorType::kQ5_0, 0.077163},
    {TensorType::kQ5_1, 0.046949}, {TensorType::kQ8_0, 0.012523}, {TensorType::kQ4_K, 0.083791},
    {TensorType::kQ5_K, 0.053020}, {TensorType::kQ6_K, 0.032909}, {TensorType::kF16, 0.000320},
    {TensorType::kBF16, 0.001953}, {TensorType::kF32, 0},
};

std::string golden_folder() {
  const char* shared = std::getenv("CARAVAN_SHARED");
  return std::string(shared ? shared : CARAVAN_SOURCE_DIR "/../shared") + "/data/formats/";
}

std::vector<std::byte> file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

std::vector<float> file_floats(const std::string& path) {
  const auto bytes = file_bytes(path);
  std::vector<float> floats(bytes.size() / 4);
  std::memcpy(floats.data(), bytes.data(), floats.size() * 4);
  return floats;
}

std::vector<float> round_trip(TensorType type, const std::vector<float>& values) {
  std::vector<std::byte> blocks(row_bytes(type, values.size()));
  quantize(type, values, blocks);
  std::vector<float> out(values.size());
  dequantize(type, blocks, out);
  return out;
}

double relative_rms(const std::vector<float>& values, const std::vector<float>& other) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += std::pow(static_cast<double>(values[i]) - other[i], 2);
    norm += std::pow(static_cast<double>(values[i]), 2);
  }
  return std::sqrt(error / norm);
}

std::vector<float> row_of(const std::vector<float>& values, size_t row) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * 512);
  return {begin, begin + 512};
}

// File stem in the golden folder: lower case but for the K.
std::string golden_stem(TensorType type) {
  std::string stem(name(type));
  for (char& c : stem)
    if (c != 'K') c = static_cast<char>(std::tolower(c));
  return stem;
}

float gaussian(Random& random) {
  const double radius = std::sqrt(-2 * std::log(1 - random.unit()));
  return static_cast<float>(radius * std::cos(6.283185307179586 * random.unit()));
}

TEST(Format, DequantizesTheGoldenBlocks) {
  if (!std::filesystem::exists(golden_folder()))
    GTEST_SKIP() << "no golden blocks at " << golden_folder() << " (set CARAVAN_SHARED)";
  for (const TensorType type : kAllTypes) {
    const auto blocks = file_bytes(golden_folder() + golden_stem(type) + ".blocks");
    const auto expected = file_floats(golden_folder() + golden_stem(type) + ".f32");
    ASSERT_EQ(expected.size(), 6u * 512u) << name(type);
    std::vector<float> out(expected.size());
    dequantize(type, blocks, out);
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_NEAR(out[i], expected[i], 1e-6 * std::fabs(expected[i])) << name(type) << " element " << i;
  }
}

TEST(Format, QuantizesTheGoldenRowsAsWellAsTheIndexSays) {
  if (!std::filesystem::exists(golden_folder()))
    GTEST_SKIP() << "no golden rows at " << golden_folder() << " (set CARAVAN_SHARED)";
  const auto source = file_floats(golden_folder() + "source.f32");
  std::ifstream index(golden_folder() + "index.tsv");
  std::string line;
  std::getline(index, line);
  size_t compared = 0;
  while (std::getline(index, line)) {
    std::istringstream fields(line);
    std::string type_name;
    uint32_t number, elements, bytes, bytes_of_row;
    double error;
    fields >> type_name >> number >> elements >> bytes >> bytes_of_row >> error;
    const auto type = tensor_type_from_name(type_name);
    if (!type) continue;
    ++compared;
    EXPECT_EQ(static_cast<uint32_t>(*type), number);
    EXPECT_EQ(traits(*type).block_elements, elements);
    EXPECT_EQ(traits(*type).block_bytes, bytes);
    EXPECT_EQ(row_bytes(*type, 512), bytes_of_row);
    const auto ours = round_trip(*type, source);
    const auto golden = file_floats(golden_folder() + golden_stem(*type) + ".f32");
    EXPECT_LE(relative_rms(source, ours), error * 1.1 + 1e-6) << type_name;
    for (size_t row = 0; row < 6; ++row)
      EXPECT_LE(relative_rms(row_of(source, row), row_of(ours, row)),
                1.1 * relative_rms(row_of(source, row), row_of(golden, row)))
          << type_name << " row " << row;
  }
  EXPECT_EQ(compared, std::size(kAllTypes));
}

// The same without the golden files: rows of different scale, one with outliers, one half empty.
TEST(Format, QuantizesSeededRowsWithinTheKnownErrors) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SeededRandom random(seed);
    std::vector<float> rows;
    for (int row = 0; row < 6; ++row)
      for (int i = 0; i < 512; ++i) {
        float value = gaussian(random) * std::exp2(static_cast<float>(row - 3));
        if (row == 4 && random.below(128) == 0) value *= 4;
        if (row == 5 && i < 256) value = 0;
        rows.push_back(value);
      }
    for (const auto& [type, bound] : kErrorBounds)
      EXPECT_LE(relative_rms(rows, round_trip(type, rows)), bound * 1.1) << name(type) << " seed " << seed;
  }
}

TEST(Format, KeepsWhatEveryBlockCanHold) {
  std::vector<float> zeros(256, 0.0f), constant(256, 0.5f), tiny(256, 1e-30f);
  for (const TensorType type : kAllTypes) {
    EXPECT_EQ(round_trip(type, zeros), zeros) << name(type);
    for (const float value : round_trip(type, constant)) EXPECT_NEAR(value, 0.5f, 0.5f * 0.01f) << name(type);
    for (const float value : round_trip(type, tiny)) EXPECT_NEAR(value, 0.0f, 1e-6f) << name(type);
  }
}

TEST(Format, SurvivesAnyFiniteValuesAndRefusesOthers) {
  SeededRandom random(3);
  for (int turn = 0; turn < 300; ++turn) {
    std::vector<float> values(256);
    for (float& value : values) {
      const auto bits = static_cast<uint32_t>(random.next());
      std::memcpy(&value, &bits, 4);
      if (!std::isfinite(value)) value = std::numeric_limits<float>::max();
      if (turn % 2) value = std::fmod(value, 1e4f);
    }
    for (const TensorType type : kAllTypes) {
      try {
        for (const float value : round_trip(type, values)) EXPECT_FALSE(std::isnan(value)) << name(type);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
        EXPECT_EQ(turn % 2, 0) << name(type) << ": " << error.message();
      }
    }
  }
  std::vector<float> values(256, 1.0f);
  values[77] = std::numeric_limits<float>::quiet_NaN();
  for (const TensorType type : kAllTypes) {
    if (traits(type).block_elements == 1) continue;
    try {
      round_trip(type, values);
      ADD_FAILURE() << name(type) << " took a NaN";
    } catch (const Error& error) {
      EXPECT_NE(error.message().find("77"), std::string::npos);
    }
  }
}

TEST(Format, EveryHalfGoesToFloatAndBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = half_to_float(half);
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31 && fraction != 0) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
      continue;
    }
    const double magnitude = exponent == 31  ? std::numeric_limits<double>::infinity()
                             : exponent == 0 ? std::ldexp(fraction, -24)
                                             : std::ldexp(1024 + fraction, exponent - 25);
    ASSERT_EQ(value, static_cast<float>(bits & 0x8000 ? -magnitude : magnitude)) << bits;
    ASSERT_EQ(float_to_half(value), half);
  }
}

TEST(Format, RoundsHalvesAndBfloat16ToNearestEven) {
  SeededRandom random(11);
  for (int i = 0; i < 200'000; ++i) {
    const auto bits = static_cast<uint32_t>(random.next());
    float value;
    std::memcpy(&value, &bits, 4);
    if (i % 2)
      value = std::ldexp(static_cast<float>(random.below(1u << 24)), static_cast<int>(random.below(40)) - 50);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
      EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(value))));
      continue;
    }
    // The neighbours of the result are no nearer, and in a tie the result is even.
    const auto check = [&](uint16_t result, auto widen) {
      const double here = std::fabs(static_cast<double>(widen(result)) - value);
      if (std::isinf(widen(result))) return;
      for (const int step : {-1, 1}) {
        const auto other = static_cast<uint16_t>(result + step);
        if ((other ^ result) & 0x8000) continue;
        const double there = std::fabs(static_cast<double>(widen(other)) - value);
        ASSERT_LE(here, there) << value;
        if (here == there && here > 0) {
          ASSERT_EQ(result & 1, 0) << value;
        }
      }
    };
    check(float_to_half(value), half_to_float);
    check(float_to_bfloat16(value), bfloat16_to_float);
  }
  EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(0x1p-25f), 0);
  EXPECT_EQ(float_to_half(0x1.8p-25f), 1);
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(Format, PacksSixBitScalesBothWays) {
  SeededRandom random(5);
  for (int turn = 0; turn < 1000; ++turn) {
    uint8_t scales[8], minima[8], packed[12], scales_back[8], minima_back[8];
    for (int i = 0; i < 8; ++i) {
      scales[i] = static_cast<uint8_t>(random.below(64));
      minima[i] = static_cast<uint8_t>(random.below(64));
    }
    pack_scales(scales, minima, packed);
    unpack_scales(packed, scales_back, minima_back);
    for (int i = 0; i < 8; ++i) {
      ASSERT_EQ(scales[i], scales_back[i]);
      ASSERT_EQ(minima[i], minima_back[i]);
    }
  }
}

TEST(Format, KnowsNames) {
  EXPECT_EQ(tensor_type_from_name("q4_k"), TensorType::kQ4_K);
  EXPECT_EQ(tensor_type_from_name("BF16"), TensorType::kBF16);
  EXPECT_FALSE(tensor_type_from_name("q4"));
  EXPECT_EQ(ggml_type_name(17), "IQ2_XS");
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(ggml_type_name(1000), "unknown");
  for (const TensorType type : kAllTypes) {
    EXPECT_EQ(tensor_type_from_ggml(static_cast<uint32_t>(type)), type);
    EXPECT_EQ(ggml_type_name(static_cast<uint32_t>(type)), name(type));
  }
  EXPECT_FALSE(tensor_type_from_ggml(10));
}

// What a format can hold exactly it keeps exactly: constants, one value among zeros, zero and another.
TEST(Quantize, KeepsWhatTheFormatHoldsExactly) {
  for (const TensorType type : {TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1})
    for (const float value : {1.0f, -1.0f, 0.5f, 3.0f, 100.0f, -50.0f, 1000.0f})
      for (const int kind : {0, 1, 2}) {
        std::vector<float> values(32), back(32);
        for (int i = 0; i < 32; ++i)
          values[i] = kind == 0 ? value : kind == 1 ? (i == 7 ? value : 0) : (i % 2 ? value : 0);
        // An affine format has no exact step for an arbitrary value among zeros.
        const bool affine = type == TensorType::kQ4_1 || type == TensorType::kQ5_1;
        if (affine && kind != 0) continue;
        std::vector<std::byte> blocks(row_bytes(type, 32));
        quantize(type, values, blocks);
        dequantize(type, blocks, back);
        EXPECT_EQ(back, values) << traits(type).name << " " << value << " kind " << kind;
      }
}

}  // namespace
}  // namespace caravan
