#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/codec_id.h"

namespace caravan {

// How rows are packed on a link (law 1: kF32 is exact).
// kBf16: nearest even; infinities and NaNs stay what they are.
// kInt8: signed bytes in groups of 64 under a bf16 scale, and beside them the row's largest channels (one for
// every 256, at least one) in bf16: residual streams have channels 10^5 times the median, which would leave a
// group nothing. For finite rows |error| <= (1/2 + 2^-15) scale, scale <= (1 + 2^-7) / 127 times the largest
// magnitude of the group without the channels set aside (but at least 2^-126); in the channels set aside
// |error| <= 2^-8 |x| (but 2^-134 at least, half the least bfloat16).

// "f32", "bf16", "int8"; nothing for another word.
std::optional<CodecId> codec_from_name(std::string_view name);
// Of a number that came over a wire.
std::optional<CodecId> codec_from_number(uint8_t number);

// How many channels of a row kInt8 sets aside.
uint32_t int8_outliers(uint32_t width);

// The size of one row, which depends on nothing but the width (1 to limits::kMaxWidth).
size_t encoded_row_bytes(CodecId codec, uint32_t width);

// rows [rows, width] to out, rows * encoded_row_bytes bytes. The same bytes on every CPU. A group of kInt8
// with more infinities or NaNs than can be set aside decodes to NaN as a whole.
void encode_rows(CodecId codec, const float* values, uint32_t rows, uint32_t width, std::byte* out);

// The reverse, of bytes that may be hostile: kMalformed when their size is not that of the rows, or a channel
// that was set aside is out of range or out of order.
void decode_rows(CodecId codec, std::span<const std::byte> bytes, uint32_t rows, uint32_t width,
                 float* values);

}  // namespace caravan
