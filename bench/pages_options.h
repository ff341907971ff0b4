#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/config.h"
#include "base/error.h"

namespace caravan {

// What `caravan bench --pages` measures, and how long.
struct PagesBenchOptions {
  std::string model;  // a path, or the name of an imported model
  Config config;
  uint32_t repeats = 0;        // of each measurement; medians count
  double lasting = 0;          // seconds of each measurement of a rate, at least
  uint32_t prompt_tokens = 0;  // of the prompt seen before

  std::function<void(const std::string& what)> tell;  // hears what is measured next
  std::function<bool()> cancelled;                    // asked often

  // Throws kCancelled.
  void check() const {
    if (cancelled()) fail(ErrorCode::kCancelled, "interrupted");
  }
  // Before each measurement: what the one before it wrote is on the disk, so that its way there does not
  // count in the next one's time.
  void step(const std::string& what) const;
};

}  // namespace caravan
