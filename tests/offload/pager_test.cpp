#include "offload/pager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/offload/faulty_source.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

std::shared_ptr<const Source> source_of(size_t bytes) {
  return std::make_shared<MemorySource>(std::vector<std::vector<std::byte>>{pattern(bytes)});
}

// Pages of these sizes, side by side, in one file.
std::vector<PageSpec> pages_of(const std::vector<uint64_t>& sizes) {
  std::vector<PageSpec> pages;
  uint64_t offset = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const uint64_t half = sizes[i] / 2;
    pages.push_back(
        {"page " + std::to_string(i), {{0, offset, half}, {0, offset + half, sizes[i] - half}}, i});
    offset += sizes[i];
  }
  return pages;
}

std::string pattern_file(const std::string& path, size_t size) {
  const std::vector<std::byte> bytes = pattern(size);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return path;
}

class PagerTest : public testing::Test {
 protected:
  std::unique_ptr<Pager> make(std::shared_ptr<const Source> source, PagerOptions options = {}) {
    return std::make_unique<Pager>(std::move(source), clock_, nullptr, options);
  }
  // Every page of a pass has the file's bytes.
  static void expect_pass(Pager& pager, const std::vector<PageId>& ids, const std::vector<PageSpec>& pages) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const Lease lease = pager.acquire(ids[i]);
      for (size_t e = 0; e < pages[i].extents.size(); ++e) {
        const auto view = lease.extent(e);
        ASSERT_EQ(view.size(), pages[i].extents[e].length);
        for (size_t at = 0; at < view.size(); at += 97)
          ASSERT_EQ(view[at], pattern_byte(pages[i].extents[e].offset + at)) << "page " << i;
      }
    }
  }
  SystemClock clock_;
};

TEST_F(PagerTest, LeasesGiveTheBytesOfTheirExtents) {
  const auto pager = make(source_of(100));
  const auto ids = pager->add({{"a", {{0, 10, 5}, {0, 50, 2}}}, {"b", {{0, 99, 1}}}});
  const Lease lease = pager->acquire(ids[0]);
  EXPECT_EQ(lease.extent(0).size(), 5u);
  EXPECT_EQ(lease.extent(0)[0], pattern_byte(10));
  EXPECT_EQ(lease.extent(1)[1], pattern_byte(51));
  EXPECT_EQ(pager->page_bytes(ids[0]), 7u);
  EXPECT_EQ(pager->counters().leases.value(), 1u);
  EXPECT_TRUE(pager->mapped());
}

TEST_F(PagerTest, RefusesExtentsPastTheEnd) {
  const auto pager = make(source_of(100));
  EXPECT_THROW(pager->add({{"a", {{0, 99, 2}}}}), Error);
  EXPECT_THROW(pager->add({{"a", {{0, UINT64_MAX, 2}}}}), Error);
  EXPECT_THROW(pager->add({{"a", {{1, 0, 1}}}}), Error);
  EXPECT_EQ(pager->total_bytes(), 0u);
}

TEST_F(PagerTest, EndsTheProcessWhenALeaseOutlivesIt) {
  auto outlive = [&] {
    Lease lease;
    const auto pager = make(source_of(8));
    lease = pager->acquire(pager->add({{"a", {{0, 0, 8}}}})[0]);
  };
  EXPECT_DEATH(outlive(), "pins");
}

TEST_F(PagerTest, PreloadReadsEveryByteAndStopsWhenTold) {
  const auto pager = make(source_of(40 << 20));
  pager->add({{"a", {{0, 0, 20 << 20}}}, {"b", {{0, 20 << 20, 20 << 20}}}});
  uint64_t bytes = 0;
  pager->preload([&](uint64_t count) { return bytes += count, true; });
  EXPECT_EQ(bytes, 40u << 20);
  int calls = 0;
  pager->preload([&](uint64_t) { return ++calls < 2; });
  EXPECT_EQ(calls, 2);
}

// Every way of reading gives the same bytes, in passes, under the least limit and others.
TEST_F(PagerTest, StreamsWhatDoesNotFit) {
  const std::vector<uint64_t> sizes = {3000, 70000, 1 << 20, 3 << 20, 12345, 2 << 20, 999, 1 << 20};
  const auto pages = pages_of(sizes);
  const uint64_t total = std::accumulate(sizes.begin(), sizes.end(), uint64_t{0});
  const test::TemporaryFolder folder;
  const std::string path = pattern_file(folder.path() + "/weights", total);
  const std::vector<std::shared_ptr<const Source>> sources = {
      std::make_shared<FileSource>(std::vector<std::string>{path}), source_of(total)};
  for (const auto& source : sources)
    for (const bool uring : {true, false}) {
      const auto pager = make(source, {.reader = {.allow_uring = uring}});
      const auto ids = pager->add(pages);
      const uint64_t least = pager->least_bytes();
      for (const uint64_t limit : {least, least + (1 << 20), total - 1, total, least}) {
        pager->set_limit(Bytes{limit});
        EXPECT_EQ(pager->mapped(), limit >= total);
        for (int pass = 0; pass < 3; ++pass) expect_pass(*pager, ids, pages);
      }
      EXPECT_GT(pager->counters().bytes_read.value(), total);
      EXPECT_THROW(pager->set_limit(Bytes{least - kDirectAlignment}), Error);
      expect_pass(*pager, ids, pages);
    }
}

TEST_F(PagerTest, ReadsOnlyWhatIsNotResidentOnceAPass) {
  const std::vector<uint64_t> sizes(16, 1 << 20);
  const auto pages = pages_of(sizes);
  const auto pager = make(source_of(16 << 20), {.limit = Bytes{8 << 20}});
  const auto ids = pager->add(pages);
  const ResidencyPlan plan = pager->plan();
  EXPECT_GT(plan.resident_bytes, 0u);
  pager->preload([](uint64_t) { return true; });
  expect_pass(*pager, ids, pages);
  const uint64_t before = pager->counters().bytes_read.value();
  for (int pass = 0; pass < 4; ++pass) expect_pass(*pager, ids, pages);
  const uint64_t read = pager->counters().bytes_read.value() - before;
  EXPECT_LE(read, 4 * plan.streamed_bytes + plan.window_bytes);
  EXPECT_GE(read + plan.window_bytes, 4 * plan.streamed_bytes);
}

TEST_F(PagerTest, PagesComeAndGo) {
  const auto pages = pages_of({1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20});
  const auto pager = make(source_of(6 << 20), {.limit = Bytes{3 << 20}});
  const auto first = pager->add({pages.begin(), pages.begin() + 3});
  EXPECT_TRUE(pager->mapped());
  const auto second = pager->add({pages.begin() + 3, pages.end()});
  EXPECT_FALSE(pager->mapped());
  expect_pass(*pager, first, pages);
  pager->remove(first);
  EXPECT_TRUE(pager->mapped());
  expect_pass(*pager, second, {pages.begin() + 3, pages.end()});
  EXPECT_EQ(pager->add({pages[0]})[0], first[0]) << "an empty place is used again";
}

// Bytes of files that lie in this process's memory.
uint64_t resident_of_files() {
  std::ifstream status("/proc/self/status");
  std::string key;
  uint64_t kib = 0;
  while (status >> key)
    if (key == "RssFile:") status >> kib;
  return kib << 10;
}

// Memory that no budget knows any more: of pages that were mapped and went, as a layer that is measured does.
TEST_F(PagerTest, MappedPagesThatWentLeaveTheMemoryWhenOthersCome) {
  constexpr uint64_t kPage = 8 << 20, kSlack = 1 << 20;
  const test::TemporaryFolder folder;
  const auto pages = pages_of({kPage, kPage, kPage, kPage});
  const auto source = std::make_shared<FileSource>(
      std::vector<std::string>{pattern_file(folder.path() + "/weights", 4 * kPage)});
  const auto read = [](Pager& pager) { pager.preload([](uint64_t) { return true; }); };
  for (const bool streamed : {true, false}) {
    const auto pager = make(source, {.limit = Bytes{streamed ? 7 * kPage / 2 : 4 * kPage}});
    const uint64_t before = resident_of_files();
    const auto first = pager->add({pages[0], pages[1]});
    read(*pager);
    ASSERT_GE(resident_of_files(), before + 2 * kPage - kSlack);
    pager->remove(first);
    pager->add(streamed ? pages : std::vector<PageSpec>(pages.begin() + 1, pages.begin() + 3));
    ASSERT_EQ(pager->mapped(), !streamed);
    const uint64_t kept = streamed ? 0 : kPage;
    EXPECT_LE(resident_of_files(), before + kept + kSlack) << "what nobody has any more";
    EXPECT_GE(resident_of_files() + kSlack, before + kept) << "what has come again stays";
    source->let_go();
  }
}

// A chosen page is read when it is asked for, and one that is often asked for stays through a scan.
TEST_F(PagerTest, ExpertsAreReadOnDemandAndScansLeaveTheUsualOnes) {
  auto pages = pages_of(std::vector<uint64_t>(17, 1 << 20));
  for (size_t i = 1; i < pages.size(); ++i) pages[i].use = PageUse::kChosen;
  const auto pager = make(source_of(17 << 20), {.limit = Bytes{9 << 20}});
  const auto ids = pager->add(pages);
  const auto use = [&](const std::vector<size_t>& experts, bool scan) {
    const uint64_t before = pager->counters().pages_read.value();
    std::vector<PageId> wanted;
    for (size_t expert : experts) wanted.push_back(ids[expert]);
    pager->want(wanted, scan);
    for (size_t expert : experts) expect_pass(*pager, {ids[expert]}, {pages[expert]});
    return pager->counters().pages_read.value() - before;
  };
  const std::vector<size_t> usual = {2, 3, 5, 7};
  for (int i = 0; i < 5; ++i) use(usual, false);
  EXPECT_EQ(use(usual, false), 0u);
  std::vector<size_t> all(16);
  std::iota(all.begin(), all.end(), size_t{1});
  for (int i = 0; i < 3; ++i) EXPECT_GE(use(all, true), 8u);
  EXPECT_EQ(use(usual, false), 0u) << "the scan pushed out what is used all the time";
}

// A scan that has chosen all of a shelf has the next one's read meanwhile, so that its leases wait for
// nothing.
TEST_F(PagerTest, ScansFindTheNextShelfReadBeforeTheyAskForIt) {
  auto pages = pages_of(std::vector<uint64_t>(17, 64 << 10));
  for (size_t i = 1; i < pages.size(); ++i)
    pages[i].use = PageUse::kChosen, pages[i].shelf = static_cast<uint32_t>((i - 1) / 4);
  const auto faults = std::make_shared<FaultySource>(17 * (64 << 10));
  faults->slow_down(std::chrono::microseconds(200));
  const auto pager = make(faults, {.limit = Bytes{13 * (64 << 10)}, .may_map = false});
  const auto ids = pager->add(pages);
  for (int pass = 0; pass < 3; ++pass)
    for (size_t shelf = 0; shelf < 4; ++shelf) {
      const size_t first = 1 + 4 * shelf;
      if (shelf > 0) {
        const auto there = [&](PageId id) { return pager->readiness(id) <= Residency::Readiness::kKept; };
        const Time give_up = clock_.now() + std::chrono::seconds(20);
        // As during attention, which asks for none of them.
        while (!std::all_of(ids.begin() + static_cast<long>(first),
                            ids.begin() + static_cast<long>(first) + 4, there)) {
          ASSERT_LT(clock_.now(), give_up) << "pass " << pass << ", shelf " << shelf << " is not read";
          std::this_thread::yield();
        }
      }
      const uint64_t waited = pager->counters().waited_ns.value();
      pager->want({ids.data() + first, 4}, true);
      for (size_t i = first; i < first + 4; ++i) expect_pass(*pager, {ids[i]}, {pages[i]});
      if (shelf > 0) {
        EXPECT_EQ(pager->counters().waited_ns.value(), waited) << "pass " << pass << ", shelf " << shelf;
      }
    }
}

// A read that fails is an error of the lease that needs it, and nothing else's; the next one tries again.
TEST_F(PagerTest, FailedReadsAreTriedAgain) {
  const auto pages = pages_of(std::vector<uint64_t>(8, 1 << 20));
  const auto faults = std::make_shared<FaultySource>(8 << 20);
  const auto pager = make(faults, {.limit = Bytes{4 << 20}, .may_map = false});
  faults->fail_at(5 << 20);
  const auto ids = pager->add(pages);
  for (int pass = 0; pass < 2; ++pass)
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i == 5) {
        EXPECT_THROW(pager->acquire(ids[i]), Error);
      } else {
        expect_pass(*pager, {ids[i]}, {pages[i]});
      }
    }
  faults->fail_at(std::nullopt);
  expect_pass(*pager, ids, pages);
}

// Also where the next read begins before the last one has ended.
TEST_F(PagerTest, TheTimeOfReadingIsCountedWhileItGoesOn) {
  const std::vector<uint64_t> sizes(12, 1 << 20);
  const auto pages = pages_of(sizes);
  const auto pager = make(source_of(12 << 20));
  const auto ids = pager->add(pages);
  pager->set_limit(Bytes{pager->least_bytes()});
  for (int pass = 0; pass < 10; ++pass) expect_pass(*pager, ids, pages);
  const PagerCounters& counters = pager->counters();
  EXPECT_GT(counters.waited_ns.value(), 0u);
  EXPECT_GE(counters.read_busy_ns.value(), counters.waited_ns.value() / 2) << "what is waited for is read";
}

TEST_F(PagerTest, ReservesWhatItHolds) {
  Budget budget("ram", Bytes{6 << 20});
  Pager pager(source_of(8 << 20), clock_, &budget, {.limit = Bytes{5 << 20}});
  const auto pages = pages_of(std::vector<uint64_t>(8, 1 << 20));
  const auto few = pager.add({pages.begin(), pages.begin() + 2});
  EXPECT_EQ(budget.used(MemoryTag::kWeights), Bytes{2 << 20});
  pager.add({pages.begin() + 2, pages.end()});
  EXPECT_EQ(budget.used(MemoryTag::kWeights), Bytes{5 << 20});
  EXPECT_THROW(pager.set_limit(Bytes{7 << 20}), Error);
  EXPECT_EQ(budget.used(MemoryTag::kWeights), Bytes{5 << 20});
  pager.set_limit(Bytes{3 << 20});
  EXPECT_EQ(budget.used(MemoryTag::kWeights), Bytes{3 << 20});
}

}  // namespace
}  // namespace caravan
