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
// an XXH3 checksum behind it. Serials go up from batch to batch.

// Big-endian, so that the order of keys is that of serials.
std::string kv_key(uint64_t serial, uint32_t layer);
inline constexpr uint64_t kKvSealBytes = sizeof(uint64_t);
// Makes `value` the part with its checksum, of which the place is a part, so that a part in another's place
// is found, too.
void seal_kv(std::span<const std::byte> part, uint64_t serial, uint32_t layer, std::vector<std::byte>& value);
// Reads a part whole. kIo or kMalformed, and why, when it is not there, short or damaged; `to` is then of no
// use.
std::optional<Error> read_kv(const BulkStore& store, uint64_t serial, uint32_t layer,
                             std::span<std::byte> to);

}  // namespace caravan
