#include "compute/codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"
#include "compute/format.h"

namespace caravan {

namespace {

constexpr uint32_t kGroup = 64;  // values under one scale
constexpr uint32_t kWidthPerOutlier = 256;
constexpr uint32_t kMagnitude = 0x7fffffffu;  // all bits of a float but its sign
constexpr uint32_t kInfinity = 0x7f800000u;
static_assert(kGroup <= kWidthPerOutlier, "a row has as many groups as channels set aside, or more");
static_assert(limits::kMaxWidth <= 1u << 16, "channel numbers travel as 16 bits");

constexpr uint32_t group_count(uint32_t width) {
  return (width + kGroup - 1) / kGroup;
}

void encode_bf16(const float* values, size_t count, std::byte* out) {
  // Fixed runs let the compiler use vectors.
  constexpr size_t kRun = 64;
  std::array<uint16_t, kRun> run;
  for (size_t begin = 0; begin < count; begin += kRun) {
    const size_t length = std::min(kRun, count - begin);
    if (length == kRun)
      for (size_t i = 0; i < kRun; ++i) run[i] = float_to_bfloat16(values[begin + i]);
    else
      for (size_t i = 0; i < length; ++i) run[i] = float_to_bfloat16(values[begin + i]);
    std::memcpy(out + 2 * begin, run.data(), 2 * length);
  }
}

void decode_bf16(const std::byte* bytes, size_t count, float* values) {
  constexpr size_t kRun = 64;
  std::array<uint16_t, kRun> run{};
  std::array<float, kRun> wide;
  for (size_t begin = 0; begin < count; begin += kRun) {
    const size_t length = std::min(kRun, count - begin);
    std::memcpy(run.data(), bytes + 2 * begin, 2 * length);
    for (size_t i = 0; i < kRun; ++i) wide[i] = bfloat16_to_float(run[i]);
    std::memcpy(values + begin, wide.data(), 4 * length);
  }
}

// The bits of |x|: as integers they stand in the order of the magnitudes, NaNs above infinity.
int32_t magnitude_bits(float x) {
  return static_cast<int32_t>(std::bit_cast<uint32_t>(x) & kMagnitude);
}

int32_t largest_bits(const std::array<float, kGroup>& group) {
  int32_t largest = 0;
  for (uint32_t i = 0; i < kGroup; ++i) largest = std::max(largest, magnitude_bits(group[i]));
  return largest;
}

// A channel ordered by magnitude; of equal ones the lower number counts as larger.
struct Channel {
  int32_t bits;
  uint32_t number;
};
bool larger(const Channel& a, const Channel& b) {
  return a.bits != b.bits ? a.bits > b.bits : a.number < b.number;
}

std::array<float, kGroup> load_group(const float* row, uint32_t width, uint32_t group) {
  std::array<float, kGroup> values{};
  const uint32_t begin = group * kGroup;
  std::memcpy(values.data(), row + begin, 4 * std::min(kGroup, width - begin));
  return values;
}

// The `count` largest channels of a row, in the order of their numbers. As many groups have a largest value
// of at least the count-th largest of these, so no channel below that need be looked at.
void find_outliers(const float* row, uint32_t width, uint32_t count, std::vector<Channel>& found) {
  const uint32_t groups = group_count(width);
  std::array<int32_t, group_count(limits::kMaxWidth)> largest, sorted;
  for (uint32_t group = 0; group < groups; ++group)
    largest[group] = largest_bits(load_group(row, width, group));
  std::copy_n(largest.begin(), groups, sorted.begin());
  std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.begin() + groups, std::greater<>());
  const int32_t least = sorted[count - 1];
  found.clear();
  for (uint32_t group = 0; group < groups; ++group) {
    if (largest[group] < least) continue;
    const uint32_t begin = group * kGroup, end = std::min(begin + kGroup, width);
    for (uint32_t i = begin; i < end; ++i)
      if (const int32_t bits = magnitude_bits(row[i]); bits >= least) found.push_back({bits, i});
  }
  std::nth_element(found.begin(), found.begin() + (count - 1), found.end(), larger);
  found.resize(count);
  std::sort(found.begin(), found.end(),
            [](const Channel& a, const Channel& b) { return a.number < b.number; });
}

// The least bfloat16 that is not below largest / 127: no value then needs more than 127 steps.
uint16_t scale_for(int32_t largest) {
  if (static_cast<uint32_t>(largest) >= kInfinity) return 0x7fc0;  // NaN
  const float step = std::max(std::bit_cast<float>(largest) / 127.0f, std::numeric_limits<float>::min());
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(step) + 0xffffu) >> 16);
}

void encode_group(const std::array<float, kGroup>& values, uint16_t scale, std::array<int8_t, kGroup>& out) {
  const float step = bfloat16_to_float(scale);
  if (step != step) return out.fill(0);
  const float factor = 1.0f / step;
  constexpr float kRounder = 0x1.8p23f;  // leaves the nearest integer, ties to even, in the low mantissa
  for (uint32_t i = 0; i < kGroup; ++i)
    out[i] = static_cast<int8_t>(std::bit_cast<uint32_t>(values[i] * factor + kRounder));
}

// A row: signed bytes [width], scales (bf16) [groups], channel numbers (u16) [outliers], their values (bf16).
struct Int8Row {
  explicit Int8Row(uint32_t row_width)
      : width(row_width),
        groups(group_count(row_width)),
        outliers(int8_outliers(row_width)),
        scales(width),
        numbers(scales + 2 * size_t{groups}),
        values(numbers + 2 * size_t{outliers}),
        bytes(values + 2 * size_t{outliers}) {}
  uint32_t width, groups, outliers;
  size_t scales, numbers, values, bytes;  // offsets, and the size
};

void encode_int8(const Int8Row& layout, const float* row, std::vector<Channel>& channels, std::byte* out) {
  find_outliers(row, layout.width, layout.outliers, channels);
  size_t next = 0;
  for (uint32_t group = 0; group < layout.groups; ++group) {
    std::array<float, kGroup> values = load_group(row, layout.width, group);
    for (; next < channels.size() && channels[next].number / kGroup == group; ++next) {
      const auto number = static_cast<uint16_t>(channels[next].number);
      float& value = values[number % kGroup];
      const uint16_t stored = float_to_bfloat16(value);
      std::memcpy(out + layout.numbers + 2 * next, &number, 2);
      std::memcpy(out + layout.values + 2 * next, &stored, 2);
      value = 0;
    }
    const uint16_t scale = scale_for(largest_bits(values));
    std::array<int8_t, kGroup> quants;
    encode_group(values, scale, quants);
    const uint32_t begin = group * kGroup;
    std::memcpy(out + begin, quants.data(), std::min(kGroup, layout.width - begin));
    std::memcpy(out + layout.scales + 2 * group, &scale, 2);
  }
}

void decode_int8(const Int8Row& layout, const std::byte* bytes, uint32_t row, float* out) {
  for (uint32_t group = 0; group < layout.groups; ++group) {
    uint16_t scale;
    std::memcpy(&scale, bytes + layout.scales + 2 * group, 2);
    const float step = bfloat16_to_float(scale);
    const uint32_t begin = group * kGroup, length = std::min(kGroup, layout.width - begin);
    std::array<int8_t, kGroup> quants{};
    std::array<float, kGroup> values;
    std::memcpy(quants.data(), bytes + begin, length);
    for (uint32_t i = 0; i < kGroup; ++i) values[i] = static_cast<float>(quants[i]) * step;
    std::memcpy(out + begin, values.data(), 4 * length);
  }
  uint32_t least = 0;
  for (uint32_t i = 0; i < layout.outliers; ++i) {
    uint16_t number, value;
    std::memcpy(&number, bytes + layout.numbers + 2 * i, 2);
    std::memcpy(&value, bytes + layout.values + 2 * i, 2);
    if (number < least || number >= layout.width)
      fail(ErrorCode::kMalformed, "row {}: channel {} set aside is not from {} to {}", row, number, least,
           layout.width - 1);
    least = number + 1u;
    out[number] = bfloat16_to_float(value);
  }
}

}  // namespace

std::optional<CodecId> codec_from_name(std::string_view text) {
  for (uint8_t number = 0; number < kCodecCount; ++number)
    if (const auto codec = static_cast<CodecId>(number); name(codec) == text) return codec;
  return std::nullopt;
}

std::optional<CodecId> codec_from_number(uint8_t number) {
  if (number >= kCodecCount) return std::nullopt;
  return static_cast<CodecId>(number);
}

uint32_t int8_outliers(uint32_t width) {
  return (width + kWidthPerOutlier - 1) / kWidthPerOutlier;
}

size_t encoded_row_bytes(CodecId codec, uint32_t width) {
  CHECK(width >= 1u);
  CHECK(width <= limits::kMaxWidth);
  switch (codec) {
    case CodecId::kF32:
      return 4 * size_t{width};
    case CodecId::kBf16:
      return 2 * size_t{width};
    case CodecId::kInt8:
      break;
  }
  return Int8Row(width).bytes;
}

void encode_rows(CodecId codec, const float* values, uint32_t rows, uint32_t width, std::byte* out) {
  const size_t row_bytes = encoded_row_bytes(codec, width);
  if (rows == 0) return;
  if (codec == CodecId::kF32) {
    std::memcpy(out, values, rows * row_bytes);
  } else if (codec == CodecId::kBf16) {
    encode_bf16(values, size_t{rows} * width, out);
  } else {
    const Int8Row layout(width);
    std::vector<Channel> channels;
    channels.reserve(width);
    for (size_t row = 0; row < rows; ++row)
      encode_int8(layout, values + row * width, channels, out + row * row_bytes);
  }
}

void decode_rows(CodecId codec, std::span<const std::byte> bytes, uint32_t rows, uint32_t width,
                 float* values) {
  const size_t row_bytes = encoded_row_bytes(codec, width);
  if (bytes.size() != rows * row_bytes)
    fail(ErrorCode::kMalformed, "{} bytes are not {} rows of {} bytes ({}, width {})", bytes.size(), rows,
         row_bytes, name(codec), width);
  if (rows == 0) return;
  if (codec == CodecId::kF32) {
    std::memcpy(values, bytes.data(), bytes.size());
  } else if (codec == CodecId::kBf16) {
    decode_bf16(bytes.data(), size_t{rows} * width, values);
  } else {
    const Int8Row layout(width);
    for (uint32_t row = 0; row < rows; ++row)
      decode_int8(layout, bytes.data() + row * row_bytes, row, values + size_t{row} * width);
  }
}

}  // namespace caravan
