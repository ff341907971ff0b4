#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/codec_id.h"
#include "proto/messages.h"

// Messages as bytes: docs/PROTOCOL.md, "Messages". Pure functions; any thread.
namespace caravan {

// A header in Cap'n Proto, and the rows (shared with the message, not copied; null without rows).
struct Frames {
  std::vector<std::byte> header;  // at most limits::kMaxHeaderBytes
  SharedBytes rows;
};

// Throws kLimit naming the field when a text, list or row frame is larger than base/limits.h allows; reasons
// are cut to their limit instead, and their control characters become spaces.
Frames encode(const Message& message);

struct DecodeOptions {
  // Bytes of one encoded row (compute/codec.h); without it the row frame is only held against its limits.
  size_t (*encoded_row_bytes)(CodecId codec, uint32_t width) = nullptr;
};

// How large a frame of rows belongs to this header: for whoever has to make room for it before it arrives.
// Throws as decode().
size_t announced_row_bytes(std::span<const std::byte> header, const DecodeOptions& options);

// The message of a header of any alignment and its rows (null: none came). Every count is checked before
// anything of its size is allocated. Throws kMalformed for bytes that are no message, kLimit for sizes over
// base/limits.h, kUnsupported for another protocol version or kind of message.
Message decode(std::span<const std::byte> header, SharedBytes rows, const DecodeOptions& options = {});

}  // namespace caravan
