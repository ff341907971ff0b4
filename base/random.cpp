#include "base/random.h"

#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace caravan {

uint64_t Random::next() {
  uint64_t value = 0;
  fill({reinterpret_cast<uint8_t*>(&value), sizeof value});
  return value;
}

void SystemRandom::fill(std::span<uint8_t> bytes) {
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    fail(ErrorCode::kIo, "the operating system gave no random bytes");
}

uint64_t mix64(uint64_t state) {
  uint64_t z = state + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void SeededRandom::fill(std::span<uint8_t> bytes) {
  while (!bytes.empty()) {
    const uint64_t value = mix64(state_);
    state_ += 0x9e3779b97f4a7c15u;
    const size_t count = std::min(bytes.size(), sizeof value);
    std::memcpy(bytes.data(), &value, count);
    bytes = bytes.subspan(count);
  }
}

}  // namespace caravan
