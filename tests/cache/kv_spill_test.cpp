// KV between frames and a store: what sequences read is what they wrote, whatever the budget and the disk do.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/random.h"
#include "cache/kv_cache.h"
#include "store/memory_bulk.h"
#include "store/rocks_store.h"
#include "tests/cache/tale.h"
#include "tests/support/fake_device.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using Fault = MemoryBulk::Fault;
using Operation = MemoryBulk::Operation;
using test::kLayers;
using test::kPositions;
using test::Range;
using test::Tale;

TEST(KvSpill, TakesTheMemoryOfItsFramesAndSlotsAlone) {
  FakeDevice device;
  SystemClock clock;
  KvCounters counters;
  MemoryBulk store;
  const Bytes block = KvCache::block_bytes(kLayers, KvType::kF32);
  const Bytes wanted = Bytes{2 * block.count} + KvCache::staging_bytes(kLayers, KvType::kF32);
  Budget enough("ram", wanted), little("ram", Bytes{wanted.count - 1});
  const KvSpill spill{&store, &clock, &counters, "the store", 2, 1, 1};
  EXPECT_THROW(KvCache(device, little, kLayers, KvType::kF32, 100, spill), Error);
  const KvCache cache(device, enough, kLayers, KvType::kF32, 100, spill);
  EXPECT_EQ(cache.block_count(), 100u);
  EXPECT_EQ(cache.frame_count(), 2u);
}

TEST(KvSpill, TouchesTheStoreOnlyWhenFramesRunShort) {
  MemoryBulk store([](Operation, std::string_view) -> Fault {
    ADD_FAILURE() << "nobody needed the store";
    return Fault::kNone;
  });
  Tale tale(store, 20);
  tale.open(1);
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(tale.run({{1, 9}}).empty());
  EXPECT_EQ(tale.counters().bytes_written.value(), 0u);
}

TEST(KvSpill, OneLayersPartOfABlockIsReadForEachUseAndNoMore) {
  MemoryBulk store;
  const std::vector<KvLayerShape> layers = {{1, 8}, {1, 8, 40}};
  Tale tale(store, 4, layers);
  tale.open(1);
  tale.run({{1, 20 * kPositions - 1}});
  const uint64_t before = tale.counters().bytes_read.value();
  tale.run({{1, 1}});
  // Of 20 blocks 3 stay besides the one that fills, and the windowed layer reaches back into two at most.
  const uint64_t part = 2 * kPositions * 8 * sizeof(float) + 8;
  const uint64_t parts = (tale.counters().bytes_read.value() - before) / part;
  EXPECT_GE(parts, 16u);
  EXPECT_LE(parts, 16u + 2u);
}

TEST(KvSpill, BlocksComeBackToStayWhenOthersAreGone) {
  MemoryBulk store;
  Tale tale(store, 24);
  tale.open(1);
  tale.run({{1, 12 * kPositions}});
  tale.open(2);
  for (int i = 0; i < 20; ++i) tale.run({{2, kPositions}});
  tale.close(2);
  tale.run({{1, 1}});
  const uint64_t before = tale.counters().bytes_read.value();
  tale.run({{1, 1}});
  EXPECT_EQ(tale.counters().bytes_read.value(), before);
}

// A read of 256 KiB takes two of these layers' parts, so that a block comes in three.
TEST(KvSpill, BlocksThatComeBackToStayAreReadOnceAndSomeLayersAtATime) {
  const std::vector<KvLayerShape> layers(5, {1, 416});
  std::map<std::string, int> reads;
  std::mutex mutex;
  MemoryBulk store([&](Operation operation, std::string_view key) {
    const std::lock_guard lock(mutex);
    if (operation == Operation::kRead) ++reads[std::string(key)];
    return Fault::kNone;
  });
  Tale tale(store, 24, layers);
  tale.open(1);
  tale.run({{1, 12 * kPositions}});
  tale.open(2);
  for (int i = 0; i < 20; ++i) tale.run({{2, kPositions}});
  tale.close(2);
  const uint64_t before = tale.counters().bytes_read.value();
  reads.clear();
  EXPECT_TRUE(tale.run({{1, 1}}).empty());
  EXPECT_GE(reads.size(), 5u * 6);
  for (const auto& [key, times] : reads) EXPECT_EQ(times, 1) << key.size();
  const uint64_t part = 2 * kPositions * 416 * sizeof(float) + 8;
  EXPECT_EQ(tale.counters().bytes_read.value() - before, reads.size() * part);
}

TEST(KvSpill, WhatIsNotNeededAnyMoreLeavesTheDisk) {
  MemoryBulk store;
  Tale tale(store, 2);
  uint64_t most = 0;
  for (uint64_t sequence = 1; sequence <= 40; ++sequence) {
    tale.open(sequence);
    tale.run({{sequence, 10 * kPositions}});
    most = std::max(most, store.bytes().count);
    tale.close(sequence);
  }
  EXPECT_LE(most, 50 * KvCache::block_bytes(kLayers, KvType::kF32).count) << "of 400 blocks written";
}

TEST(KvSpill, ADamagedBlockIsAnErrorThatNamesItAndEndsItsSequenceAlone) {
  std::atomic<bool> damage{false};
  MemoryBulk store([&](Operation operation, std::string_view) {
    return damage && operation == Operation::kRead ? Fault::kCorrupt : Fault::kNone;
  });
  Tale tale(store, 4);
  tale.open(1);
  tale.open(2);
  EXPECT_TRUE(tale.run({{1, 600}}).empty());
  EXPECT_TRUE(tale.run({{2, 3}}).empty());
  damage = true;
  EXPECT_EQ(tale.run({{2, 1}, {1, 1}}), std::vector<uint64_t>{1});
  EXPECT_NE(tale.last_error().find("the store: block "), std::string::npos) << tale.last_error();
  EXPECT_NE(tale.last_error().find("layer 10"), std::string::npos) << tale.last_error();
  EXPECT_NE(tale.last_error().find("checksum"), std::string::npos) << tale.last_error();
  damage = false;
  EXPECT_EQ(tale.run({{2, 1}, {1, 1}}), std::vector<uint64_t>{1}) << "it lost state for good";
  tale.close(1);
  EXPECT_TRUE(tale.run({{2, 40}}).empty());
}

TEST(KvSpill, AFullDiskEndsWhoNeedsRoomAndLetsTheOthersGoOn) {
  std::atomic<bool> full{true};
  MemoryBulk store([&](Operation operation, std::string_view) {
    return full && operation == Operation::kCommit ? Fault::kFull : Fault::kNone;
  });
  Tale tale(store, 6);
  tale.open(1);
  tale.open(2);
  EXPECT_TRUE(tale.run({{1, 2 * kPositions}}).empty());
  EXPECT_EQ(tale.run({{2, 6 * kPositions}}), std::vector<uint64_t>{2});
  EXPECT_NE(tale.last_error().find("full"), std::string::npos) << tale.last_error();
  tale.close(2);
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(tale.run({{1, 1}}).empty());
  full = false;
  EXPECT_TRUE(tale.run({{1, 9 * kPositions}}).empty()) << "the disk has room again";
}

// Random opens, forks, growth, cuts and closes, with few frames; the disk fails, is short, flips bits, is
// slow, for a share of its operations. A sequence that met no error reads what it wrote.
void stress(BulkStore& store, uint64_t seed, int steps, uint64_t& failures, uint64_t& rows) {
  SeededRandom random(seed);
  Tale tale(store, 2 + static_cast<uint32_t>(random.below(12)));
  uint64_t next = 1;
  const auto pick = [&] {
    auto entry = tale.sequences().begin();
    std::advance(entry, static_cast<long>(random.below(tale.sequences().size())));
    return entry->first;
  };
  for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) {
    const uint64_t choice = random.below(12);
    try {
      if (tale.sequences().empty() || (choice == 0 && tale.sequences().size() < 6)) {
        tale.open(next++);
      } else if (choice == 1) {
        tale.close(pick());
      } else if (choice == 2 && tale.cache().blocks_free() > 40) {
        const uint64_t from = pick();
        tale.fork(from, next, static_cast<uint32_t>(random.below(tale.length(from) + 1)));
        ++next;
      } else if (choice == 3 && tale.cache().blocks_free() > 40) {
        const uint64_t sequence = pick();
        const auto positions = static_cast<uint32_t>(random.below(tale.length(sequence) + 1));
        try {
          tale.truncate(sequence, positions);
        } catch (const Error&) {
          ++failures;
          tale.close(sequence);
        }
      } else if (tale.cache().blocks_free() > 60) {
        std::vector<Range> ranges;
        for (const auto& [sequence, numbers] : tale.sequences())
          if (random.below(2) == 0)
            ranges.push_back({sequence, 1 + static_cast<uint32_t>(random.below(random.below(3) ? 2 : 150))});
        for (const Range& range : ranges) rows += range.count;
        for (const uint64_t sequence : tale.run(ranges)) {
          ++failures;
          tale.close(sequence);
        }
      } else {
        tale.close(pick());
      }
    } catch (const Error&) {
      ++failures;  // of a fork: its sequence is not open then
    }
  }
  while (!tale.sequences().empty()) tale.close(tale.sequences().begin()->first);
  EXPECT_EQ(tale.cache().blocks_free(), tale.cache().block_count()) << "seed " << seed;
}

TEST(KvSpill, SequencesReadWhatTheyWroteWithTwoToThirteenFrames) {
  uint64_t failures = 0, rows = 0;
  for (uint64_t seed = 1; seed <= test::fewer(12); ++seed) {
    MemoryBulk store;
    stress(store, seed, 150, failures, rows);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_EQ(failures, 0u);
  EXPECT_GT(rows, test::fewer(5000));
}

TEST(KvSpill, AFailingDiskHarmsNobodyWhoDoesNotNeedIt) {
  uint64_t failures = 0, rows = 0;
  for (uint64_t seed = 1; seed <= test::fewer(24); ++seed) {
    std::atomic<uint64_t> operations{0};
    MemoryBulk store([&](Operation operation, std::string_view) {
      const uint64_t n = mix64(seed * 1000003 + operations++);
      if (n % 29 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (n % 97 != 0) return Fault::kNone;
      constexpr Fault kReads[] = {Fault::kShort, Fault::kCorrupt, Fault::kIo};
      constexpr Fault kWrites[] = {Fault::kFull, Fault::kIo};
      return operation == Operation::kRead ? kReads[n / 97 % 3] : kWrites[n / 97 % 2];
    });
    stress(store, seed, 100, failures, rows);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_GT(failures, test::fewer(20)) << "the faults were felt";
  EXPECT_GT(rows, test::fewer(5000));
}

TEST(KvSpill, TheRealStoreDoesTheSame) {
  const test::TemporaryFolder folder;
  RocksStore rocks(folder.path(), {"bulk.kv"});
  const auto store = rocks.bulk("bulk.kv");
  uint64_t failures = 0, rows = 0;
  stress(*store, 5, 60, failures, rows);
  EXPECT_EQ(failures, 0u);
  EXPECT_GT(rows, 200u);
}

}  // namespace
}  // namespace caravan
