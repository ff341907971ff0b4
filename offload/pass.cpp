#include "offload/pass.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/check.h"

namespace caravan {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Reads of some of the steps, in their order, through a window.
struct Reads {
  std::vector<size_t> items;
  uint64_t window = 0;
  size_t next = 0;    // of items, being read
  double left = 0;    // of it, seconds
  uint64_t held = 0;  // bytes of the window that are read and not yet let go
  uint64_t done = 0, used = 0;
};

class Simulation {
 public:
  Simulation(std::span<const PassItem> items, const PassConditions& conditions)
      : items_(items), conditions_(conditions) {
    in_order_.window = conditions.window_bytes;
    chosen_.window = conditions.chosen_bytes;
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].read <= 0) continue;
      Reads& reads = reads_of(items[i]);
      CHECK(items[i].room <= reads.window);
      reads.items.push_back(i);
    }
    for (Reads* reads : {&in_order_, &chosen_})
      if (!reads->items.empty()) reads->left = items[reads->items[0]].read;
    compute_left_ = items_[0].compute;
  }

  // Until `passes` passes are done; the time from the beginning.
  PassTime run(uint32_t passes) {
    while (passes_ < passes) advance();
    return now_;
  }

 private:
  Reads& reads_of(const PassItem& item) { return item.chosen ? chosen_ : in_order_; }

  bool computing() {
    const PassItem& item = items_[item_];
    const Reads& reads = reads_of(item);
    return item.read <= 0 || reads.done > reads.used;
  }
  // The next one has room, and is for no step that an earlier read still waits for.
  bool has_room(const Reads& reads) const {
    return reads.done - reads.used < reads.items.size() &&
           reads.held + items_[reads.items[reads.next]].room <= reads.window;
  }
  // The loop has come to this step of the pass that the next chosen one is for.
  bool has_reached(uint32_t step) const {
    const uint64_t pass = chosen_.done / chosen_.items.size();
    return passes_ > pass || (passes_ == pass && item_ >= step);
  }
  Reads* next_read() {
    const bool may_choose = !chosen_.items.empty() && has_room(chosen_);
    const PassItem* chosen = may_choose ? &items_[chosen_.items[chosen_.next]] : nullptr;
    if (chosen && has_reached(chosen->chosen_at)) return &chosen_;
    if (has_room(in_order_)) return &in_order_;
    return chosen && has_reached(chosen->read_from) ? &chosen_ : nullptr;
  }

  void advance() {
    const bool compute = computing();
    Reads* const read = next_read();
    CHECK((compute || read != nullptr) == true);
    const bool both = compute && read && !items_[item_].elsewhere;
    const double compute_speed = both ? conditions_.compute_while_reading : 1;
    const double read_speed = both ? conditions_.read_while_computing : 1;
    const double compute_time = compute ? compute_left_ / compute_speed : kNever;
    const double read_time = read ? read->left / read_speed : kNever;
    const double step = std::min(compute_time, read_time);
    now_.seconds += step;
    if (!compute) now_.waiting += step;
    if (!read) now_.idle += step;
    if (compute) compute_left_ -= step * compute_speed;
    if (read) read->left -= step * read_speed;
    if (read && read_time <= step) finish_read(*read);
    if (compute && compute_time <= step) finish_item();
  }

  void finish_read(Reads& reads) {
    reads.held += items_[reads.items[reads.next]].room;
    ++reads.done;
    reads.next = (reads.next + 1) % reads.items.size();
    reads.left = items_[reads.items[reads.next]].read;
  }

  void finish_item() {
    const PassItem& item = items_[item_];
    if (item.read > 0) {
      ++reads_of(item).used;
      reads_of(item).held -= item.room;
    }
    if (++item_ == items_.size()) {
      item_ = 0;
      ++passes_;
    }
    compute_left_ = items_[item_].compute;
  }

  const std::span<const PassItem> items_;
  const PassConditions conditions_;
  Reads in_order_, chosen_;
  PassTime now_;
  uint32_t passes_ = 0;
  size_t item_ = 0;
  double compute_left_ = 0;
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
