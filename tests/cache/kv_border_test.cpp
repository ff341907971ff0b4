// The border between weights and KV: it moves up when a frame is needed and down when few are.
#include "cache/kv_border.h"

#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "store/memory_bulk.h"
#include "tests/cache/tale.h"

namespace caravan {
namespace {

using test::kLayers;
using test::kPositions;
using test::Tale;

// Weights that give way, or refuse to.
class Weights final : public KvNeighbour {
 public:
  void make_room(Bytes more) override {
    if (refuses) fail(ErrorCode::kOutOfMemory, "the weights need it");
    given.count += more.count;
    ++moves;
    if (meanwhile) meanwhile();
  }
  void take_room() override {
    ++moves;
    ++taken_back;
  }
  std::function<void()> meanwhile;
  int taken_back = 0;
  bool refuses = false;
  Bytes given;
  int moves = 0;
};

const uint64_t kBlock = KvCache::block_bytes(kLayers, KvType::kF32).count;

TEST(KvBorder, MovesUpByAnEighthAndNeverPastTheMost) {
  const KvBorder border(3, 80);
  EXPECT_EQ(border.above(3), 13u);
  EXPECT_EQ(border.above(75), 80u);
  EXPECT_EQ(border.above(80), 80u);
}

TEST(KvBorder, MovesDownOnlyWhenLittleWasUsedForSomeSteps) {
  KvBorder border(3, 80);
  for (uint32_t step = 1; step < KvBorder::kIdleSteps; ++step) EXPECT_EQ(border.at_step(80, 5), 80u);
  EXPECT_EQ(border.at_step(80, 70), 80u) << "needed again";
  for (uint32_t step = 1; step < KvBorder::kIdleSteps; ++step) EXPECT_EQ(border.at_step(80, 5), 80u);
  EXPECT_EQ(border.at_step(80, 5), 15u) << "an eighth to spare";
  for (int step = 0; step < 1000; ++step) EXPECT_EQ(border.at_step(20, 5), 20u) << "not worth a move";
}

TEST(KvBorder, ReservesWhatIsNeededAndGivesItBack) {
  Weights weights;
  Tale tale(nullptr, nullptr, 0, kLayers, 64, KvSharing{&weights, 2});
  EXPECT_EQ(tale.reserved().count, 2 * kBlock);
  tale.open(1);
  for (int block = 0; block < 64; ++block) {
    tale.run({{1, kPositions}});
    EXPECT_GE(tale.reserved().count, (block + 1) * kBlock);
    EXPECT_LE(tale.reserved().count, std::max<uint64_t>(2, block + 1 + 8) * kBlock);
    EXPECT_EQ(tale.reserved().count, weights.given.count + 2 * kBlock);
  }
  EXPECT_EQ(weights.moves, 8) << "by an eighth each";
  tale.open(2);
  tale.truncate(1, 3 * kPositions);
  for (uint32_t step = 0; step < KvBorder::kIdleSteps; ++step) tale.idle();
  EXPECT_EQ(tale.reserved().count, (3 + 8) * kBlock);
  EXPECT_LE(tale.allocated().count, tale.reserved().count) << "memory is freed, too";
  EXPECT_TRUE(tale.run({{2, 40 * kPositions}, {1, 5}}).empty());
}

TEST(KvBorder, SpillsOnlyWhenThereMayBeNoMoreFrames) {
  MemoryBulk store;
  Weights weights;
  Tale tale(&store, nullptr, 40, kLayers, 256, KvSharing{&weights, 2});
  tale.open(1);
  for (int block = 0; block < 30; ++block) EXPECT_TRUE(tale.run({{1, kPositions}}).empty());
  EXPECT_EQ(tale.counters().bytes_written.value(), 0u);
  EXPECT_TRUE(tale.run({{1, 70 * kPositions}}).empty());
  EXPECT_EQ(tale.cache().frame_count(), 40u);
  EXPECT_GT(tale.counters().bytes_written.value(), 0u);
}

// What a conversation left lies in memory for nothing while others talk for long: it goes to disk, and comes
// back when it goes on.
TEST(KvBorder, WhatIdlesOnDiskGivesItsFramesToTheWeights) {
  MemoryBulk store;
  Weights weights;
  Tale tale(&store, nullptr, 40, kLayers, 256, KvSharing{&weights, 2});
  tale.open(1);
  EXPECT_TRUE(tale.run({{1, 33 * kPositions + 5}}).empty());
  const uint32_t full = tale.cache().frame_count();
  EXPECT_GE(full, 34u);
  const uint64_t reserved = tale.reserved().count;
  tale.open(2);
  constexpr uint32_t kNeeded = 1 + 2 * (40 / KvBorder::kParts);
  for (int step = 0; step < 50'000 && tale.cache().frame_count() > kNeeded; ++step) {  // the disk takes time
    EXPECT_TRUE(tale.run({{2, 1}}).empty());
    tale.truncate(2, 1);
  }
  EXPECT_LE(tale.cache().frame_count(), kNeeded);
  EXPECT_LE(tale.reserved().count, reserved - (full - kNeeded) * kBlock);
  EXPECT_LE(tale.allocated().count, tale.reserved().count);
  EXPECT_TRUE(tale.run({{1, 3}, {2, 1}}).empty()) << "and says what it said";
  EXPECT_GT(tale.counters().bytes_read.value(), 0u);
}

// Where the store holds a part of what idles.
TEST(KvBorder, AStoreOfFewBlocksTakesNoMore) {
  for (uint64_t seed = 1; seed <= 12 && !HasFatalFailure(); ++seed) {
    SeededRandom random(seed);
    MemoryBulk store;
    Weights weights;
    const auto most = static_cast<uint32_t>(3 + random.below(30));
    Tale tale(&store, nullptr, 90, kLayers, 90, KvSharing{&weights, 2}, most);
    uint64_t next = 1, largest = 0;
    for (int step = 0; step < 100 && !HasFatalFailure(); ++step) {
      if (tale.sequences().size() < 3 || random.below(5) == 0) tale.open(next++);
      while (tale.cache().blocks_free() < 12) tale.close(tale.sequences().begin()->first);
      const auto rows = static_cast<uint32_t>(1 + random.below(random.below(3) ? 40 : 200));
      EXPECT_TRUE(tale.run({{tale.sequences().rbegin()->first, rows}}).empty()) << tale.last_error();
      for (uint64_t i = random.below(3 * KvBorder::kIdleSteps); i > 0; --i) tale.idle();
      largest = std::max(largest, store.bytes().count);
    }
    // Beside them, what waits to be erased: half as many, or as few as are not worth it.
    EXPECT_LE(largest, (most + std::max(most / 2, 24u)) * (kBlock + 512)) << "seed " << seed;
    EXPECT_GT(largest, 0u);
  }
}

TEST(KvBorder, WeightsThatRefuseSendKvToDiskAndEndNobody) {
  MemoryBulk store;
  Weights weights;
  weights.refuses = true;
  Tale tale(&store, nullptr, 40, kLayers, 256, KvSharing{&weights, 3});
  tale.open(1);
  EXPECT_TRUE(tale.run({{1, 20 * kPositions}}).empty());
  EXPECT_EQ(tale.cache().frame_count(), 3u);
  EXPECT_GT(tale.counters().bytes_written.value(), 0u);
  weights.refuses = false;
  EXPECT_TRUE(tale.run({{1, 20 * kPositions}}).empty());
  EXPECT_EQ(tale.cache().frame_count(), 40u) << "for the new ones, and those that come back";
}

TEST(KvBorder, RoomThatOthersReserveMeanwhileGoesBackToTheWeights) {
  MemoryBulk store;
  Weights weights;
  Tale tale(&store, nullptr, 40, kLayers, 256, KvSharing{&weights, 3});
  Reservation others;
  weights.meanwhile = [&] {
    if (others.bytes() == Bytes{})
      others = tale.budget().reserve(MemoryTag::kWire, tale.budget().limit() - tale.budget().used());
  };
  tale.open(1);
  EXPECT_TRUE(tale.run({{1, 20 * kPositions}}).empty());
  EXPECT_EQ(tale.cache().frame_count(), 3u);
  EXPECT_GT(weights.taken_back, 0);
  EXPECT_EQ(weights.taken_back * 2, weights.moves);
}

TEST(KvBorder, WithoutADiskRefusalIsAnErrorAndNothingIsLost) {
  Weights weights;
  Tale tale(nullptr, nullptr, 0, kLayers, 64, KvSharing{&weights, 4});
  tale.open(1);
  EXPECT_TRUE(tale.run({{1, 4 * kPositions}}).empty());
  weights.refuses = true;
  EXPECT_THROW(tale.cache().extend(SequenceId{1}, 5 * kPositions), Error);
  EXPECT_EQ(tale.cache().blocks_free(), 60u);
  weights.refuses = false;
  EXPECT_TRUE(tale.run({{1, 4 * kPositions}}).empty());
}

// Budgets that change all the time, beside sequences that come, fork, are cut and go.
TEST(KvBorder, SequencesReadWhatTheyWroteWhileTheBorderMoves) {
  for (uint64_t seed = 1; seed <= 16 && !HasFatalFailure(); ++seed) {
    SeededRandom random(seed);
    MemoryBulk store;
    Weights weights;
    const bool spills = seed % 2 == 0;
    Tale tale(spills ? &store : nullptr, nullptr, 30, kLayers, spills ? 200 : 90,
              KvSharing{&weights, 2 + static_cast<uint32_t>(random.below(5))});
    uint64_t next = 1;
    for (int step = 0; step < 150 && !HasFatalFailure(); ++step) {
      weights.refuses = spills && random.below(3) == 0;
      const uint64_t choice = random.below(10);
      if (tale.sequences().empty() || choice == 0) {
        tale.open(next++);
      } else if (tale.cache().blocks_free() < 30 || choice == 1) {
        tale.close(tale.sequences().begin()->first);
      } else if (choice == 2) {
        const uint64_t from = tale.sequences().rbegin()->first;
        tale.fork(from, next++, static_cast<uint32_t>(random.below(tale.length(from) + 1)));
      } else if (choice == 3) {
        for (uint32_t i = 0; i < KvBorder::kIdleSteps; ++i) tale.idle();
      } else {
        const auto rows = static_cast<uint32_t>(1 + random.below(random.below(3) ? 3 : 200));
        EXPECT_TRUE(tale.run({{tale.sequences().rbegin()->first, rows}}).empty()) << tale.last_error();
      }
      ASSERT_LE(tale.allocated().count,
                tale.reserved().count + KvCache::staging_bytes(kLayers, KvType::kF32).count)
          << "seed " << seed;
    }
    EXPECT_GT(weights.moves, 3) << "seed " << seed;
  }
}

}  // namespace
}  // namespace caravan
