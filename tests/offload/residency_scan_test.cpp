// Chosen pages under scans: a loop over shelves on a machine whose time is counted, not passed.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <set>
#include <vector>

#include "base/random.h"
#include "offload/residency.h"

namespace caravan {
namespace {

constexpr uint64_t kBytes = 10;  // of a page

struct Shape {
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
class Loop {
 public:
  explicit Loop(const Shape& shape, uint64_t seed = 1) : shape_(shape), random_(seed), residency_(1 << 20) {
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
  const Residency& residency() const { return residency_; }
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

  Shape shape_;
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

// The disk does not rest while a layer's attention runs: of reading that is the shorter nine tenths are
// hidden, where the room holds what a layer misses or so.
TEST(ResidencyScans, HideReadingThatIsTheShorter) {
  for (const uint64_t room : {48u, 64u, 128u}) {
    Shape shape{.room = room, .attention = 18};
    shape.read = 0.9 * (shape.attention + 24) / 24;  // were all of a shelf missed
    Loop loop(shape);
    loop.scan(), loop.scan();
    loop.take_count();
    loop.scan(), loop.scan();
    const Loop::Count count = loop.take_count();
    EXPECT_GE(count.hidden(), 0.9) << "room for " << room;
  }
}

// A cycle that is larger than the room hits what stays of it, where evicting the least recently used would
// hit nothing.
TEST(ResidencyScans, ThatFollowOneAnotherKeepAFixedSetOfEveryShelf) {
  Loop loop({.room = 96});
  loop.scan(), loop.scan();
  const uint64_t passing = loop.residency().passing_bytes() / kBytes;
  EXPECT_LE(passing, 96u / 3);
  loop.take_count();
  loop.scan();
  EXPECT_LE(loop.take_count().reads, 8 * (24 - (96 - passing) / 8));
  for (uint32_t shelf = 0; shelf < 8; ++shelf) EXPECT_GE(loop.in_memory(shelf), (96 - passing) / 8) << shelf;
}

TEST(ResidencyScans, ReadSeveralPagesAtATimeAlsoWhereTheRoomIsSmall) {
  for (const uint64_t room : {2u, 3u, 8u, 12u, 24u}) {
    Loop loop({.room = room, .read = 2});
    loop.scan();
    loop.take_count();
    loop.scan();
    const Loop::Count count = loop.take_count();
    EXPECT_GE(count.under_way, std::max<uint64_t>(2, room / 3) - 1) << "room for " << room;
    if (room > 2) {
      EXPECT_GE(count.hidden(), 0.3) << "room for " << room;
    }
  }
}

// Nobody's choice is known while one token is computed, or where a scan chooses few.
TEST(ResidencyScans, NothingIsReadAheadOfASparseChoice) {
  Loop loop({.room = 64});
  for (int i = 0; i < 3; ++i) {
    loop.decode({1, 5, 9});
    for (uint32_t shelf = 0; shelf < 8; ++shelf) loop.layer(shelf, Loop::first(20), true);
  }
  EXPECT_EQ(loop.most_ahead(), 0u);
  loop.scan();
  EXPECT_GT(loop.most_ahead(), 0u);
}

// Not beyond the next shelf before all of it is there, and not on into a pass that may be no scan.
TEST(ResidencyScans, ReadAheadShelfByShelfToTheEndOfThePass) {
  Loop loop({.room = 150, .attention = 0, .compute = 0.01});
  loop.layer(0, Loop::first(24), true);
  loop.compute(10.5);
  EXPECT_EQ(loop.in_memory(1), 10u);
  EXPECT_EQ(loop.asked_for(1), 24u);
  EXPECT_EQ(loop.asked_for(2), 0u);
  loop.compute(24);
  EXPECT_EQ(loop.in_memory(1), 24u);
  EXPECT_EQ(loop.in_memory(2), 10u);
  EXPECT_EQ(loop.asked_for(3), 0u);
  loop.layer(7, Loop::first(24), true);
  const uint64_t before = loop.in_memory(0);
  loop.take_count();
  loop.compute(100);
  EXPECT_EQ(loop.in_memory(0), before);
  EXPECT_EQ(loop.take_count().reads, 0u);
}

// What decode uses again and again stays through any number of scans, but for what makes up two pages: one in
// use, one being read. Of what it used once, at most the passing part goes, for several reads at a time.
TEST(ResidencyScans, LeaveWhatDecodeUses) {
  const std::vector<uint32_t> usual = {2, 3, 11, 17, 20, 23};  // of eight shelves, they fill the room
  for (const bool often : {false, true}) {
    SCOPED_TRACE(often ? "used often" : "used once");
    Loop loop({.room = 48});
    for (int i = 0; i < (often ? 20 : 1); ++i) loop.decode(usual);
    const uint64_t passing = loop.residency().passing_bytes() / kBytes;
    EXPECT_GT(passing, 10u);
    loop.take_count();
    for (int i = 0; i < 5; ++i) loop.scan();
    const Loop::Count scans = loop.take_count();
    EXPECT_GE(scans.hidden(), 0.4);
    EXPECT_GE(scans.under_way, often ? 1 : passing - 1);
    loop.decode(usual);
    EXPECT_LE(loop.take_count().reads, often ? 2 : passing);
  }
}

// Pages that were read ahead and then not chosen are in nobody's way.
TEST(ResidencyScans, WrongGuessesGiveWayFirst) {
  Loop loop({.room = 64});
  for (int i = 0; i < 3; ++i) loop.decode({0, 1, 2, 3});  // half of the room
  loop.layer(0, Loop::first(24), true);
  loop.compute(100);
  ASSERT_GT(loop.in_memory(1), 4u);
  loop.layer(1, {0, 1}, true);  // a scan that chooses few after all
  loop.take_count();
  for (int i = 0; i < 8; ++i) loop.layer(3, {4, 5, 6, 7}, false);
  EXPECT_EQ(loop.take_count().reads, 4u);
  loop.decode({0, 1, 2, 3});
  EXPECT_EQ(loop.take_count().reads, 0u) << "a guess outlasted what is used";
}

// Scans of all, of many and of few, decodes, rooms that change, reads that fail: nothing is in memory beyond
// the room, nothing in use or read ahead is evicted, and whoever waits gets his page.
TEST(ResidencyScans, KeepTheirPromisesInAnyMixture) {
  uint64_t ahead = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    SeededRandom random(seed);
    Shape shape{.shelves = 1 + static_cast<uint32_t>(random.below(6)),
                .pages = 2 + static_cast<uint32_t>(random.below(14)),
                .attention = 4 * random.unit(),
                .compute = random.unit(),
                .read = 0.05 + 2 * random.unit(),
                .fail_one_in = random.below(3) == 0 ? 15u : 0};
    const uint64_t all = uint64_t{shape.shelves} * shape.pages;
    const auto room = [&] { return 2 + random.below(random.below(2) ? 4 : all); };
    shape.room = room();
    Loop loop(shape, seed);
    for (int step = 0; step < 12 && !testing::Test::HasFailure(); ++step) {
      const bool scan = random.below(3) > 0;
      const uint64_t of = scan ? 20 : 3;  // a page is left out one in so many times
      for (uint32_t shelf = 0; shelf < shape.shelves; ++shelf) {
        std::vector<uint32_t> chosen;
        for (uint32_t page = 0; page < shape.pages; ++page)
          if ((random.below(of) > 0) == scan) chosen.push_back(page);
        if (chosen.empty()) chosen.push_back(0);
        loop.layer(shelf, chosen, scan);
        if (random.below(40) == 0) break;  // a step that failed
      }
      if (random.below(4) == 0) loop.set_room(room());
    }
    loop.expect_nothing_held();
    ahead += loop.most_ahead();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(ahead, 400u);
}

}  // namespace
}  // namespace caravan
