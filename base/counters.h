#pragma once

#include <atomic>
#include <cstdint>

namespace caravan {

// A count of bytes or operations, kept at the place where they happen (law 8). Any thread adds; the planner,
// the bench, /metrics and the ledger read the same object.
class Counter {
 public:
  void add(uint64_t amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace caravan
