#include "cache/kv_value.h"

#include <cstring>

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

std::optional<Error> read_kv(const BulkStore& store, uint64_t serial, uint32_t layer,
                             std::span<std::byte> to) {
  std::optional<Error> error;
  try {
    const bool found = store.read(kv_key(serial, layer), [&](std::span<const std::byte> value) {
      if (value.size() != to.size() + kKvSealBytes) {
        error.emplace(ErrorCode::kIo,
                      fmt::format("{} of {} bytes came back", value.size(), to.size() + kKvSealBytes));
        return;
      }
      uint64_t sum = 0;
      std::memcpy(&sum, value.data() + to.size(), sizeof sum);
      if (checksum(value.first(to.size()), serial, layer) != sum)
        error.emplace(ErrorCode::kMalformed, "it is damaged on disk, its checksum differs");
      else
        std::memcpy(to.data(), value.data(), to.size());
    });
    if (!found) error.emplace(ErrorCode::kIo, "it is not there any more");
  } catch (const Error& thrown) {
    error.emplace(thrown.code(), thrown.message());
  }
  return error;
}

}  // namespace caravan
