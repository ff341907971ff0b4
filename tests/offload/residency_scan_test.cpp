// Chosen pages under scans.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"
#include "tests/offload/scan_loop.h"

namespace caravan {
namespace {

using Loop = ScanLoop;
using Shape = ScanShape;

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
  const uint64_t passing = loop.passing();
  EXPECT_LE(passing, 96u / 3);
  loop.take_count();
  loop.scan();
  EXPECT_LE(loop.take_count().reads, 8 * (24 - (96 - passing) / 8));
  for (uint32_t shelf = 0; shelf < 8; ++shelf) EXPECT_GE(loop.in_memory(shelf), (96 - passing) / 8) << shelf;
}

// Scans that choose the same few of each shelf, for which there is room but for some: what lies furthest
// ahead gives way, so that only about those are read again.
TEST(ResidencyScans, ReadLittleMoreThanWhatDoesNotFit) {
  Loop loop({.room = 72});
  const auto scan = [&] {
    for (uint32_t shelf = 0; shelf < 8; ++shelf) loop.layer(shelf, Loop::first(10), true);
  };
  for (int i = 0; i < 4; ++i) scan();
  loop.take_count();
  scan();
  EXPECT_LE(loop.take_count().reads, 80u - 72 + 4);
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

// What decode uses again and again stays through hundreds of scans, but for what makes up two pages: one in
// use, one being read. Of what it used once, at most the passing part goes, for several reads at a time.
TEST(ResidencyScans, LeaveWhatDecodeUses) {
  const std::vector<uint32_t> usual = {2, 3, 11, 17, 20, 23};  // of eight shelves, they fill the room
  for (const bool often : {false, true}) {
    SCOPED_TRACE(often ? "used often" : "used once");
    Loop loop({.room = 48});
    for (int i = 0; i < (often ? 20 : 1); ++i) loop.decode(usual);
    const uint64_t passing = loop.passing();
    EXPECT_GT(passing, 10u);
    loop.take_count();
    for (int i = 0; i < 5; ++i) loop.scan();
    const Loop::Count scans = loop.take_count();
    for (int i = 0; i < 200; ++i) loop.scan();
    loop.take_count();
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
