#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "base/random.h"
#include "offload/residency.h"

namespace caravan {

// A loop over shelves of chosen pages, on a machine whose time is counted, not passed.

inline constexpr uint64_t kBytes = 10;  // of a page

struct ScanShape {
  uint32_t shelves = 8;
  uint32_t pages = 24;       // of a shelf
  uint64_t room = 0;         // pages
  double attention = 6;      // seconds before each choice
  double compute = 1;        // of a page
  double read = 1;           // of a page
  uint32_t fail_one_in = 0;  // reads
};

// What the stage loop does, and one disk that reads in the order asked. Whatever the residency decides is
// held against its promises.
class ScanLoop {
 public:
  explicit ScanLoop(const ScanShape& shape, uint64_t seed = 1)
      : shape_(shape), random_(seed), residency_(1 << 20) {
    for (uint32_t i = 0; i < shape.shelves * shape.pages; ++i)
      pages_.push_back({kBytes, i / shape.pages, PageUse::kChosen, i / shape.pages});
    set_room(shape.room);
  }

  void set_room(uint64_t pages) {
    const bool was_changing = std::exchange(changing_, true);  // what was read ahead may have to go
    shape_.room = pages;
    residency_.set_pages(pages_, plan_residency(pages_, pages * kBytes), pages * kBytes);
    obey();
    while (residency_.used_bytes() > residency_.limit_bytes()) finish_read();
    changing_ = was_changing;
  }

  // One layer: what comes before the choice, and the pages chosen of the shelf.
  void layer(uint32_t shelf, const std::vector<uint32_t>& chosen, bool scan) {
    if (shelf <= shelf_) ahead_.clear();  // another pass
    shelf_ = shelf;
    compute(shape_.attention);
    std::vector<uint32_t> wanted;
    for (uint32_t one : chosen) wanted.push_back(shelf * shape_.pages + one);
    std::stable_sort(wanted.begin(), wanted.end(), [&](uint32_t a, uint32_t b) {
      return residency_.readiness(a) < residency_.readiness(b);
    });
    std::erase_if(ahead_, [&](uint32_t page) {
      return !scan || (pages_[page].shelf <= shelf && std::count(wanted.begin(), wanted.end(), page) == 0);
    });
    residency_.want(wanted, scan);
    obey();
    for (uint32_t page : wanted) use(page);
    std::erase_if(ahead_, [&](uint32_t page) { return pages_[page].shelf <= shelf; });
  }
  void scan() {
    for (uint32_t shelf = 0; shelf < shape_.shelves; ++shelf) layer(shelf, first(shape_.pages), true);
  }
  void decode(const std::vector<uint32_t>& chosen) {
    for (uint32_t shelf = 0; shelf < shape_.shelves; ++shelf) layer(shelf, chosen, false);
  }
  static std::vector<uint32_t> first(uint32_t count) {
    std::vector<uint32_t> pages(count);
    std::iota(pages.begin(), pages.end(), 0u);
    return pages;
  }

  struct Count {
    uint64_t reads = 0;
    double reading = 0, waiting = 0;
    size_t under_way = 0;  // at most
    double hidden() const { return 1 - waiting / reading; }
  };
  Count take_count() { return std::exchange(count_, {}); }
  uint64_t in_memory(uint32_t shelf) const {
    uint64_t count = 0;
    for (uint32_t page = 0; page < shape_.pages; ++page)
      count += residency_.state(shelf * shape_.pages + page) == Residency::State::kLoaded;
    return count;
  }
  uint64_t asked_for(uint32_t shelf) const {  // read, or being read
    uint64_t count = 0;
    for (uint32_t page = 0; page < shape_.pages; ++page)
      count += residency_.state(shelf * shape_.pages + page) != Residency::State::kAbsent;
    return count;
  }
  uint64_t passing() const { return passing_bytes(pages_, residency_.plan().on_demand_bytes) / kBytes; }
  uint64_t most_ahead() const { return most_ahead_; }
  void compute(double seconds) {
    while (!queue_.empty() && read_left_ <= seconds) {
      seconds -= read_left_;
      finish_read();
    }
    if (queue_.empty()) return;
    read_left_ -= seconds;
    count_.reading += seconds;
  }
  void expect_nothing_held() {
    while (!queue_.empty()) finish_read();
    for (uint32_t page = 0; page < pages_.size(); ++page) ASSERT_EQ(residency_.pins(page), 0u);
  }

 private:
  void use(uint32_t page) {
    failed_.erase(page);
    residency_.acquire(page);
    obey();
    while (residency_.state(page) != Residency::State::kLoaded && !failed_.count(page)) {
      ASSERT_FALSE(queue_.empty()) << "nothing is read, and page " << page << " is waited for";
      count_.waiting += read_left_;
      finish_read();
    }
    ahead_.erase(page);
    compute(shape_.compute);
    residency_.release(page);
    obey();
  }

  void obey() {
    const Residency::Actions actions = residency_.next();
    for (const uint32_t page : actions.evict) {
      ASSERT_EQ(residency_.pins(page), 0u);
      // Unless there is nothing else for one that failed, and that is now waited for.
      const bool must = changing_ || shape_.fail_one_in > 0;
      ASSERT_TRUE(must || !ahead_.count(page)) << "page " << page << " was read ahead and not used";
      ahead_.erase(page);
    }
    for (const uint32_t page : actions.read) {
      if (queue_.empty()) read_left_ = shape_.read;
      queue_.push_back(page);
      if (pages_[page].shelf != shelf_) ahead_.insert(page);
      ++count_.reads;
    }
    most_ahead_ = std::max<uint64_t>(most_ahead_, ahead_.size());
    count_.under_way = std::max(count_.under_way, queue_.size());
    if (!actions.read.empty()) {
      ASSERT_LE(residency_.used_bytes(), residency_.limit_bytes());
    }
  }

  void finish_read() {
    ASSERT_FALSE(queue_.empty());
    count_.reading += read_left_;
    const uint32_t page = queue_.front();
    queue_.pop_front();
    read_left_ = shape_.read;
    if (shape_.fail_one_in > 0 && random_.below(shape_.fail_one_in) == 0) {
      residency_.failed(page);
      failed_.insert(page);
      ahead_.erase(page);
    } else {
      residency_.loaded(page);
    }
    obey();
  }

  ScanShape shape_;
  SeededRandom random_;
  Residency residency_;
  std::vector<PageCost> pages_;
  std::deque<uint32_t> queue_;
  double read_left_ = 0;
  uint32_t shelf_ = 0;
  bool changing_ = false;
  std::set<uint32_t> ahead_, failed_;  // `ahead_`: read before its shelf's turn, which is not over
  uint64_t most_ahead_ = 0;
  Count count_;
};

}  // namespace caravan
