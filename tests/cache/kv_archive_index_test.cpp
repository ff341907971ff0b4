// Which block of an archive goes next: against a model that looks at all of them, and what that means for
// sessions, shared beginnings and short prompts.
#include "cache/kv_archive_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/random.h"
#include "tests/cache/archive_support.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using namespace test;

constexpr uint64_t kBlock = 1000;

// An archive of equal blocks without a disk: what is taken in makes room first.
class Shelf {
 public:
  explicit Shelf(uint64_t blocks) : room_(blocks), index_(Bytes{blocks * kBlock}) {}

  // The chain's blocks that are not there; the others are used.
  void take(const std::vector<uint64_t>& chain) {
    BlockTag previous;
    for (const uint64_t number : chain) {
      const BlockTag tag = numbered_tag(number);
      if (const auto known = index_.cover(tag, {}, 0, 1); !known.empty()) {
        index_.use(known.front());
        index_.pin(known.front());
        pinned_.push_back(known.front());
      } else {
        add(tag, previous);
      }
      previous = tag;
    }
    for (const uint64_t serial : std::exchange(pinned_, {})) index_.unpin(serial);
  }
  // Blocks first to first + count - 1, behind others.
  void take(uint64_t first, uint64_t count, std::vector<uint64_t> behind = {}) {
    for (uint64_t i = 0; i < count; ++i) behind.push_back(first + i);
    take(behind);
  }
  uint64_t there(uint64_t first, uint64_t count) const {
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; ++i) found += !index_.cover(numbered_tag(first + i), {}, 0, 1).empty();
    return found;
  }
  // So often what was taken in would have filled it.
  double fillings() const { return static_cast<double>(taken_) / static_cast<double>(room_); }

 private:
  void add(const BlockTag& tag, const BlockTag& previous) {
    while (index_.size() >= room_) {
      const auto victim = index_.victim();
      ASSERT_TRUE(victim);
      index_.remove(*victim);
    }
    ArchivedBlock block{++serial_, tag, previous, {}, 0, 1, kBlock};
    index_.set_runs({&block, 1});
    block.last_use = index_.clock();
    index_.add(block);
    index_.age(block);
    index_.pin(serial_);
    pinned_.push_back(serial_);
    ++taken_;
  }

  const uint64_t room_;
  KvArchiveIndex index_;
  std::vector<uint64_t> pinned_;
  uint64_t serial_ = 0, taken_ = 0;
};

std::vector<uint64_t> chain(uint64_t first, uint64_t count) {
  std::vector<uint64_t> out(count);
  for (uint64_t i = 0; i < count; ++i) out[i] = first + i;
  return out;
}

// A session of 28 blocks in a bound of 53, and one request after the other with a beginning of 8 that they
// share and an end of one to three blocks.
TEST(KvArchiveIndex, ALongSessionOutlivesManyFillingsByShortEndsButNotAll) {
  Shelf shelf(53);
  shelf.take(1000, 28);
  uint64_t request = 0;
  const auto ask = [&] {
    shelf.take(10'000 + 10 * request, 1 + request % 3, chain(2000, 8));
    ++request;
  };
  while (shelf.fillings() < 7) ask();
  EXPECT_EQ(shelf.there(1000, 28), 28u);
  EXPECT_EQ(shelf.there(2000, 8), 8u);
  // Its value is at most 28 times that of an end.
  while (shelf.fillings() < 29) ask();
  EXPECT_EQ(shelf.there(1000, 28), 0u);
  EXPECT_EQ(shelf.there(2000, 8), 8u) << "it is used again and again";
}

TEST(KvArchiveIndex, WhatIsUsedOftenOutlivesWhatIsAsLongAndGoesInTheEnd) {
  Shelf shelf(100);
  for (int i = 0; i < 4; ++i) shelf.take(1000, 20);
  shelf.take(2000, 20);
  uint64_t fresh = 10'000;
  while (shelf.there(2000, 20) > 0) shelf.take(fresh += 100, 20);
  EXPECT_EQ(shelf.there(1000, 20), 20u);
  EXPECT_LT(shelf.fillings(), 4);
  while (shelf.there(1000, 20) > 0 && shelf.fillings() < 20) shelf.take(fresh += 100, 20);
  EXPECT_GT(shelf.fillings(), 5) << "each use is worth a filling by others as long, about half of one";
  EXPECT_EQ(shelf.there(1000, 20), 0u);
}

// Whatever fills it, and however much more that is worth: what comes gets in.
TEST(KvArchiveIndex, TheNewestIsAlwaysThere) {
  SeededRandom random(5);
  Shelf shelf(100);
  for (int use = 0; use < 20; ++use)
    for (uint64_t session = 0; session < 4; ++session) shelf.take(1000 * (1 + session), 25);
  for (uint64_t request = 0; request < 300; ++request) {
    const uint64_t count = 1 + random.below(40), first = 100'000 + 100 * request;
    shelf.take(first, count);
    EXPECT_EQ(shelf.there(first, count), count) << request;
  }
}

// Random additions, uses, pins and removals: the victim is the one that a look at all blocks finds.
TEST(KvArchiveIndex, TheVictimIsThatOfAModel) {
  struct Known {
    ArchivedBlock block;
    int pins = 0;
  };
  uint64_t victims = 0;
  for (uint64_t seed = 1; seed <= test::fewer(20); ++seed) {
    SeededRandom random(seed);
    KvArchiveIndex index(Bytes{50 * kBlock});
    std::map<uint64_t, Known> known;
    double clock = 0;
    const auto pick = [&] {
      auto at = known.begin();
      std::advance(at, static_cast<long>(random.below(known.size())));
      return at;
    };
    const auto expected = [&]() -> std::optional<uint64_t> {
      std::optional<std::pair<double, uint64_t>> least;
      for (const auto& [serial, one] : known) {
        const BlockTag& tag = one.block.tag;
        const auto continues = [&](const auto& other) { return other.second.block.previous == tag; };
        if (one.pins > 0 || std::any_of(known.begin(), known.end(), continues)) continue;
        const double value = 2.0 * one.block.run * (1 + std::min(one.block.uses, 15u)) / kBlock;
        const std::pair<double, uint64_t> priority{one.block.last_use + value, serial};
        if (!least || priority < *least) least = priority;
      }
      return least ? std::optional(least->second) : std::nullopt;
    };
    for (uint64_t serial = 1; serial <= 400; ++serial) {
      const uint64_t choice = random.below(9);
      if (known.empty() || choice < 4) {
        ArchivedBlock block{serial, numbered_tag(serial), {}, {}, 0, 2, kBlock};
        if (!known.empty() && random.below(4) > 0) block.previous = pick()->second.block.tag;
        index.set_runs({&block, 1});
        block.last_use = clock;
        index.add(block);
        index.age(block);
        known[serial].block = block;
        clock += 2.0 * block.run / (50.0 * kBlock);
      } else if (choice == 4) {
        const auto one = pick();
        index.use(one->first);
        ++one->second.block.uses;
        one->second.block.last_use = clock;
      } else if (choice == 5) {
        const auto one = pick();
        const bool pinned = one->second.pins > 0;
        pinned ? index.unpin(one->first) : index.pin(one->first);
        one->second.pins += pinned ? -1 : 1;
      } else if (choice == 6) {
        const auto one = pick();  // damaged, perhaps in use
        index.remove(one->first);
        known.erase(one);
      } else if (const auto victim = index.victim()) {
        index.remove(*victim);
        known.erase(*victim);
        ++victims;
      }
      ASSERT_EQ(index.victim(), expected()) << "seed " << seed << ", " << serial;
      ASSERT_EQ(index.clock(), clock);
      ASSERT_EQ(index.size(), known.size());
      const auto pinned = [](const auto& one) { return one.second.pins > 0; };
      const auto in_use = std::count_if(known.begin(), known.end(), pinned);
      ASSERT_EQ(index.bytes_in_use(), static_cast<uint64_t>(in_use) * kBlock);
    }
  }
  EXPECT_GT(victims, test::fewer(1000));
}

// Several prompts and forks of them in one batch, and what other peers had of them before: a block's value
// does not depend on what it was written with.
TEST(KvArchiveIndex, RunsOfBlocksThatComeTogetherAreThoseOfBlocksThatComeOneByOne) {
  uint64_t long_runs = 0, forks = 0;
  for (uint64_t seed = 1; seed <= test::fewer(60); ++seed) {
    SeededRandom random(seed);
    KvArchiveIndex together(Bytes{1000 * kBlock}), one_by_one(Bytes{1000 * kBlock});
    std::map<uint64_t, BlockTag> previous_of;  // by the number
    uint64_t serial = 0;
    for (int round = 0; round < 12; ++round) {
      std::vector<ArchivedBlock> batch;
      for (uint64_t i = 1 + random.below(16); i > 0; --i) {
        const auto layer = static_cast<uint32_t>(random.below(2));
        const uint64_t old = previous_of.empty() ? 0 : 1 + random.below(previous_of.size());
        ArchivedBlock block{++serial, numbered_tag(old), {}, {}, layer, 1, kBlock};
        const auto same = [&](const ArchivedBlock& other) { return other.tag == block.tag; };
        const bool known = old == 0 || !together.within(block.tag, {}, layer, 1).empty() ||
                           std::any_of(batch.begin(), batch.end(), same);
        if (known || random.below(8) > 0) {
          const uint64_t number = previous_of.size() + 1;
          // Mostly what a few prompts go on with.
          const uint64_t behind = number <= 3 ? 0 : random.below(10) > 0 ? number - 3 : random.below(number);
          previous_of[number] = behind == 0 ? BlockTag{} : numbered_tag(behind);
          block.tag = numbered_tag(number);
          block.previous = previous_of[number];
        } else {
          block.previous = previous_of[old];
        }
        batch.push_back(block);
      }
      std::vector<ArchivedBlock> alone = batch;
      together.set_runs(batch);
      for (ArchivedBlock& block : alone) {
        one_by_one.set_runs({&block, 1});
        one_by_one.add(block);
      }
      ASSERT_EQ(batch, alone) << "seed " << seed << ", " << round;
      for (const ArchivedBlock& block : batch) {
        together.add(block);
        long_runs += block.run > 10;
        forks += block.run == 1 && block.previous != BlockTag{};
      }
      if (const auto victim = together.victim(); victim && random.below(2) > 0) {
        together.remove(*victim);
        one_by_one.remove(*victim);
      }
    }
  }
  EXPECT_GT(long_runs, test::fewer(500));
  EXPECT_GT(forks, test::fewer(100));
}

}  // namespace
}  // namespace caravan
