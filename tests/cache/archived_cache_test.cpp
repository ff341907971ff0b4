// A cache with an archive behind it: sequences that begin with what was archived read what was written, over
// restarts, with few frames or with a frame for each block, and whatever the disks do.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "cache/kv_value.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"
#include "store/rocks_store.h"
#include "tests/cache/archive_support.h"
#include "tests/cache/tale.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using namespace test;
using Fault = MemoryBulk::Fault;
using Operation = MemoryBulk::Operation;

constexpr Bytes kLimit{8 << 20};

KvArchiveOptions options(Bytes limit = kLimit) {
  return {limit, std::nullopt, {}, "the archive"};
}

// Runs steps without rows until nothing is on its way to the archive any more.
void finish_writing(Tale& tale, const KvArchive& archive, uint64_t blocks) {
  for (int i = 0; i < 2000 && archive.counters().blocks_written.value() < blocks; ++i) {
    tale.idle();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  tale.idle();
  EXPECT_EQ(archive.counters().blocks_written.value(), blocks);
}

class ArchivedCache : public testing::TestWithParam<bool> {
 protected:
  // With few frames and a store of its own, or a frame for each block and none.
  std::unique_ptr<Tale> tale(KvArchive& archive, uint32_t frames = 5) {
    return GetParam() ? std::make_unique<Tale>(&spill_, &archive, frames)
                      : std::make_unique<Tale>(nullptr, &archive, 256);
  }
  MemoryBulk spill_;
  HandClock clock_;
  std::shared_ptr<MemoryBulk> values_ = std::make_shared<MemoryBulk>();
  std::shared_ptr<MemoryStore> records_ = std::make_shared<MemoryStore>();
};

TEST_P(ArchivedCache, ASequenceBeginsWithWhatAnEarlierProcessWrote) {
  std::vector<float> numbers;
  {
    KvArchive archive(values_, records_, clock_, options());
    const auto before = tale(archive);
    before->open(1);
    EXPECT_TRUE(before->run({{1, 9 * kPositions + 5}}).empty());
    EXPECT_TRUE(before->run({{1, kPositions}}).empty());
    finish_writing(*before, archive, 10);
    numbers = before->sequences().at(1);
  }
  KvArchive archive(values_, records_, clock_, options());
  const auto after = tale(archive);
  EXPECT_EQ(after->archived(numbers), 10u);
  numbers.resize(10 * kPositions);
  after->load(7, numbers);
  EXPECT_EQ(after->cache().positions(SequenceId{7}), 10 * kPositions);
  EXPECT_EQ(archive.counters().bytes_read.value(), 0u) << "nothing is read before it is needed";
  EXPECT_TRUE(after->run({{7, 1}}).empty()) << after->last_error();
  EXPECT_GT(archive.counters().bytes_read.value(), 0u);
  after->fork(7, 8, 10 * kPositions);
  after->fork(7, 9, 4 * kPositions + 7);
  after->truncate(7, 3 * kPositions + 9);
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(after->run({{7, 20}, {8, 33}, {9, 40}}).empty()) << after->last_error();
  for (const uint64_t sequence : {7, 8, 9}) after->close(sequence);
  EXPECT_EQ(after->cache().blocks_free(), after->cache().block_count());
  EXPECT_EQ(after->archived(numbers), 10u) << "who is done with a block does not take it away";
}

TEST_P(ArchivedCache, ABlockGoesToDiskOnce) {
  KvArchive archive(values_, records_, clock_, options());
  const auto writes = tale(archive, 4);
  writes->open(1);
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(writes->run({{1, kPositions}}).empty());
  finish_writing(*writes, archive, 40);
  EXPECT_LE(writes->counters().bytes_written.value(), KvCache::block_bytes(kLayers, KvType::kF32).count)
      << "of 40 blocks, one that was not full may have been spilled";
}

TEST_P(ArchivedCache, TheSamePromptAgainIsNotWrittenAgain) {
  KvArchive archive(values_, records_, clock_, options());
  const auto first = tale(archive);
  first->open(1);
  first->run({{1, 6 * kPositions}});
  finish_writing(*first, archive, 6);
  first->load(2, first->sequences().at(1));
  first->run({{2, 1}});
  first->idle();
  EXPECT_EQ(archive.counters().blocks_written.value(), 6u);
  EXPECT_EQ(archive.counters().blocks_adopted.value(), 6u);
}

// All blocks have frames. Sequence 1 has so many blocks, and all are in an archive that holds so many.
struct ArchivedSession {
  ArchivedSession(uint32_t bound_blocks, uint32_t blocks)
      : archive(std::make_shared<MemoryBulk>(), std::make_shared<MemoryStore>(), clock,
                options(Bytes{bound_blocks * block_bytes})),
        tale(nullptr, &archive, 256) {
    tale.open(1);
    tale.run({{1, blocks * kPositions}});
    finish_writing(tale, archive, blocks);
  }
  const uint64_t block_bytes = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
  HandClock clock;
  KvArchive archive;
  Tale tale;
};

TEST(ArchivedCacheBound, SequencesThatAreIdleInMemoryKeepNobodyOutOfTheArchive) {
  HandClock clock;
  const uint64_t block = KvCache::block_bytes(kLayers, KvType::kF32).count;
  KvArchive archive(std::make_shared<MemoryBulk>(), std::make_shared<MemoryStore>(), clock,
                    options(Bytes{20 * block}));
  Tale tale(nullptr, &archive, 256);
  tale.open(1);
  tale.run({{1, 12 * kPositions}});
  finish_writing(tale, archive, 12);
  for (int i = 0; i < 200; ++i) {
    tale.idle();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  tale.open(2);
  tale.run({{2, 10 * kPositions}});
  finish_writing(tale, archive, 12 + 10);
  EXPECT_EQ(tale.archived(tale.sequences().at(2)), 10u);
  EXPECT_LT(tale.archived(tale.sequences().at(1)), 12u) << "it made room";
  EXPECT_TRUE(tale.run({{1, 1}, {2, 1}}).empty()) << "what is in memory stays there";
}

// One prompt after the other, all kept in memory, and nothing more than that each is left alone for a moment.
TEST_P(ArchivedCache, TheNewestOfManyThatStayInMemoryIsAlwaysArchivedWhole) {
  const uint64_t block = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
  KvArchive archive(values_, records_, clock_, options(Bytes{40 * block}));
  const auto one = tale(archive, 200);
  for (uint64_t sequence = 1; sequence <= 8; ++sequence) {
    one->open(sequence);
    for (int step = 0; step < 4; ++step) one->run({{sequence, 5 * kPositions}});
    for (int i = 0; i < 3000 && one->archived(one->sequences().at(sequence)) < 20; ++i) {
      one->cache().archive_on();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(one->archived(one->sequences().at(sequence)), 20u) << sequence;
    archive.settle();
    EXPECT_LE(values_->bytes().count, 40 * block);
  }
  EXPECT_LE(archive.counters().blocks_written.value(), 8u * 20) << "nothing goes to and fro";
  for (int i = 0; i < 3000 && one->cache().archive_on(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_FALSE(one->cache().archive_on()) << "there is an end to it";
  std::vector<Range> all;
  for (uint64_t sequence = 1; sequence <= 8; ++sequence) all.push_back({sequence, 1});
  EXPECT_TRUE(one->run(all).empty()) << "what is in memory stays there";
}

// What is in memory counts no more than its value says: a session that was left long ago outlives short ones
// of which more are kept than have room beside it.
TEST(ArchivedCacheBound, ShortSequencesThatStayInMemoryDoNotPushOutALongOne) {
  ArchivedSession session(60, 20);
  Tale& tale = session.tale;
  KvArchive& archive = session.archive;
  for (uint64_t sequence = 2; sequence <= 60; ++sequence) {
    tale.open(sequence);
    tale.run({{sequence, 2 * kPositions}});
    for (int step = 0; step < 3; ++step) tale.run({{sequence, 1}});
    finish_writing(tale, archive, 20 + 2 * (sequence - 1));
  }
  // Under load, making room may take longer than a batch waits; it is offered again then.
  for (int step = 0; step < 200 && tale.archived(tale.sequences().at(60)) < 2; ++step) {
    archive.settle();
    tale.run({{60, 1}});
  }
  EXPECT_EQ(tale.archived(tale.sequences().at(1)), 20u);
  EXPECT_EQ(tale.archived(tale.sequences().at(60)), 2u);
}

// Weights that give way.
class Weights final : public KvNeighbour {
 public:
  void make_room(Bytes) override {}
  void take_room() override {}
};

// What comes from disk gets frames as what is computed does, so that it comes once.
TEST_P(ArchivedCache, WhatComesBackGetsFramesThatWeightsLend) {
  std::vector<float> numbers;
  {
    KvArchive archive(values_, records_, clock_, options());
    const auto before = tale(archive);
    before->open(1);
    EXPECT_TRUE(before->run({{1, 30 * kPositions}}).empty());
    finish_writing(*before, archive, 30);
    numbers = before->sequences().at(1);
  }
  Weights weights;
  KvArchive archive(values_, records_, clock_, options());
  Tale after(GetParam() ? &spill_ : nullptr, &archive, GetParam() ? 80 : 256, kLayers, 256,
             KvSharing{&weights, 3});
  after.load(7, numbers);
  EXPECT_TRUE(after.run({{7, 1}}).empty()) << after.last_error();
  const uint64_t read = archive.counters().bytes_read.value();
  EXPECT_GT(read, 0u);
  for (int step = 0; step < 20; ++step) EXPECT_TRUE(after.run({{7, 1}}).empty());
  EXPECT_EQ(archive.counters().bytes_read.value(), read);
  EXPECT_GE(after.cache().frame_count(), 31u);
}

// Steps in which sequences run alternately: what runs keeps its place, and others do not push it out and in.
TEST_P(ArchivedCache, SequencesThatRunTogetherDoNotPushEachOtherOut) {
  const uint64_t block = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
  KvArchive archive(values_, records_, clock_, options(Bytes{40 * block}));
  const auto one = tale(archive, 200);
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    one->open(sequence);
    one->run({{sequence, 15 * kPositions}});
  }
  for (int step = 0; step < 600; ++step) {
    one->run({{1 + static_cast<uint64_t>(step) % 3, 1}});
    if (step % 20 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_LE(archive.counters().evicted.value(), 5u);
  EXPECT_LE(archive.counters().blocks_written.value(), 40u);
}

TEST_P(ArchivedCache, AProcessThatEndsWritesWhatWaits) {
  std::atomic<int> wait_ms{20};
  values_ = std::make_shared<MemoryBulk>([&](Operation what, std::string_view) {
    if (what == Operation::kCommit) std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
    return Fault::kNone;
  });
  KvArchive archive(values_, records_, clock_, options());
  const auto one = tale(archive, 60);
  one->open(1);
  for (int i = 0; i < 50; ++i) one->run({{1, kPositions}});
  one->cache().finish_archiving(std::chrono::seconds(20));
  EXPECT_EQ(one->archived(one->sequences().at(1)), 50u);
  // A disk that stands still is not waited for.
  wait_ms = 700;
  one->open(2);
  one->run({{2, 8 * kPositions}});
  const auto start = std::chrono::steady_clock::now();
  one->cache().finish_archiving(std::chrono::milliseconds(50));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(600));
}

// The archive's own thread makes room more slowly than a batch waits for it, and no step comes any more.
TEST_P(ArchivedCache, WhatFoundNoRoomIsOfferedAgainOnceThereIsSomeThoughTheProcessIdles) {
  for (const bool ends : {false, true}) {
    std::atomic<bool> slow{false};
    values_ = std::make_shared<MemoryBulk>([&](Operation what, std::string_view) {
      if (what == Operation::kErase && slow.exchange(false))
        std::this_thread::sleep_for(std::chrono::milliseconds(400));
      return Fault::kNone;
    });
    records_ = std::make_shared<MemoryStore>();
    const uint64_t block = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
    KvArchive archive(values_, records_, clock_, options(Bytes{40 * block}));
    const auto one = tale(archive, 200);
    one->open(1);
    one->run({{1, 28 * kPositions}});
    one->cache().finish_archiving(std::chrono::seconds(20));
    ASSERT_EQ(one->archived(one->sequences().at(1)), 28u);
    one->close(1);
    slow = true;
    one->open(2);
    one->run({{2, 20 * kPositions}});
    if (ends) {
      one->cache().finish_archiving(std::chrono::seconds(20));
    } else {
      while (one->cache().archive_on()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GT(archive.counters().refused.value(), 0u);
    EXPECT_EQ(one->archived(one->sequences().at(2)), 20u) << ends;
    EXPECT_FALSE(one->cache().archive_on()) << "there is an end to it";
  }
}

// Steps without rows until so many blocks of the sequence can be found, or for a while.
uint32_t archived_after_a_while(Tale& tale, uint64_t sequence, uint32_t blocks) {
  for (int i = 0; i < 400 && tale.archived(tale.sequences().at(sequence)) < blocks; ++i) {
    tale.idle();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return tale.archived(tale.sequences().at(sequence));
}

TEST(ArchivedCacheBound, WhatWasRefusedIsArchivedOnceThereIsRoom) {
  HandClock clock;
  const uint64_t block = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
  KvArchiveOptions bound = options();
  bound.day = Bytes{8 * block};
  KvArchive archive(std::make_shared<MemoryBulk>(), std::make_shared<MemoryStore>(), clock, bound);
  Tale tale(nullptr, &archive, 256);
  tale.open(1);
  tale.run({{1, 8 * kPositions}});
  finish_writing(tale, archive, 8);
  tale.open(2);
  tale.run({{2, 3 * kPositions}});
  tale.run({{2, 2 * kPositions}});
  EXPECT_EQ(archived_after_a_while(tale, 2, 1), 0u) << "the day has no room";
  for (int step = 0; step < 210; ++step) {
    step % 60 == 0 ? void(tale.run({{2, 1}})) : tale.idle();
    if (step % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(archive.counters().refused.value(), 5u) << "each block once, however often it is offered";
  clock.advance(std::chrono::hours(24));
  tale.run({{2, kPositions}});
  EXPECT_EQ(archived_after_a_while(tale, 2, 6), 6u) << "from its beginning, and what came since";
  EXPECT_EQ(archive.counters().blocks_written.value(), 8u + 6u);
}

TEST(ArchivedCacheBound, WhatMadeRoomWhileItWasIdleIsArchivedAgainWhenItGoesOn) {
  ArchivedSession session(20, 12);
  Tale& tale = session.tale;
  KvArchive& archive = session.archive;
  for (int i = 0; i < 200; ++i) tale.idle();
  tale.open(2);
  tale.run({{2, 10 * kPositions}});
  finish_writing(tale, archive, 12 + 10);
  ASSERT_LT(tale.archived(tale.sequences().at(1)), 12u);
  tale.close(2);
  tale.run({{1, kPositions}});
  EXPECT_EQ(archived_after_a_while(tale, 1, 13), 13u);
}

// A sequence of which little is in frames and that stays open, as a head keeps ended requests, idle from then
// on.
void run_and_leave(Tale& tale, uint64_t sequence, uint32_t blocks) {
  tale.open(sequence);
  for (uint32_t at = 0; at < blocks; at += 2) tale.run({{sequence, 2 * kPositions}});
  tale.cache().finish_archiving(std::chrono::seconds(20));
  for (int step = 0; step < 12; ++step) tale.idle();
}

// Steps without rows until the archive has room for more.
void make_room_ahead(Tale& tale, const KvArchive& archive) {
  for (int i = 0; i < 2000 && archive.mostly_in_use(); ++i) {
    tale.idle();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_FALSE(archive.mostly_in_use());
}

// An archive that holds 30 blocks, and sequences of 10, a few frames for all of them.
struct IdleOnDisk {
  explicit IdleOnDisk(BulkStore& spill, uint32_t frames = 4)
      : archive(values, std::make_shared<MemoryStore>(), clock, options(Bytes{40 * block_bytes})),
        tale(&spill, &archive, frames) {}
  void run_and_leave_all(uint64_t first, uint64_t last) {
    for (uint64_t sequence = first; sequence <= last; ++sequence) run_and_leave(tale, sequence, 10);
  }
  uint32_t archived(uint64_t sequence) const { return tale.archived(tale.sequences().at(sequence)); }
  std::vector<uint64_t> run_all() {
    std::vector<Range> all;
    for (const auto& [sequence, numbers] : tale.sequences()) all.push_back({sequence, 1});
    return tale.run(all);
  }
  const uint64_t block_bytes = KvCache::block_bytes(kLayers, KvType::kF32).count + 3 * kKvSealBytes;
  HandClock clock;
  const std::shared_ptr<MemoryBulk> values = std::make_shared<MemoryBulk>();
  KvArchive archive;
  Tale tale;
};

void idle_sequences_keep_nobody_out(BulkStore& spill) {
  IdleOnDisk idle(spill);
  for (uint64_t sequence = 1; sequence <= 12; ++sequence) {
    idle.run_and_leave_all(sequence, sequence);
    make_room_ahead(idle.tale, idle.archive);
    EXPECT_EQ(idle.archived(sequence), 10u) << sequence;
    idle.archive.settle();
    EXPECT_LE(idle.values->bytes().count, 40 * idle.block_bytes);
  }
  EXPECT_EQ(idle.archive.counters().refused.value(), 0u) << "room is made ahead";
  EXPECT_LE(idle.tale.counters().bytes_written.value(), 12u * 11 * idle.block_bytes)
      << "nothing is copied twice";
  EXPECT_TRUE(idle.run_all().empty()) << "what the archive gave up is elsewhere: " << idle.tale.last_error();
}

TEST(ArchivedCacheBound, SequencesThatAreIdleOnDiskKeepNobodyOutOfTheArchive) {
  MemoryBulk spill;
  idle_sequences_keep_nobody_out(spill);
  const TemporaryFolder folder;
  RocksStore rocks(folder.path(), {"bulk.kv"});
  idle_sequences_keep_nobody_out(*rocks.bulk("bulk.kv"));
}

// The disk has no room where blocks are spilled: what idles stays in the archive, which takes nothing new
// then, and no step that needs no frame is touched. When it has room again, the archive soon has, too.
TEST(ArchivedCacheBound, CopiesThatFailChangeNothingAndAreTriedAgain) {
  std::atomic<bool> full{false};
  std::atomic<int> tries{0};
  MemoryBulk spill([&](Operation operation, std::string_view) {
    if (!full || operation != Operation::kCommit) return Fault::kNone;
    ++tries;
    return Fault::kFull;
  });
  IdleOnDisk idle(spill);
  idle.run_and_leave_all(1, 2);
  full = true;
  idle.tale.open(3);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(idle.tale.run({{3, kPositions}}).empty()) << idle.tale.last_error();
  const int before = tries;  // blocks that give way are tried in every step
  for (int step = 0; step < 640; ++step) {
    idle.tale.idle();
    if (step % 8 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GT(tries, before);
  EXPECT_LE(tries - before, 11 * 16) << "of sixteen blocks in as many batches at most, every 64 steps";
  EXPECT_EQ(idle.archived(1), 10u);
  EXPECT_EQ(idle.archived(2), 10u);
  EXPECT_TRUE(idle.run_all().empty()) << idle.tale.last_error();
  full = false;
  for (int step = 0; step < 80; ++step) idle.tale.idle();
  idle.run_and_leave_all(4, 9);
  EXPECT_EQ(idle.archived(9), 10u);
  EXPECT_TRUE(idle.run_all().empty()) << idle.tale.last_error();
}

// All of the archive is in use when something new comes, and no step follows.
TEST(ArchivedCacheBound, WhatIsRefusedBeforeCopiesMadeRoomIsOfferedAgainThoughTheProcessIdles) {
  for (const bool ends : {false, true}) {
    MemoryBulk spill([](Operation operation, std::string_view) {
      if (operation == Operation::kCommit) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return Fault::kNone;
    });
    IdleOnDisk idle(spill, 26);
    idle.tale.open(1);
    for (int i = 0; i < 6; ++i) idle.tale.run({{1, 5 * kPositions}});
    idle.tale.cache().finish_archiving(std::chrono::seconds(20));
    for (int step = 0; step < 8; ++step) idle.tale.idle();
    ASSERT_EQ(idle.archived(1), 30u) << "none of it may leave yet";
    idle.tale.open(2);
    idle.tale.run({{2, 22 * kPositions}});
    if (ends) {
      idle.tale.cache().finish_archiving(std::chrono::seconds(20));
    } else {
      while (idle.tale.cache().archive_on()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GT(idle.archive.counters().refused.value(), 0u);
    EXPECT_EQ(idle.archived(2), 22u) << "more than one step copies; " << ends;
    EXPECT_TRUE(idle.run_all().empty()) << idle.tale.last_error();
  }
}

TEST(ArchivedCacheBound, ADamagedBlockThatIsCopiedEndsItsSequenceAlone) {
  MemoryBulk spill;
  IdleOnDisk idle(spill);
  idle.run_and_leave_all(1, 2);
  for (const std::string& key : idle.values->keys())
    if (key[7] == 3) idle.values->value(key)->front() ^= std::byte{4};
  idle.run_and_leave_all(3, 6);
  // Copies go on behind the steps: who comes before there is room is spilled, and the next one is archived.
  uint64_t newest = 6;
  for (; idle.archived(newest) < 10 && newest < 12; ++newest) {
    for (int step = 0; step < 80; ++step) {
      idle.tale.idle();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    idle.run_and_leave_all(newest + 1, newest + 1);
  }
  EXPECT_EQ(idle.archived(newest), 10u) << "it keeps nobody out";
  EXPECT_EQ(idle.archive.counters().quarantined.value(), 1u) << "the copy met it";
  EXPECT_EQ(idle.run_all(), std::vector<uint64_t>{1});
  EXPECT_NE(idle.tale.last_error().find("not there any more"), std::string::npos) << idle.tale.last_error();
  idle.tale.close(1);
  EXPECT_TRUE(idle.run_all().empty()) << idle.tale.last_error();
}

TEST_P(ArchivedCache, WhatTheArchiveLacksEndsTheSequenceAlone) {
  KvArchive archive(values_, records_, clock_, options());
  const auto one = tale(archive);
  one->open(1);
  one->run({{1, 3 * kPositions}});
  std::vector<float> strange(4 * kPositions, 1e6f);
  one->load(2, strange);
  EXPECT_EQ(one->run({{1, 1}, {2, 1}}), std::vector<uint64_t>{2});
  EXPECT_NE(one->last_error().find("not in the archive"), std::string::npos) << one->last_error();
  one->close(2);
  EXPECT_TRUE(one->run({{1, 40}}).empty());
}

TEST_P(ArchivedCache, ADamagedBlockEndsItsSequenceAndIsNotFoundAgain) {
  KvArchive archive(values_, records_, clock_, options());
  const auto one = tale(archive);
  one->open(1);
  one->run({{1, 6 * kPositions}});
  finish_writing(*one, archive, 6);
  const std::vector<float> numbers = one->sequences().at(1);
  one->close(1);
  for (const std::string& key : values_->keys())
    if (key[7] == 3) values_->value(key)->front() ^= std::byte{4};
  one->load(2, numbers);
  EXPECT_EQ(one->run({{2, 1}}), std::vector<uint64_t>{2});
  one->close(2);
  EXPECT_EQ(one->archived(numbers), 2u);
}

// Many blocks are damaged, of which the first reading meets a few. With few frames what is computed again is
// soon read from disk.
TEST_P(ArchivedCache, WhatIsComputedAgainLeansOnNothingThatIsDamaged) {
  constexpr uint32_t kBlocks = 40;
  std::vector<float> numbers;
  {
    KvArchive archive(values_, records_, clock_, options());
    const auto before = tale(archive);
    before->open(1);
    before->run({{1, kBlocks * kPositions}});
    finish_writing(*before, archive, kBlocks);
    numbers = before->sequences().at(1);
  }

  for (const std::string& key : values_->keys())
    if (key[7] % 4 == 2) values_->value(key)->front() ^= std::byte{4};

  KvArchive archive(values_, records_, clock_, options());
  const auto after = tale(archive, 3);
  after->load(2, numbers);
  EXPECT_EQ(after->run({{2, 1}}), std::vector<uint64_t>{2});
  after->close(2);
  after->count_on_from(0);  // the same numbers again
  after->open(3);
  for (uint32_t i = 0; i < kBlocks; ++i)
    EXPECT_TRUE(after->run({{3, kPositions}}).empty()) << i << ": " << after->last_error();
  after->cache().finish_archiving(std::chrono::seconds(20));
  EXPECT_TRUE(after->run({{3, 1}}).empty()) << after->last_error();
  EXPECT_EQ(archive.counters().quarantined.value(), kBlocks / 4);
  EXPECT_EQ(archive.counters().blocks_written.value(), kBlocks / 4) << "what is good is not written again";
  EXPECT_EQ(after->archived(numbers), kBlocks);
  after->load(4, numbers);
  EXPECT_TRUE(after->run({{4, 1}}).empty()) << "the archive is whole again: " << after->last_error();
}

TEST_P(ArchivedCache, AFullDiskOfTheArchiveTouchesNobody) {
  values_ = std::make_shared<MemoryBulk>([](Operation operation, std::string_view) {
    return operation == Operation::kCommit ? Fault::kFull : Fault::kNone;
  });
  KvArchive archive(values_, records_, clock_, options());
  const auto one = tale(archive);
  one->open(1);
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(one->run({{1, 50}}).empty()) << one->last_error();
  for (int i = 0; i < 5000 && archive.counters().failures.value() == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(archive.status().blocks, 0u);
  EXPECT_GT(archive.counters().failures.value(), 0u);
}

INSTANTIATE_TEST_SUITE_P(FewFramesOrAll, ArchivedCache, testing::Bool(),
                         [](const auto& which) { return which.param ? "Spilling" : "AllInMemory"; });

}  // namespace
}  // namespace caravan
