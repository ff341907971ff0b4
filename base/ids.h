#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

namespace caravan {

// An integer that can be compared and printed but not mixed with another kind of integer.
template <class Tag, class Value>
struct Id {
  Value value{};
  auto operator<=>(const Id&) const = default;
  friend std::ostream& operator<<(std::ostream& out, Id id) { return out << id.value; }
};

using SequenceId = Id<struct SequenceTag, uint64_t>;  // unique inside a ring
using StepId = Id<struct StepTag, uint64_t>;          // counted by the head of a ring
using EpochId = Id<struct EpochTag, uint64_t>;        // of a ring's route
using RequestId = Id<struct RequestTag, uint64_t>;    // inside a daemon

// A token of a vocabulary. Plain, because tokens are indices as much as names.
using TokenId = uint32_t;

// Bytes of fixed size with a meaning: keys, hashes, random ids. Printed in hexadecimal.
template <class Tag, size_t kSize>
struct Blob {
  std::array<uint8_t, kSize> bytes{};
  auto operator<=>(const Blob&) const = default;
  static constexpr size_t size() { return kSize; }
};

using Hash256 = Blob<struct HashTag, 32>;     // SHA-256
using RingId = Blob<struct RingTag, 16>;      // random
using PeerKey = Blob<struct PeerKeyTag, 32>;  // CURVE public key: who a peer is
// Of a full KV block: a keyed hash of all tokens up to its end. Made by the head, which alone has the key.
using BlockTag = Blob<struct BlockTagTag, 16>;
// Of a stage's state: a hash of whatever upstream and there can change a bit of it.
using Lineage = Blob<struct LineageTag, 16>;

std::string to_hex(const uint8_t* bytes, size_t count);
// Writes `count` bytes; false if `text` is not exactly 2 * count hexadecimal digits.
bool from_hex(std::string_view text, uint8_t* bytes, size_t count);

template <class Tag, size_t kSize>
std::string to_string(const Blob<Tag, kSize>& blob) {
  return to_hex(blob.bytes.data(), kSize);
}
// The first eight digits: enough for logs.
template <class Tag, size_t kSize>
std::string short_string(const Blob<Tag, kSize>& blob) {
  return to_hex(blob.bytes.data(), 4);
}
template <class Tag, size_t kSize>
std::ostream& operator<<(std::ostream& out, const Blob<Tag, kSize>& blob) {
  return out << to_string(blob);
}

}  // namespace caravan

template <class Tag, class Value>
struct std::hash<caravan::Id<Tag, Value>> {
  size_t operator()(const caravan::Id<Tag, Value>& id) const { return std::hash<Value>{}(id.value); }
};

template <class Tag, size_t kSize>
struct std::hash<caravan::Blob<Tag, kSize>> {
  size_t operator()(const caravan::Blob<Tag, kSize>& blob) const {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(blob.bytes.data()), kSize});
  }
};
