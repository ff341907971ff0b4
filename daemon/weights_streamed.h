#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "offload/pager.h"

namespace caravan {

// What of weights was read, and waited for.
struct WeightsRead {
  uint64_t bytes = 0, busy_ns = 0, waited_ns = 0;

  static WeightsRead by_now(const PagerCounters& counters) {
    return {counters.bytes_read.value(), counters.read_busy_ns.value(), counters.waited_ns.value()};
  }
  WeightsRead operator-(const WeightsRead& before) const {
    return {bytes - before.bytes, busy_ns - before.busy_ns, waited_ns - before.waited_ns};
  }
  // The share of the time of reading that went by behind computing; none when nothing was read.
  std::optional<double> hidden() const {
    if (busy_ns == 0) return std::nullopt;
    return std::max(0.0, 1 - static_cast<double>(waited_ns) / static_cast<double>(busy_ns));
  }
};

// Of a generation's prompt, up to its first token, and of the tokens after it, apart: what hides the reading
// of a pass is how many rows it computes. The first fill of memory is in neither: it has nothing to hide
// behind.
class WeightsStreamed {
 public:
  void begin(const WeightsRead& by_now) { begin_ = first_token_ = end_ = by_now; }
  // Whenever tokens come.
  void add_tokens(size_t count, const WeightsRead& by_now) {
    if (tokens_ == 0) first_token_ = by_now;
    tokens_ += count;
  }
  void end(const WeightsRead& by_now) {
    if (tokens_ == 0) first_token_ = by_now;
    end_ = by_now;
  }

  WeightsRead prompt() const { return first_token_ - begin_; }
  // None of a single token: it comes of the prompt's pass.
  std::optional<WeightsRead> tokens() const {
    return tokens_ > 1 ? std::optional(end_ - first_token_) : std::nullopt;
  }

 private:
  WeightsRead begin_, first_token_, end_;
  size_t tokens_ = 0;
};

}  // namespace caravan
