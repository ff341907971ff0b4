#include "cache/kv_residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/random.h"

namespace caravan {
namespace {

constexpr uint32_t kNone = KvResidency::kNone;

// A sequence of blocks 0 to `count` - 1, full and on disk as far as `written` goes.
void fill(KvResidency& residency, uint32_t count) {
  for (uint32_t block = 0; block < count; ++block) {
    residency.add(block);
    residency.use(block, block);
    while (residency.take_frame(block) == kNone)
      for (const auto& write : residency.start_writes(1, true)) residency.written(write.serial, true);
    residency.change(block);
    residency.set_full(block, true);
  }
}

TEST(KvResidency, AFixedPartOfALongSequenceStays) {
  KvResidency residency(4);
  residency.start_step();
  fill(residency, 10);
  for (uint32_t block = 0; block < 3; ++block) EXPECT_TRUE(residency.resident(block)) << block;
  for (uint32_t block = 3; block < 9; ++block) EXPECT_FALSE(residency.resident(block)) << block;
  EXPECT_TRUE(residency.resident(9)) << "the one that was filled last";
}

TEST(KvResidency, IdleSequencesGiveWayFirstAndTheOneLongestIdleBeforeOthers) {
  KvResidency residency(3);
  for (uint32_t block = 0; block < 3; ++block) {
    residency.start_step();
    residency.add(block);
    residency.use(block, 0);
    ASSERT_NE(residency.take_frame(block), kNone);
    residency.change(block);
  }
  for (const auto& write : residency.start_writes(3, true)) residency.written(write.serial, true);
  residency.start_step();
  residency.use(0, 0);
  residency.add(3);
  ASSERT_NE(residency.take_frame(3), kNone);
  EXPECT_FALSE(residency.resident(1));
  EXPECT_TRUE(residency.resident(0));
  EXPECT_TRUE(residency.resident(2));
}

TEST(KvResidency, AFrameIsReusedOnlyOnceItsBlockIsWritten) {
  KvResidency residency(1);
  residency.add(0);
  const uint32_t frame = residency.take_frame(0);
  residency.change(0);
  residency.add(1);
  EXPECT_EQ(residency.take_frame(1), kNone) << "what lies nowhere else";
  EXPECT_TRUE(residency.start_writes(1, false).empty()) << "it is not full";
  const auto writes = residency.start_writes(1, true);
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(residency.take_frame(1), kNone) << "while it is written";
  residency.drop(0);
  EXPECT_EQ(residency.take_frame(1), kNone) << "even when its block is gone";
  residency.written(writes[0].serial, true);
  EXPECT_EQ(residency.take_frame(1), frame);
  EXPECT_EQ(residency.take_garbage(), std::vector<uint64_t>{writes[0].serial});
}

TEST(KvResidency, WhatIsToBeArchivedIsWrittenBesideWhatIsSpilled) {
  KvResidency residency(40);
  for (uint32_t block = 0; block < 40; ++block) {
    residency.add(block);
    residency.use(block, block);
    ASSERT_NE(residency.take_frame(block), kNone);
    residency.change(block);
    residency.set_full(block, true);
    if (block % 2 == 1) residency.wish(block);
  }
  const auto writes = residency.start_writes(20, true);
  EXPECT_EQ(writes.size(), 20u);
  const auto archived = [](const auto& write) { return (write.serial & KvResidency::kArchived) != 0; };
  EXPECT_EQ(std::count_if(writes.begin(), writes.end(), archived), 10);
  EXPECT_TRUE(residency.start_writes(20, true).empty()) << "they are on their way";
  EXPECT_EQ(residency.start_archiving(6).size(), 6u);
  EXPECT_EQ(residency.start_archiving(6).size(), 4u) << "the last ones";
}

TEST(KvResidency, WhatIdlesInTheArchiveAloneIsCopiedEndsFirst) {
  KvResidency residency(1);
  std::vector<uint64_t> archived;
  for (uint64_t step = 0; step < 20; ++step) residency.start_step();
  for (uint32_t block = 0; block < 4; ++block) {
    residency.add(block);
    archived.push_back(residency.adopt(block));
  }
  EXPECT_TRUE(residency.start_copies(8, 8).empty()) << "it was just loaded";
  for (uint32_t block = 0; block < 4; ++block) residency.use(block, block);
  for (uint64_t step = 0; step < 8; ++step) residency.start_step();
  EXPECT_TRUE(residency.start_copies(8, 8).empty()) << "not for so long";
  residency.start_step();
  residency.use(0, 0);
  ASSERT_NE(residency.take_frame(1), kNone);
  const auto copies = residency.start_copies(1, 8);
  ASSERT_EQ(copies.size(), 1u);
  EXPECT_EQ(copies[0].archived, archived[3]);
  const auto more = residency.start_copies(8, 8);
  ASSERT_EQ(more.size(), 1u) << "one is in use, one comes into a frame, one is on its way";
  EXPECT_EQ(more[0].archived, archived[2]);
  residency.copied(copies[0].serial, true);
  EXPECT_EQ(residency.serial(3), copies[0].serial);
  EXPECT_EQ(residency.take_garbage(), std::vector<uint64_t>{archived[3]});
  residency.copied(more[0].serial, false);
  EXPECT_EQ(residency.serial(2), archived[2]);
  EXPECT_EQ(residency.start_copies(8, 8).size(), 1u) << "tried again";
}

// Random calls against a model of what every frame and every serial on disk holds: at no time may a block's
// content be found neither in its frame nor on disk, and what is told as garbage is no block's.
class Stress {
 public:
  Stress(uint64_t seed, uint32_t frames)
      : random_(seed), residency_(frames), in_frame_(frames), frame_busy_(frames) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      act();
      check();
      if (testing::Test::HasFatalFailure()) return;
    }
    for (const auto& [block, content] : contents_)
      while (residency_.pins(block) > 0) residency_.unpin(block);
    finish_writes(true);
    finish_copies(true);
    for (auto it = contents_.begin(); it != contents_.end(); it = contents_.erase(it)) drop(it->first);
    collect();
    EXPECT_EQ(residency_.frames_free(), residency_.frames());
    EXPECT_TRUE(disk_.empty()) << "everything on disk was told to be garbage in the end";
  }
  uint64_t copied() const { return copied_; }

 private:
  static constexpr uint32_t kBlocks = 24;

  void act() {
    const auto block = static_cast<uint32_t>(random_.below(kBlocks));
    const bool used = contents_.count(block) > 0;
    switch (random_.below(12)) {
      case 0:
        if (used) return;
        residency_.add(block);
        contents_[block] = 0;
        if (random_.below(2) == 0) adopt(block);
        return residency_.use(block, block);
      case 1:
        if (!used || residency_.pins(block) > 0) return;
        drop(block);
        contents_.erase(block);
        return;
      case 2:
        residency_.start_step();
        if (used) residency_.use(block, block);
        return;
      case 3:
        return start_writes(random_.below(2) == 0);
      case 4:
        return finish_writes(random_.below(4) > 0);
      case 5:
        if (!used) return;
        if (residency_.pins(block) > 0) return residency_.unpin(block);
        if (residency_.resident(block)) residency_.pin(block);
        return;
      case 6:
        if (used && full_.count(block) > 0) residency_.wish(block);
        return;
      case 7:
        return archive();
      case 8:
        return start_copies();
      case 9:
        return finish_copies(random_.below(4) > 0);
      default:
        if (used) bring(block);
    }
  }

  // As the archive has it.
  void adopt(uint32_t block) {
    disk_[residency_.adopt(block)] = contents_[block] = ++last_content_;
    full_.insert(block);
  }

  // Into a frame, and perhaps its content changes.
  void bring(uint32_t block) {
    if (residency_.frame(block) == kNone) {
      const uint32_t frame = residency_.take_frame(block);
      if (frame == kNone) return;
      ASSERT_FALSE(frame_busy_[frame]) << "a frame that is being written";
      if (contents_[block] != 0) {
        ASSERT_FALSE(residency_.resident(block)) << "it was not read yet";
        if (random_.below(4) == 0) return residency_.lost(block);
        ASSERT_EQ(disk_.at(residency_.serial(block)), contents_[block]);
        in_frame_[frame] = contents_[block];
        residency_.loaded(block);
      }
    }
    if (random_.below(2) == 0 || residency_.writing(block)) return;
    residency_.change(block);
    contents_[block] = in_frame_[residency_.frame(block)] = ++last_content_;
    const bool full = random_.below(2) == 0;
    residency_.set_full(block, full);
    full ? void(full_.insert(block)) : void(full_.erase(block));
    collect();
  }

  void drop(uint32_t block) {
    residency_.drop(block);
    full_.erase(block);
    collect();
  }

  void archive() {
    if (random_.below(3) == 0) residency_.wish_again(random_.below(20));
    if (random_.below(3) == 0) residency_.let_go(random_.below(20));
    collect();
    const size_t most = random_.below(4);
    const std::vector<KvResidency::Write> writes = residency_.start_archiving(most);
    ASSERT_LE(writes.size(), most);
    started(writes);
  }

  // As many as are wanted beside the frames that can be had, or will be, if there are so many.
  void start_writes(bool partial) {
    const auto wanted = static_cast<uint32_t>(random_.below(8));
    size_t had = residency_.frames_free() + under_way_.size(), dirty = 0;
    for (const auto& [block, content] : contents_) {
      if (residency_.frame(block) == kNone || residency_.pins(block) > 0 || residency_.writing(block))
        continue;
      const bool clean = content == 0 || residency_.serial(block) != 0;
      had += clean;
      dirty += !clean && (partial || full_.count(block) > 0);
    }
    const std::vector<KvResidency::Write> writes = residency_.start_writes(wanted, partial);
    ASSERT_EQ(writes.size(), had < wanted ? std::min(wanted - had, dirty) : 0);
    started(writes);
  }

  void started(const std::vector<KvResidency::Write>& writes) {
    for (const KvResidency::Write& write : writes) {
      ASSERT_EQ(in_frame_[write.frame], contents_.at(write.block));
      ASSERT_FALSE(frame_busy_[write.frame]);
      frame_busy_[write.frame] = true;
      under_way_[write.serial] = {write.frame, in_frame_[write.frame]};
    }
  }

  void finish_writes(bool worked) {
    while (!under_way_.empty() && (worked || random_.below(3) > 0)) {
      const auto [serial, what] = *under_way_.begin();
      ASSERT_EQ(in_frame_[what.first], what.second) << "the frame changed under the writing";
      under_way_.erase(serial);
      frame_busy_[what.first] = false;
      if (worked) disk_[serial] = what.second;
      residency_.written(serial, worked);
    }
    collect();
  }

  // Those that idle, are in no frame and in the archive alone, so many.
  void start_copies() {
    const uint64_t idle_steps = random_.below(6);
    const size_t most = random_.below(6);
    for (uint64_t step = 0; step < idle_steps; ++step) residency_.start_step();
    const std::vector<KvResidency::Copy> copies =
        residency_.start_copies(most, random_.below(idle_steps + 1));
    ASSERT_LE(copies.size(), most);
    for (const KvResidency::Copy& copy : copies) {
      ASSERT_NE(copy.archived & KvResidency::kArchived, 0u);
      ASSERT_EQ(copy.serial, KvResidency::kCopied + ++copies_) << "a batch's serials have no gaps";
      const auto of = std::find_if(contents_.begin(), contents_.end(), [&](const auto& one) {
        return residency_.serial(one.first) == copy.archived;
      });
      ASSERT_TRUE(of != contents_.end());
      ASSERT_EQ(residency_.frame(of->first), kNone);
      ASSERT_TRUE(copying_.emplace(copy.serial, disk_.at(copy.archived)).second);
    }
  }

  // Read when they were started: that is what the archive's handles are for.
  void finish_copies(bool worked) {
    while (!copying_.empty() && (worked || random_.below(3) > 0)) {
      const auto [serial, content] = *copying_.begin();
      copying_.erase(serial);
      if (worked) disk_[serial] = content;
      copied_ += worked;
      residency_.copied(serial, worked);
    }
    collect();
  }

  void collect() {
    for (const uint64_t serial : residency_.take_garbage())
      EXPECT_EQ(disk_.erase(serial), 1u) << "told twice, or never written";
  }

  void check() {
    std::set<uint32_t> frames;
    for (const auto& [block, content] : contents_) {
      ASSERT_TRUE(residency_.in_use(block));
      if (residency_.frame(block) != kNone) {
        ASSERT_TRUE(frames.insert(residency_.frame(block)).second) << "two blocks in one frame";
      }
      if (content == 0) continue;
      if (residency_.resident(block)) {
        ASSERT_EQ(in_frame_[residency_.frame(block)], content);
      } else {
        ASSERT_EQ(residency_.pins(block), 0u);
        ASSERT_NE(residency_.serial(block), 0u) << "block " << block << " is nowhere";
      }
      if (residency_.serial(block) != 0) {
        ASSERT_EQ(disk_.at(residency_.serial(block)), content);
      }
    }
    ASSERT_LE(frames.size() + residency_.frames_free(), residency_.frames());
  }

  SeededRandom random_;
  KvResidency residency_;
  std::map<uint32_t, uint64_t> contents_;  // of blocks in use; 0: none yet
  std::set<uint32_t> full_;
  std::vector<uint64_t> in_frame_;
  std::vector<bool> frame_busy_;
  std::map<uint64_t, std::pair<uint32_t, uint64_t>> under_way_;
  std::map<uint64_t, uint64_t> copying_;
  uint64_t copies_ = 0, copied_ = 0;
  std::map<uint64_t, uint64_t> disk_;
  uint64_t last_content_ = 0;
};

TEST(KvResidency, LosesNothingWhateverHappensInWhateverOrder) {
  uint64_t copied = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Stress stress(seed, 1 + static_cast<uint32_t>(seed % 7));
    stress.run(1500);
    copied += stress.copied();
    if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << "seed " << seed;
  }
  EXPECT_GT(copied, 60u * 10);
}

}  // namespace
}  // namespace caravan
