#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/progress.h"
#include "daemon/engine.h"

namespace caravan {

// Shows on standard error how far the reading (or fetching) of weights is. Its calls come from the thread
// that reads; the lock is for finish(), which comes from the control thread.
class LoadReport {
 public:
  explicit LoadReport(const Clock& clock, std::string what = "load")
      : clock_(clock), what_(std::move(what)) {}
  LoadProgress progress();
  void finish();

 private:
  const Clock& clock_;
  const std::string what_;
  std::mutex mutex_;
  std::optional<Progress> shown_;
  uint64_t last_ = 0, total_ = 0;
};

}  // namespace caravan
