#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/ids.h"

namespace caravan {

// SHA-256 (OpenSSL), for content that crosses a trust border. One thread; finish() ends it.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text) { return update(std::as_bytes(std::span(text))); }
  // Little-endian, eight bytes.
  Sha256& update(uint64_t value);
  Hash256 finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Hash256 sha256(std::span<const std::byte> bytes);

// HMAC-SHA-256 (OpenSSL): what nobody can tell or check without the key.
Hash256 keyed_hash(std::span<const uint8_t, 32> key, std::span<const std::byte> bytes);

// XXH3, 64 bits: checksums inside a peer.
uint64_t xxh3(std::span<const std::byte> bytes, uint64_t seed = 0);

// The same of bytes that come in pieces. One thread.
class Xxh3 {
 public:
  explicit Xxh3(uint64_t seed = 0);
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;
  void begin_again();
  void update(std::span<const std::byte> bytes);
  uint64_t sum() const;

 private:
  struct State;
  const uint64_t seed_;
  std::unique_ptr<State> state_;
};

}  // namespace caravan
