#pragma once

#include <chrono>
#include <cstdint>

namespace caravan {

using Duration = std::chrono::nanoseconds;
// Since an arbitrary start, never backwards. Wall-clock time is for logs and API fields alone
// (Clock::unix_seconds).
using Time = std::chrono::time_point<struct MonotonicTag, Duration>;

constexpr double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}
constexpr Duration from_seconds(double value) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(value));
}

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
  virtual int64_t unix_seconds() const = 0;
};

// Any thread may ask.
class SystemClock final : public Clock {
 public:
  Time now() const override;
  int64_t unix_seconds() const override;
};

// The twin for tests and the simulator: it stands still until told. One thread.
class ManualClock final : public Clock {
 public:
  Time now() const override { return now_; }
  int64_t unix_seconds() const override {
    return 1'700'000'000 + static_cast<int64_t>(seconds(now_.time_since_epoch()));
  }
  void advance(Duration duration) { now_ += duration; }
  void set(Time time) { now_ = time; }

 private:
  Time now_{};
};

}  // namespace caravan
