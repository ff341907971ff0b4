#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace caravan {

// Counts per second over the last minute. One thread.
class RateMeter {
 public:
  void add(uint64_t count, Time now) {
    forget(now);
    if (first_ == 0) first_ = second_;
    counts_[static_cast<size_t>(second_ % kSeconds)] += count;
  }
  // Over the part of the last minute since the first count.
  double per_second(Time now) const {
    const int64_t second = index(now);
    uint64_t sum = 0;
    for (int64_t s = second - kSeconds + 1; s <= second && s <= second_; ++s)
      if (s >= 0 && s > second_ - kSeconds) sum += counts_[static_cast<size_t>(s % kSeconds)];
    const int64_t span = std::min<int64_t>(kSeconds, second - first_ + 1);
    return first_ == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(span);
  }

 private:
  static constexpr int64_t kSeconds = 60;
  // From 1, so that 0 means never.
  static int64_t index(Time now) { return now.time_since_epoch() / std::chrono::seconds(1) + 1; }
  void forget(Time now) {
    const int64_t second = index(now);
    for (int64_t s = std::max(second_ + 1, second - kSeconds + 1); s <= second; ++s)
      counts_[static_cast<size_t>(s % kSeconds)] = 0;
    second_ = std::max(second_, second);
  }

  std::array<uint64_t, kSeconds> counts_{};
  int64_t first_ = 0, second_ = 0;
};

}  // namespace caravan
