// Bytes as the wire would bring them: an envelope, a header, rows. What decodes must encode again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "compute/codec.h"
#include "proto/encode.h"
#include "proto/framing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caravan;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  // The first byte says how many of the last belong to the rows, so that both parts can be reached.
  if (bytes.empty()) return 0;
  const size_t row_bytes = std::min<size_t>(data[0], size - 1);
  const auto header = bytes.subspan(1, size - 1 - row_bytes);
  const auto rows = bytes.last(row_bytes);
  try {
    unpack(bytes);
  } catch (const Error&) {
  }
  for (const bool knows_codecs : {false, true}) {
    const DecodeOptions options{knows_codecs ? encoded_row_bytes : nullptr};
    try {
      SharedBytes shared;
      if (!rows.empty()) shared = std::make_shared<const std::vector<std::byte>>(rows.begin(), rows.end());
      const Message message = decode(header, shared, options);
      const Frames frames = encode(message);
      const Message again = decode(frames.header, frames.rows, options);
      CHECK(again.index() == message.index());
    } catch (const Error&) {
    }
  }
  return 0;
}
