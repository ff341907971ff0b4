#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace caravan {

enum class MemoryTag : uint8_t { kWeights, kState, kScratch, kWire };
inline constexpr size_t kMemoryTags = 4;
std::string_view name(MemoryTag tag);

class Budget;

// Bytes taken from a budget under a tag; given back by the destructor. Move-only.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();
  Bytes bytes() const { return bytes_; }
  // Takes over the bytes of another one, of the same budget and tag; either may be empty.
  void merge(Reservation other);
  // Gives a part back.
  void give_back(Bytes bytes);

 private:
  friend class Budget;
  Reservation(Budget* budget, MemoryTag tag, Bytes bytes) : budget_(budget), tag_(tag), bytes_(bytes) {}
  Budget* budget_ = nullptr;
  MemoryTag tag_ = MemoryTag::kScratch;
  Bytes bytes_;
};

// The bytes of one tier. Memory is reserved here before it is used (law 5). Any thread: reservations are
// taken by the compute, wire and mover threads alike, so the sums stand under a lock.
class Budget {
 public:
  Budget(std::string tier, Bytes limit) : tier_(std::move(tier)), limit_(limit) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;
  // Throws kOutOfMemory naming tier, tag and the bytes that are missing.
  Reservation reserve(MemoryTag tag, Bytes bytes);
  // Without an exception: an empty reservation (bytes() == 0) when it does not fit.
  Reservation try_reserve(MemoryTag tag, Bytes bytes);
  Bytes limit() const { return limit_; }
  Bytes used() const;
  Bytes used(MemoryTag tag) const;

 private:
  friend class Reservation;
  bool take(MemoryTag tag, Bytes bytes);
  void give_back(MemoryTag tag, Bytes bytes);

  const std::string tier_;
  const Bytes limit_;
  mutable std::mutex mutex_;
  std::array<Bytes, kMemoryTags> used_;
};

}  // namespace caravan
