#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bulk_store.h"
#include "base/error.h"

namespace caravan {

// How KV lies in a BulkStore: each layer's part of a block is a value of its own, keyed (serial, layer), with
// an XXH3 checksum behind it. Serials of a kind go up from batch to batch.

// Big-endian, so that the order of keys is that of serials.
std::string kv_key(uint64_t serial, uint32_t layer);
inline constexpr uint64_t kKvSealBytes = sizeof(uint64_t);
// Makes `value` the part with its checksum, of which the place is a part, so that a part in another's place
// is found, too.
void seal_kv(std::span<const std::byte> part, uint64_t serial, uint32_t layer, std::vector<std::byte>& value);
// Reads the parts of consecutive layers whole, one after the other to `to`; together when there are several.
struct KvReadFailure {
  uint32_t layer = 0;  // the first that failed
  Error why;  // kIo or kMalformed: it is not there, short or damaged; kOutOfMemory: there was none to read it
};
std::optional<KvReadFailure> read_kv(const BulkStore& store, uint64_t serial, uint32_t first_layer,
                                     std::span<const uint64_t> part_bytes, std::byte* to);

}  // namespace caravan
