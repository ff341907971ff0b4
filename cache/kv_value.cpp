#include "cache/kv_value.h"

#include <cstring>
#include <utility>

#include "base/caught_error.h"
#include "base/hash.h"

namespace caravan {

namespace {

uint64_t checksum(std::span<const std::byte> part, uint64_t serial, uint32_t layer) {
  return xxh3(part, serial * 0x9e3779b97f4a7c15u + layer);
}

}  // namespace

std::string kv_key(uint64_t serial, uint32_t layer) {
  std::string key(12, '\0');
  for (int i = 0; i < 8; ++i) key[i] = static_cast<char>(serial >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) key[8 + i] = static_cast<char>(layer >> (24 - 8 * i));
  return key;
}

void seal_kv(std::span<const std::byte> part, uint64_t serial, uint32_t layer,
             std::vector<std::byte>& value) {
  value.resize(part.size() + kKvSealBytes);
  std::memcpy(value.data(), part.data(), part.size());
  // Of the copy: what is summed is what is stored.
  const uint64_t sum = checksum(std::span(value).first(part.size()), serial, layer);
  std::memcpy(value.data() + part.size(), &sum, sizeof sum);
}

namespace {

// Takes a value apart: the part goes to `to` when it is what was stored there.
std::optional<Error> take(std::span<const std::byte> value, uint64_t serial, uint32_t layer,
                          std::span<std::byte> to) {
  if (value.size() != to.size() + kKvSealBytes)
    return Error(ErrorCode::kIo,
                 fmt::format("{} of {} bytes came back", value.size(), to.size() + kKvSealBytes));
  uint64_t sum = 0;
  std::memcpy(&sum, value.data() + to.size(), sizeof sum);
  if (checksum(value.first(to.size()), serial, layer) != sum)
    return Error(ErrorCode::kMalformed, "it is damaged on disk, its checksum differs");
  std::memcpy(to.data(), value.data(), to.size());
  return std::nullopt;
}

std::optional<Error> read_one(const BulkStore& store, uint64_t serial, uint32_t layer,
                              std::span<std::byte> to) {
  std::optional<Error> error;
  try {
    const auto use = [&](std::span<const std::byte> value) { error = take(value, serial, layer, to); };
    if (!store.read(kv_key(serial, layer), use)) error.emplace(ErrorCode::kIo, "it is not there any more");
  } catch (const Error& thrown) {
    error.emplace(thrown.code(), thrown.message());
  }
  return error;
}

// False when anything was wrong with any of them.
bool read_together(const BulkStore& store, uint64_t serial, uint32_t first_layer,
                   std::span<const std::span<std::byte>> parts) {
  std::vector<std::string> keys;
  for (uint32_t i = 0; i < parts.size(); ++i) keys.push_back(kv_key(serial, first_layer + i));
  size_t good = 0;
  try {
    store.read_many(keys, [&](size_t place, std::span<const std::byte> value) {
      if (!take(value, serial, first_layer + static_cast<uint32_t>(place), parts[place])) ++good;
    });
  } catch (const Error&) {
    return false;
  }
  return good == parts.size();
}

}  // namespace

std::optional<KvReadFailure> read_kv(const BulkStore& store, uint64_t serial, uint32_t first_layer,
                                     std::span<const uint64_t> part_bytes, std::byte* to) {
  uint32_t layer = first_layer;
  try {
    std::vector<std::span<std::byte>> parts;
    for (const uint64_t bytes : part_bytes) {
      parts.emplace_back(to, bytes);
      to += bytes;
    }
    if (parts.size() > 1 && read_together(store, serial, first_layer, parts)) return std::nullopt;
    // One by one, also to find out which it is.
    for (const std::span<std::byte> part : parts) {
      if (auto error = read_one(store, serial, layer, part)) return KvReadFailure{layer, std::move(*error)};
      ++layer;
    }
  } catch (const std::exception&) {
    return KvReadFailure{layer, caught_error()};
  }
  return std::nullopt;
}

}  // namespace caravan
