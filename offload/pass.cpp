#include "offload/pass.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/check.h"

namespace caravan {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

class Simulation {
 public:
  Simulation(std::span<const PassItem> items, const PassConditions& conditions)
      : items_(items), conditions_(conditions) {
    for (size_t i = 0; i < items.size(); ++i)
      if (ahead(items[i])) {
        CHECK(items[i].room <= conditions.window_bytes);
        streamed_.push_back(i);
      }
    if (!streamed_.empty()) read_left_ = items_[streamed_[0]].read;
    begin_item();
  }

  // Until `passes` passes are done; the time from the beginning.
  PassTime run(uint32_t passes) {
    while (passes_ < passes) advance();
    return now_;
  }

 private:
  static bool ahead(const PassItem& item) { return item.read > 0 && !item.demand; }

  void begin_item() {
    compute_left_ = items_[item_].compute;
    demand_left_ = items_[item_].demand ? items_[item_].read : 0;
  }

  bool computing() const {
    const PassItem& item = items_[item_];
    if (ahead(item)) return reads_done_ > reads_used_;
    return demand_left_ <= 0 || compute_left_ > item.tail;
  }
  // The next read ahead has room, and is for no step that an earlier read still waits for.
  bool reading_ahead() const {
    return reads_done_ - reads_used_ < streamed_.size() &&
           held_ + items_[streamed_[next_]].room <= conditions_.window_bytes;
  }

  void advance() {
    const bool compute = computing(), demand = demand_left_ > 0, read = demand || reading_ahead();
    CHECK((compute || read) == true);
    const bool both = compute && read && !items_[item_].elsewhere;
    const double compute_speed = both ? conditions_.compute_while_reading : 1;
    const double read_speed = both ? conditions_.read_while_computing : 1;
    // Computing may run to the end of the item, or to its tail while a demanded read is under way.
    const double stop = demand ? items_[item_].tail : 0;
    const double compute_time = compute ? (compute_left_ - stop) / compute_speed : kNever;
    const double read_time = read ? (demand ? demand_left_ : read_left_) / read_speed : kNever;
    const double step = std::min(compute_time, read_time);
    now_.seconds += step;
    if (!compute) now_.waiting += step;
    if (!read) now_.idle += step;
    if (compute) compute_left_ = compute_time <= step ? stop : compute_left_ - step * compute_speed;
    if (read) {
      double& left = demand ? demand_left_ : read_left_;
      left = read_time <= step ? 0 : left - step * read_speed;
      if (!demand && left <= 0) finish_read();
    }
    if (compute && compute_left_ <= 0 && demand_left_ <= 0) finish_item();
  }

  void finish_read() {
    held_ += items_[streamed_[next_]].room;
    ++reads_done_;
    next_ = (next_ + 1) % streamed_.size();
    read_left_ = items_[streamed_[next_]].read;
  }

  void finish_item() {
    if (ahead(items_[item_])) {
      ++reads_used_;
      held_ -= items_[item_].room;
    }
    if (++item_ == items_.size()) {
      item_ = 0;
      ++passes_;
    }
    begin_item();
  }

  const std::span<const PassItem> items_;
  const PassConditions conditions_;
  std::vector<size_t> streamed_;
  PassTime now_;
  uint32_t passes_ = 0;
  size_t item_ = 0;
  double compute_left_ = 0, demand_left_ = 0;
  size_t next_ = 0;  // of streamed_, being read
  double read_left_ = 0;
  uint64_t held_ = 0;  // bytes of the window that are read and not yet let go
  uint64_t reads_done_ = 0, reads_used_ = 0;
};

}  // namespace

double least_pass_seconds(double compute, double read, double elsewhere, double read_elsewhere,
                          const PassConditions& conditions) {
  const double left = std::max(0.0, read - std::min(read_elsewhere, elsewhere));
  // Every second of both running does more than a second's work alone, if the shares sum to more than one.
  const double gain = std::max(0.0, conditions.compute_while_reading + conditions.read_while_computing - 1);
  const double both =
      std::min(compute / conditions.compute_while_reading, left / conditions.read_while_computing);
  return elsewhere + std::max({compute, left, compute + (left - gain * both)});
}

PassTime pass_time(std::span<const PassItem> items, const PassConditions& conditions) {
  double compute = 0, read = 0, elsewhere = 0;
  for (const PassItem& item : items) {
    (item.elsewhere ? elsewhere : compute) += item.compute;
    read += item.read;
  }
  if (read <= 0 || compute + elsewhere <= 0) return {compute + elsewhere + read, read, compute + elsewhere};
  Simulation simulation(items, conditions);
  // The first passes fill the window; the difference of later ones is what every further one takes.
  constexpr uint32_t kFill = 2, kCounted = 2;
  const PassTime start = simulation.run(kFill), end = simulation.run(kFill + kCounted);
  return {std::max((end.seconds - start.seconds) / kCounted,
                   least_pass_seconds(compute, read, elsewhere, elsewhere, conditions)),
          (end.waiting - start.waiting) / kCounted, (end.idle - start.idle) / kCounted};
}

}  // namespace caravan
