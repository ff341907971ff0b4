#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace caravan {

class Random {
 public:
  virtual ~Random() = default;
  virtual void fill(std::span<uint8_t> bytes) = 0;

  uint64_t next();
  // Below `bound` (at least 1), without bias that a test could see.
  uint64_t below(uint64_t bound) { return next() % bound; }
  // In [0, 1), 53 bits.
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
};

// The operating system's generator: keys, secrets, ids. Any thread.
class SystemRandom final : public Random {
 public:
  void fill(std::span<uint8_t> bytes) override;
};

// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed on every machine. One thread.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}
  void fill(std::span<uint8_t> bytes) override;

 private:
  uint64_t state_;
};

// One SplitMix64 output of `state`: a function, for randomness that belongs to a (seed, position).
uint64_t mix64(uint64_t state);

}  // namespace caravan
