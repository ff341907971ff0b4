#include "compute/format.h"

#include <array>
#include <bit>
#include <cctype>
#include <cstring>

#include "base/check.h"
#include "compute/blocks.h"

namespace caravan {

namespace {

constexpr std::array<FormatTraits, 11> kTraits = {{
    {TensorType::kF32, "F32", 1, 4},
    {TensorType::kF16, "F16", 1, 2},
    {TensorType::kQ4_0, "Q4_0", kBlock, sizeof(BlockQ4_0)},
    {TensorType::kQ4_1, "Q4_1", kBlock, sizeof(BlockQ4_1)},
    {TensorType::kQ5_0, "Q5_0", kBlock, sizeof(BlockQ5_0)},
    {TensorType::kQ5_1, "Q5_1", kBlock, sizeof(BlockQ5_1)},
    {TensorType::kQ8_0, "Q8_0", kBlock, sizeof(BlockQ8_0)},
    {TensorType::kQ4_K, "Q4_K", kSuperBlock, sizeof(BlockQ4_K)},
    {TensorType::kQ5_K, "Q5_K", kSuperBlock, sizeof(BlockQ5_K)},
    {TensorType::kQ6_K, "Q6_K", kSuperBlock, sizeof(BlockQ6_K)},
    {TensorType::kBF16, "BF16", 1, 2},
}};

// Every number that GGUF files have carried, the withdrawn ones too.
constexpr std::array<std::string_view, 43> kGgmlNames = {
    "F32",      "F16",      "Q4_0",    "Q4_1",  "Q4_2",       "Q4_3",       "Q5_0",       "Q5_1",
    "Q8_0",     "Q8_1",     "Q2_K",    "Q3_K",  "Q4_K",       "Q5_K",       "Q6_K",       "Q8_K",
    "IQ2_XXS",  "IQ2_XS",   "IQ3_XXS", "IQ1_S", "IQ4_NL",     "IQ3_S",      "IQ2_S",      "IQ4_XS",
    "I8",       "I16",      "I32",     "I64",   "F64",        "IQ1_M",      "BF16",       "Q4_0_4_4",
    "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",
    "NVFP4",    "Q1_0",     "Q2_0"};

bool same_letters(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(a[i])) != std::tolower(static_cast<unsigned char>(b[i])))
      return false;
  return true;
}

}  // namespace

std::optional<TensorType> tensor_type_from_ggml(uint32_t number) {
  for (const FormatTraits& entry : kTraits)
    if (static_cast<uint32_t>(entry.type) == number) return entry.type;
  return std::nullopt;
}

std::string_view ggml_type_name(uint32_t number) {
  return number < kGgmlNames.size() ? kGgmlNames[number] : "unknown";
}

std::optional<TensorType> tensor_type_from_name(std::string_view text) {
  for (const FormatTraits& entry : kTraits)
    if (same_letters(entry.name, text)) return entry.type;
  return std::nullopt;
}

const FormatTraits& traits(TensorType type) {
  for (const FormatTraits& entry : kTraits)
    if (entry.type == type) return entry;
  CHECK(static_cast<uint32_t>(type) == 0u);
  return kTraits[0];
}

uint64_t row_bytes(TensorType type, uint64_t columns) {
  const FormatTraits& format = traits(type);
  CHECK(columns % format.block_elements == 0u);
  return columns / format.block_elements * format.block_bytes;
}

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u)  // infinity, NaN
    return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  // Subnormal: an integer times 2^-24, exact in f32.
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to 65536 or more
  if (magnitude >= 0x38800000u) {
    const uint32_t odd = magnitude >> 13 & 1u;
    return static_cast<uint16_t>(sign | (magnitude - (112u << 23) + 0xfffu + odd) >> 13);
  }
  // Subnormal: adding 1/2 leaves the integer (in units of 2^-24), rounded to even, in the low bits.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
}

}  // namespace caravan
