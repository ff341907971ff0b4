#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/hash.h"

// How groups lie in the bulk store (docs/decisions/0003-shard-store.md). Key: segment (8 bytes), place in the
// segment (4), chunk (4), all big-endian, so that a segment is one range of keys and reading a group is
// reading forward. Value: XXH3 (8 bytes, little-endian), then the bytes. Inside shards/.
namespace caravan {

inline constexpr std::string_view kSegmentPrefix = "segment/";
// The record of a segment that is being written: its groups are not known yet.
inline constexpr std::string_view kUnfinishedSegment = "unfinished";
inline constexpr size_t kChunkHeaderBytes = sizeof(uint64_t);

template <class Number>
void append_big_endian(std::string& out, Number value) {
  for (int shift = 8 * static_cast<int>(sizeof value) - 8; shift >= 0; shift -= 8)
    out += static_cast<char>(value >> shift & 0xff);
}

inline std::optional<uint64_t> parse_big_endian(std::string_view text) {
  if (text.size() != sizeof(uint64_t)) return std::nullopt;
  uint64_t value = 0;
  for (const char byte : text) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

inline std::string segment_key(uint64_t segment) {
  std::string key;
  append_big_endian(key, segment);
  return key;
}

inline std::string segment_record_key(uint64_t segment) {
  return std::string(kSegmentPrefix) + segment_key(segment);
}

inline std::string chunk_key(uint64_t segment, uint32_t ordinal, uint32_t chunk) {
  std::string key = segment_key(segment);
  append_big_endian(key, ordinal);
  append_big_endian(key, chunk);
  return key;
}

struct ChunkPlace {
  uint64_t segment = 0;
  uint32_t ordinal = 0, chunk = 0;
};
// As chunk_key made it; nothing for what it did not.
inline std::optional<ChunkPlace> parse_chunk_key(std::string_view key) {
  if (key.size() != 2 * sizeof(uint64_t)) return std::nullopt;
  const uint64_t inside = *parse_big_endian(key.substr(sizeof(uint64_t)));
  return ChunkPlace{*parse_big_endian(key.substr(0, sizeof(uint64_t))), static_cast<uint32_t>(inside >> 32),
                    static_cast<uint32_t>(inside)};
}

// Bound to the group and the chunk's number, so that no other chunk can stand in its place.
inline uint64_t chunk_seed(const Hash256& group, uint32_t chunk) {
  return xxh3(std::as_bytes(std::span(group.bytes)), chunk);
}
inline uint64_t chunk_sum(const Hash256& group, uint32_t chunk, std::span<const std::byte> bytes) {
  return xxh3(bytes, chunk_seed(group, chunk));
}

}  // namespace caravan
