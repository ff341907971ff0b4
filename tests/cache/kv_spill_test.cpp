// KV between frames and a store: what sequences read is what they wrote, whatever the budget and the disk do.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/random.h"
#include "cache/kv_cache.h"
#include "store/memory_bulk.h"
#include "store/rocks_store.h"
#include "tests/support/fake_device.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using Fault = MemoryBulk::Fault;
using Operation = MemoryBulk::Operation;

constexpr uint32_t kPositions = limits::kKvBlockPositions;
constexpr uint32_t kPiece = limits::kMixPiecePositions;
// Of other widths and, the second, with a window.
const std::vector<KvLayerShape> kLayers = {{2, 8}, {1, 16, 70}, {1, 8}};

struct Range {
  uint64_t sequence;
  uint32_t count;
};

// A stage without arithmetic: writes a number a position and layer, and reads back all that attention would.
class Tale {
 public:
  Tale(BulkStore& store, uint32_t frames, std::vector<KvLayerShape> layers = kLayers, uint32_t blocks = 256)
      : layers_(std::move(layers)),
        budget_("ram", Bytes{64 << 20}),
        cache_(device_, budget_, layers_, KvType::kF32, blocks,
               KvSpill{&store, &clock_, &counters_, "the store", frames, 10, 2}) {}

  KvCache& cache() { return cache_; }
  const KvCounters& counters() const { return counters_; }
  size_t length(uint64_t sequence) const { return numbers_.at(sequence).size(); }
  bool is_open(uint64_t sequence) const { return numbers_.count(sequence) > 0; }
  const std::map<uint64_t, std::vector<float>>& sequences() const { return numbers_; }

  void open(uint64_t sequence) {
    cache_.open(SequenceId{sequence});
    numbers_[sequence];
  }
  void close(uint64_t sequence) {
    cache_.close(SequenceId{sequence});
    numbers_.erase(sequence);
  }
  void fork(uint64_t from, uint64_t to, uint32_t positions) {
    cache_.fork(SequenceId{from}, SequenceId{to}, positions);
    numbers_[to].assign(numbers_[from].begin(), numbers_[from].begin() + positions);
  }
  void truncate(uint64_t sequence, uint32_t positions) {
    cache_.truncate(SequenceId{sequence}, positions);
    numbers_[sequence].resize(positions);
  }

  // Sequences that failed.
  std::vector<uint64_t> run(const std::vector<Range>& ranges) {
    failed_.clear();
    std::map<uint64_t, uint32_t> first;
    for (const Range& range : ranges) {
      first[range.sequence] = static_cast<uint32_t>(length(range.sequence));
      for (uint32_t i = 0; i < range.count; ++i) numbers_[range.sequence].push_back(++last_number_);
      cache_.extend(SequenceId{range.sequence}, static_cast<uint32_t>(length(range.sequence)));
    }
    for (size_t i = 0; i < ranges.size();) {
      cache_.begin_step();
      parts_.clear();
      try {
        for (; i < ranges.size(); ++i) {
          uint32_t& from = first[ranges[i].sequence];
          const auto left = static_cast<uint32_t>(length(ranges[i].sequence)) - from;
          const uint32_t taken = cache_.add_rows(SequenceId{ranges[i].sequence}, from, left);
          if (taken > 0) parts_.push_back({ranges[i].sequence, from, from + taken});
          from += taken;
          if (taken < left) break;
        }
      } catch (const Error& error) {
        fail(ranges[i++].sequence, error);
      }
      if (!parts_.empty()) run_parts();
      cache_.end_step();
    }
    return failed_;
  }
  const std::string& last_error() const { return last_error_; }

 private:
  struct Part {
    uint64_t sequence;
    uint32_t first, last;  // positions
  };

  float& slot(const KvBlock& block, uint32_t layer, uint32_t position) const {
    // The keys' last and the values' first number lie side by side: both ends of what moves.
    return reinterpret_cast<float*>(block.values)[(position % kPositions) * layers_[layer].head_width];
  }

  void fail(uint64_t sequence, const Error& error) {
    last_error_ = error.message();
    cache_.spoil(SequenceId{sequence}, error);
    if (std::find(failed_.begin(), failed_.end(), sequence) == failed_.end()) failed_.push_back(sequence);
  }

  void run_parts() {
    cache_.start_reading();
    for (uint32_t layer = 0; layer < layers_.size(); ++layer) {
      for (const Part& part : parts_) {
        const KvBlock* blocks = cache_.blocks(SequenceId{part.sequence}, layer);
        for (uint32_t p = part.first; p < part.last; ++p)
          slot(blocks[p / kPositions], layer, p) = value(part.sequence, p, layer);
      }
      for (size_t i = 0; i < parts_.size(); ++i) read(i, layer);
    }
  }
  float value(uint64_t sequence, uint32_t position, uint32_t layer) const {
    return numbers_.at(sequence)[position] + static_cast<float>(layer) / 4;
  }

  void read(size_t index, uint32_t layer) {
    const Part& part = parts_[index];
    const uint32_t window = layers_[layer].window;
    const uint32_t first = window != 0 && part.first >= window ? part.first - window + 1 : 0;
    if (cache_.all_resident(index))
      return compare(part, layer, cache_.blocks(SequenceId{part.sequence}, layer), first, part.last);
    try {
      const uint32_t pieces = (part.last - 1) / kPiece + 1;
      for (uint32_t piece = cache_.first_piece(index, layer); piece < pieces;) {
        const auto reach = cache_.reach(index, layer, piece, 3);
        ASSERT_GT(reach.last_piece, piece);
        compare(part, layer, reach.blocks, std::max(first, piece * kPiece),
                std::min(part.last, reach.last_piece * kPiece));
        piece = reach.last_piece;
      }
    } catch (const Error& error) {
      fail(part.sequence, error);
    }
  }

  void compare(const Part& part, uint32_t layer, const KvBlock* blocks, uint32_t first, uint32_t last) const {
    if (std::find(failed_.begin(), failed_.end(), part.sequence) != failed_.end()) return;
    for (uint32_t p = first; p < last; ++p)
      ASSERT_EQ(slot(blocks[p / kPositions], layer, p), value(part.sequence, p, layer))
          << "sequence " << part.sequence << ", layer " << layer << ", position " << p;
  }

  const std::vector<KvLayerShape> layers_;
  FakeDevice device_;
  SystemClock clock_;
  KvCounters counters_;
  Budget budget_;
  KvCache cache_;
  std::map<uint64_t, std::vector<float>> numbers_;
  float last_number_ = 0;
  std::vector<Part> parts_;
  std::vector<uint64_t> failed_;
  std::string last_error_;
};

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
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    MemoryBulk store;
    stress(store, seed, 150, failures, rows);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_EQ(failures, 0u);
  EXPECT_GT(rows, 5000u);
}

TEST(KvSpill, AFailingDiskHarmsNobodyWhoDoesNotNeedIt) {
  uint64_t failures = 0, rows = 0;
  for (uint64_t seed = 1; seed <= 24; ++seed) {
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
  EXPECT_GT(failures, 20u) << "the faults were felt";
  EXPECT_GT(rows, 5000u);
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
