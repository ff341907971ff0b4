#include "daemon/load_report.h"

namespace caravan {

LoadProgress LoadReport::progress() {
  return [this](uint64_t bytes, uint64_t total) {
    std::lock_guard lock(mutex_);
    if (!shown_ || bytes < last_ || total != total_) {
      shown_.emplace(clock_, what_, Progress::Unit::kBytes, total, standard_error_is_terminal(),
                     standard_error());
      last_ = 0;
      total_ = total;
    }
    shown_->advance(bytes - last_);
    last_ = bytes;
  };
}

void LoadReport::finish() {
  std::lock_guard lock(mutex_);
  shown_.reset();
}

}  // namespace caravan
