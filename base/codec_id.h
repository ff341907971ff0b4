#pragma once

#include <cstdint>
#include <string_view>

namespace caravan {

// How activation rows are packed on a link. The numbers are part of the protocol. compute/ packs and unpacks;
// peers/ and proto/ only carry the bytes.
enum class CodecId : uint8_t {
  kF32 = 0,   // exact
  kBf16 = 1,  // the upper half of an f32, rounded
  kInt8 = 2,  // groups of 64 with a scale, and a row's largest channels in bf16 beside them
};
inline constexpr uint8_t kCodecCount = 3;

inline std::string_view name(CodecId codec) {
  switch (codec) {
    case CodecId::kF32:
      return "f32";
    case CodecId::kBf16:
      return "bf16";
    case CodecId::kInt8:
      return "int8";
  }
  return "unknown";
}

}  // namespace caravan
