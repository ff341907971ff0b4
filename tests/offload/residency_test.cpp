#include "offload/residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "offload/pass.h"

namespace caravan {
namespace {

using State = Residency::State;

std::vector<PageCost> layers(size_t count, uint64_t bytes) {
  std::vector<PageCost> pages;
  for (size_t i = 0; i < count; ++i) pages.push_back({bytes, i});
  return pages;
}

TEST(PlanResidency, KeepsEverythingThatFits) {
  const ResidencyPlan plan = plan_residency(layers(8, 10), 80);
  EXPECT_TRUE(plan.all_resident());
  EXPECT_EQ(plan.resident_bytes, 80u);
  EXPECT_EQ(plan.streamed_bytes, 0u);
}

TEST(PlanResidency, RefusesLessThanTwoGroupsNamingTheLeast) {
  EXPECT_EQ(least_residency_bytes(layers(8, 10)), 20u);
  EXPECT_EQ(least_residency_bytes(layers(1, 10)), 10u);
  try {
    plan_residency(layers(8, 1 << 20), 2u << 20 >> 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_NE(error.message().find("2 MiB"), std::string::npos) << error.message();
  }
}

// Whatever the sizes: areas sum to the limit, the window holds any two streamed pages, more memory never
// means more reading, and what is resident lies evenly.
TEST(PlanResidency, HoldsForRandomPages) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRandom random(seed);
    std::vector<PageCost> pages;
    const size_t count = 1 + random.below(40);
    for (size_t i = 0; i < count; ++i) pages.push_back({1 + random.below(1000), i});
    if (random.below(2))
      for (size_t i = 0; i < 16; ++i) pages.push_back({50, 2 * i, PageUse::kChosen, uint32_t(i / 4)});
    uint64_t all = 0;
    for (const PageCost& page : pages) all += page.bytes;
    uint64_t streamed_before = all;
    const uint64_t least = least_residency_bytes(pages);
    for (uint64_t limit = least; limit <= all; limit += std::max<uint64_t>(1, (all - least) / 7)) {
      const ResidencyPlan plan = plan_residency(pages, limit);
      uint64_t resident = 0, streamed = 0, largest = 0;
      for (size_t i = 0; i < pages.size(); ++i) {
        if (plan.resident[i]) resident += pages[i].bytes;
        if (plan.resident[i] || pages[i].use == PageUse::kChosen) continue;
        streamed += pages[i].bytes;
        largest = std::max(largest, pages[i].bytes);
      }
      ASSERT_EQ(resident, plan.resident_bytes);
      ASSERT_EQ(streamed, plan.streamed_bytes);
      ASSERT_LE(plan.resident_bytes + plan.window_bytes + plan.on_demand_bytes, limit);
      ASSERT_GE(plan.window_bytes, 2 * largest) << "seed " << seed;
      ASSERT_LE(streamed, streamed_before + 1000) << "seed " << seed;  // a page more or less by its size
      streamed_before = streamed;
    }
  }
}

// The share of reading for which no step waits, when it takes `ratio` of the time of computing.
double hidden(const std::vector<PageCost>& pages, const ResidencyPlan& plan, double ratio) {
  double all = 0;
  for (const PageCost& page : pages) all += static_cast<double>(page.bytes);
  const double read = ratio * all / static_cast<double>(plan.streamed_bytes);
  std::vector<PassItem> items;
  for (size_t i = 0; i < pages.size(); ++i) {
    PassItem& item = items.emplace_back();
    item.compute = static_cast<double>(pages[i].bytes);
    if (plan.resident[i]) continue;
    item.read = read * item.compute;
    item.room = pages[i].bytes;
  }
  return 1 - pass_time(items, {plan.window_bytes, 1, 1}).waiting / (ratio * all);
}

// The window is wide enough for a disk that takes up to as long as computing, and no wider: layers of two
// uneven groups and an output matrix, with room for three of the largest or more.
TEST(PlanResidency, HidesReadingThatIsTheShorterWithTheLeastWindow) {
  SeededRandom random(5);
  int wider = 0, narrow = 0;
  for (int round = 0; round < 300; ++round) {
    const uint64_t attention = 1 + random.below(1000), feed_forward = 1 + random.below(3000);
    std::vector<PageCost> pages;
    for (uint64_t layer = 0; layer < 4 + random.below(40); ++layer) {
      pages.push_back({attention, 2 * layer});
      pages.push_back({feed_forward, 2 * layer + 1});
    }
    pages.push_back({1 + random.below(4000), 1000});
    uint64_t all = 0, largest = 0;
    for (const PageCost& page : pages) all += page.bytes, largest = std::max(largest, page.bytes);
    if (all <= 3 * largest) continue;
    const ResidencyPlan plan = plan_residency(pages, 3 * largest + random.below(all - 3 * largest));
    for (const double ratio : {0.3, 0.7, 0.9, 1.0})
      EXPECT_GE(hidden(pages, plan, ratio), 0.9) << "round " << round << " at " << ratio;
    uint64_t moving = 0;  // the largest that is not kept
    for (size_t i = 0; i < pages.size(); ++i)
      if (!plan.resident[i]) moving = std::max(moving, pages[i].bytes);
    (plan.window_bytes > 2 * moving + moving / 4 ? wider : narrow) += 1;
  }
  EXPECT_GT(wider, 20);
  EXPECT_GT(narrow, 50);
}

TEST(PlanResidency, SpreadsResidentPagesEvenly) {
  const ResidencyPlan plan = plan_residency(layers(40, 10), 230);
  size_t longest = 0, run = 0;
  for (const bool resident : plan.resident) longest = std::max(longest, run = resident ? run + 1 : 0);
  EXPECT_LE(longest, 2u);
}

// The residency against a plain model of what must hold, under random passes, scans, failures and limits.
class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), residency_(1 + random_.below(300)) {
    const size_t count = 3 + random_.below(12);
    for (size_t i = 0; i < count; ++i) pages_.push_back({1 + random_.below(100), 2 * i});
    if (random_.below(2))
      for (uint32_t i = 0; i < 24; ++i) pages_.push_back({20, 2 * (i / 8) + 1, PageUse::kChosen, i / 8});
    for (const PageCost& page : pages_) all_ += page.bytes;
    change_limit();
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      for (uint32_t page = 0; page < pages_.size(); ++page)
        if (pages_[page].use == PageUse::kWhole) use(page), use_experts();
      if (random_.below(3) == 0) change_limit();
    }
    drain();
    for (uint32_t page = 0; page < pages_.size(); ++page) ASSERT_EQ(residency_.pins(page), 0u);
  }

 private:
  void change_limit() {
    const uint64_t limit = least_residency_bytes(pages_) + random_.below(all_);
    residency_.set_pages(pages_, plan_residency(pages_, limit), limit);
    obey();
    while (residency_.used_bytes() > residency_.limit_bytes()) ASSERT_TRUE(finish_one());
  }
  void obey() {
    const Residency::Actions actions = residency_.next();
    for (const uint32_t page : actions.evict) {
      ASSERT_EQ(residency_.pins(page), 0u) << "a page in use was evicted";
      ASSERT_EQ(loaded_.erase(page), 1u);
    }
    for (const uint32_t page : actions.read) {
      ASSERT_FALSE(loaded_.count(page));
      ASSERT_TRUE(reading_.insert(page).second);
    }
    uint64_t used = 0;
    for (const auto* set : {&loaded_, &reading_})
      for (const uint32_t page : *set) used += pages_[page].bytes;
    ASSERT_EQ(used, residency_.used_bytes());
    if (!actions.read.empty()) {
      ASSERT_LE(used, residency_.limit_bytes());
    }
  }
  bool finish_one() {
    if (reading_.empty()) return false;
    auto at = reading_.begin();
    std::advance(at, random_.below(reading_.size()));
    const uint32_t page = *at;
    reading_.erase(at);
    if (random_.below(20) == 0) {
      residency_.failed(page);
      failed_.insert(page);
    } else {
      residency_.loaded(page);
      loaded_.insert(page);
    }
    obey();
    return true;
  }
  void use(uint32_t page) {
    failed_.erase(page);
    residency_.acquire(page);
    obey();
    while (!loaded_.count(page) && !failed_.count(page))
      ASSERT_TRUE(finish_one()) << "nothing is read, and page " << page << " is waited for";
    for (uint64_t i = random_.below(3); i > 0; --i) finish_one();
    if (loaded_.count(page)) {
      ASSERT_EQ(residency_.state(page), State::kLoaded);
    }
    residency_.release(page);
    obey();
  }
  void use_experts() {
    std::vector<uint32_t> wanted;
    const uint32_t shelf = static_cast<uint32_t>(random_.below(3));
    for (uint32_t page = 0; page < pages_.size(); ++page)
      if (pages_[page].use == PageUse::kChosen && pages_[page].shelf == shelf && random_.below(3) == 0)
        wanted.push_back(page);
    if (wanted.empty()) return;
    residency_.want(wanted, wanted.size() > 5);
    obey();
    for (const uint32_t page : wanted) use(page);
  }
  void drain() {
    while (finish_one()) {
    }
  }

  SeededRandom random_;
  Residency residency_;
  std::vector<PageCost> pages_;
  uint64_t all_ = 0;
  std::set<uint32_t> loaded_, reading_, failed_;
};

TEST(Residency, NeverExceedsItsLimitNeverEvictsWhatIsUsedAndNeverStopsReading) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation simulation(seed);
    simulation.run(12);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace caravan
