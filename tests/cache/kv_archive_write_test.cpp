// Writing into the archive of KV blocks: how much of what is offered is taken, what it counts as, and what
// refuses it.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "tests/cache/archive_support.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using namespace test;

constexpr uint64_t kBlock = kSmallBlockBytes;

size_t taken(const std::vector<KvArchive::Handle>& handles) {
  return static_cast<size_t>(
      std::count_if(handles.begin(), handles.end(), [](const auto& handle) { return handle != nullptr; }));
}

// A battery that was empty, or a wrong time server: the day's bytes are those of the day that it is.
TEST(KvArchiveWriting, AClockThatWasAheadOnceEndsNothing) {
  for (const bool reopened : {false, true}) {
    ArchiveWorld world;
    const Bytes day{10 * kBlock};
    auto archive = world.open(day);
    world.clock.advance(std::chrono::hours(24 * 3650));
    EXPECT_EQ(taken(write_chain(*archive, 1, 10)), 10u);
    world.clock.advance(-std::chrono::hours(24 * 3650));
    if (reopened) {
      archive.reset();
      archive = world.open(day);
    }
    for (uint64_t today = 1; today <= 3; ++today) {
      EXPECT_EQ(taken(write_chain(*archive, 100 * today, 100 * today + 7)), 8u) << today;
      EXPECT_EQ(taken(write_chain(*archive, 100 * today + 50, 100 * today + 57)), 2u) << "of one day, ten";
      world.clock.advance(std::chrono::hours(24));
    }
  }
}

// By the number in its tag: what is on record of it.
std::map<uint64_t, uint32_t> runs_on_record(const ArchiveWorld& world) {
  std::map<uint64_t, uint32_t> runs;
  world.records->scan(std::string(1, kArchivedPrefix), [&](std::string_view key, std::string_view value) {
    uint64_t first = 0;
    for (const char byte : key.substr(1)) first = first << 8 | static_cast<uint8_t>(byte);
    const auto batch = decode_archived(first, value);
    for (const ArchivedBlock& block : batch.value().blocks) {
      uint64_t number = 0;
      std::memcpy(&number, block.tag.bytes.data(), sizeof number);
      runs[number] = block.run;
    }
    return true;
  });
  return runs;
}

TEST(KvArchiveWriting, PromptsThatShareABatchKeepTheirRuns) {
  ArchiveWorld world;
  const auto archive = world.open();
  const KvArchiveShape shape = small_shape();
  // A step brings four blocks of each of two prompts; three ends behind the first one share a batch, too.
  const std::vector<std::byte> content(96 + 64 + 128);
  std::vector<KvArchive::Write> writes;
  const auto add = [&](uint64_t number, uint64_t before) {
    writes.push_back({numbered_tag(number), before == 0 ? BlockTag{} : numbered_tag(before), content.data()});
  };
  for (uint64_t step = 0; step < 2; ++step)
    for (uint64_t prompt = 1000; prompt <= 2000; prompt += 1000)
      for (uint64_t i = 4 * step + 1; i <= 4 * step + 4; ++i) add(prompt + i, i == 1 ? 0 : prompt + i - 1);
  ASSERT_EQ(taken(archive->write(shape, writes)), 16u);
  writes.clear();
  for (uint64_t end = 3000; end < 3003; ++end) add(end, 1008);
  ASSERT_EQ(taken(archive->write(shape, writes)), 3u);
  std::map<uint64_t, uint32_t> runs = runs_on_record(world);
  for (uint64_t i = 1; i <= 8; ++i) {
    EXPECT_EQ(runs[1000 + i], i);
    EXPECT_EQ(runs[2000 + i], i);
  }
  EXPECT_EQ(runs[3000], 9u) << "it goes on";
  EXPECT_EQ(runs[3001], 1u) << "a fork's end is short";
  EXPECT_EQ(runs[3002], 1u);
}

// Where a limit of the process refuses memory to the writing thread, to the archive's own or to a reader, it
// costs what it was for and no more.
TEST(KvArchiveWriting, WithoutMemoryItIsOffForAWhileAndLosesNothing) {
  for (const bool of_records : {false, true}) {
    std::atomic<bool> none{false};
    ArchiveWorld world;
    world.values = std::make_shared<MemoryBulk>([&](MemoryBulk::Operation, std::string_view) {
      if (none && !of_records) throw std::bad_alloc();
      return MemoryBulk::Fault::kNone;
    });
    world.records = std::make_shared<MemoryStore>([&](MemoryStore::Operation, std::string_view) {
      if (none && of_records) throw std::bad_alloc();
      return false;
    });
    auto archive = world.open();
    ASSERT_EQ(taken(write_chain(*archive, 1, 4)), 4u);
    none = true;
    EXPECT_EQ(taken(write_chain(*archive, 5, 8, numbered_tag(4))), 0u);
    EXPECT_EQ(archive->counters().failures.value(), 1u);
    EXPECT_TRUE(archive->status().off);
    world.clock.advance(std::chrono::seconds(11));
    KvArchive::Handle block = archive->adopt(small_shape(), numbered_tag(2));
    ASSERT_TRUE(block);
    std::vector<std::byte> to(96);
    const auto error = block->read(4, std::vector<uint64_t>{to.size()}, to.data());
    ASSERT_EQ(error.has_value(), !of_records);
    if (error) {
      EXPECT_EQ(error->code(), ErrorCode::kOutOfMemory);
      EXPECT_NE(error->message().find("block 02000000, layer 4"), std::string::npos) << error->message();
    }
    EXPECT_EQ(archive->counters().quarantined.value(), 0u) << "it is as good as it was";
    block.reset();
    archive.reset();  // writes what the uses are, or cannot
    none = false;
    archive = world.open();
    EXPECT_EQ(found_of_chain(*archive, 1, 8), 4u);
    EXPECT_EQ(taken(write_chain(*archive, 5, 8, numbered_tag(4))), 4u);
    archive->settle();
    EXPECT_EQ(world.values->bytes().count, archive->status().bytes);
    for (uint64_t number = 1; number <= 8; ++number) EXPECT_TRUE(reads_back(*archive, numbered_tag(number)));
  }
}

// Of four blocks, in one piece and in pieces of two cuts, some are damaged that nobody has read since.
TEST(KvArchiveWriting, WhatIsComputedIsWrittenAnewWhereWhatIsThereIsDamaged) {
  const KvArchiveShape all = small_shape(), front = small_shape(4, {96, 64}), back = small_shape(6, {128});
  for (const bool in_pieces : {false, true}) {
    ArchiveWorld world;
    const auto archive = world.open();
    for (const KvArchiveShape& shape : in_pieces ? std::vector{front, back} : std::vector{all})
      ASSERT_EQ(taken(write_chain(*archive, 1, 4, {}, shape)), 4u);
    const std::string last_serial = kv_key(in_pieces ? 8 : 4, 6), second = kv_key(2, 5);
    for (const std::string& key : {last_serial, second}) world.values->value(key)->front() ^= std::byte{1};
    EXPECT_EQ(taken(write_chain(*archive, 1, 4)), 4u) << "who did not compute them does not read them";
    EXPECT_EQ(archive->counters().quarantined.value(), 0u);
    const uint64_t written = archive->counters().blocks_written.value();
    EXPECT_EQ(taken(write_chain(*archive, 1, 4, {}, all, true)), 4u);
    EXPECT_EQ(archive->counters().quarantined.value(), 2u);
    EXPECT_EQ(archive->counters().blocks_written.value(), written + 2) << "what is good stays";
    for (uint64_t number = 1; number <= 4; ++number) EXPECT_TRUE(reads_back(*archive, numbered_tag(number)));
    EXPECT_EQ(taken(write_chain(*archive, 1, 4, {}, all, true)), 4u);
    EXPECT_EQ(archive->counters().blocks_written.value(), written + 2);
  }
}

// While the archive is off, or has no memory to read, nobody can tell whether what it has is good.
TEST(KvArchiveWriting, WhatIsComputedIsRefusedWhereWhatIsThereCannotBeRead) {
  std::atomic<bool> none{false};
  ArchiveWorld world;
  world.values = std::make_shared<MemoryBulk>([&](MemoryBulk::Operation, std::string_view) {
    if (none) throw std::bad_alloc();
    return MemoryBulk::Fault::kNone;
  });
  const auto archive = world.open();
  write_chain(*archive, 1, 2);
  none = true;
  EXPECT_EQ(taken(write_chain(*archive, 1, 2, {}, small_shape(), true)), 0u);
  EXPECT_TRUE(archive->status().off);
  none = false;
  EXPECT_EQ(taken(write_chain(*archive, 1, 2, {}, small_shape(), true)), 0u) << "it is off";
  EXPECT_EQ(archive->counters().refused.value(), 4u);
  world.clock.advance(std::chrono::seconds(11));
  EXPECT_EQ(taken(write_chain(*archive, 1, 2, {}, small_shape(), true)), 2u);
  EXPECT_EQ(archive->counters().quarantined.value(), 0u);
  EXPECT_EQ(archive->counters().blocks_written.value(), 2u);
}

// What the archive's own thread could not note down or erase is done once it can.
TEST(KvArchiveWriting, WhatIsDeadWhileThereIsNoMemoryIsErasedLater) {
  std::atomic<bool> none{false};
  std::atomic<uint64_t> asked{0};
  ArchiveWorld world(Bytes{40 * kBlock});
  world.records = std::make_shared<MemoryStore>([&](MemoryStore::Operation what, std::string_view key) {
    if (none && key != "meta" && what == MemoryStore::Operation::kErase && ++asked > 0)
      throw std::bad_alloc();
    return false;
  });
  auto archive = world.open();
  for (uint64_t batch = 0; batch < 15; ++batch) write_chain(*archive, 100 * batch, 100 * batch + 1);
  none = true;
  write_chain(*archive, 5000, 5001);  // evicts
  archive->settle();
  EXPECT_GT(asked, 0u);
  const uint64_t before = world.values->bytes().count;
  EXPECT_GT(before, kBlock * archive->status().blocks);
  none = false;
  archive.reset();  // which asks once more
  EXPECT_LT(world.values->bytes().count, before);
  archive = world.open();
  EXPECT_EQ(world.values->bytes().count, kBlock * archive->status().blocks);
}

// Some blocks are in use and others are not; of what is offered, as much is taken as has room beside the
// former, and no more of the latter go than that needs.
TEST(KvArchiveWriting, AsMuchIsTakenAsHasRoom) {
  uint64_t in_part = 0, whole = 0, none = 0;
  for (uint64_t seed = 1; seed <= fewer(150); ++seed) {
    SeededRandom random(seed);
    ArchiveWorld world(Bytes{(90 + random.below(110)) * kBlock});
    uint64_t most = world.limit.count / 4 * 3 / kBlock;
    if (random.below(3) == 0) most = world.most_blocks = 20 + random.below(40);
    const auto archive = world.open();
    const uint64_t used = random.below(2) > 0 ? most - random.below(20) : random.below(most);
    const uint64_t unused = random.below(most - used + 1);
    const auto in_use = write_chain(*archive, 1, used);
    ASSERT_EQ(taken(in_use), used) << "seed " << seed;
    for (uint64_t i = 0; i < unused; ++i) ASSERT_EQ(taken(write_chain(*archive, 1000 + i, 1000 + i)), 1u);
    const uint64_t offered = 1 + random.below(24);
    const auto handles = write_chain(*archive, 5000, 5000 + offered - 1);
    const uint64_t expected = std::min(offered, most - used);
    EXPECT_EQ(taken(handles), expected) << "seed " << seed << ": " << used << " of " << most << " in use";
    for (uint64_t i = 0; i < offered; ++i) EXPECT_EQ(handles[i] != nullptr, i < expected) << "the first ones";
    EXPECT_EQ(archive->crowded(), expected < offered);
    EXPECT_GE(archive->counters().refused.value(), offered - expected);
    const uint64_t free = most - used - unused;
    EXPECT_EQ(archive->counters().evicted.value(), expected - std::min(expected, free)) << "seed " << seed;
    EXPECT_EQ(found_of_chain(*archive, 1, used), used);
    archive->settle();
    EXPECT_LE(world.values->bytes().count, world.limit.count);
    (expected == offered ? whole : expected == 0 ? none : in_part) += 1;
  }
  EXPECT_GT(whole, fewer(20));
  EXPECT_GT(in_part, fewer(20));
  EXPECT_GT(none, 0u);
}

TEST(KvArchiveWriting, AsMuchIsTakenAsADayOrADiskHasRoomFor) {
  ArchiveWorld world;
  auto archive = world.open(Bytes{10 * kBlock});
  EXPECT_EQ(taken(write_chain(*archive, 1, 16)), 10u);
  EXPECT_EQ(found_of_chain(*archive, 1, 16), 10u);
  EXPECT_FALSE(archive->crowded()) << "letting go of others would not help";
  archive.reset();
  KvArchiveOptions options{world.limit, std::nullopt, {}, "the archive"};
  options.disk_has_room = [&](Bytes bytes) { return world.values->bytes() + bytes <= Bytes{15 * kBlock}; };
  archive = std::make_unique<KvArchive>(world.values, world.records, world.clock, options);
  EXPECT_EQ(taken(write_chain(*archive, 11, 18, numbered_tag(10))), 5u);
  EXPECT_EQ(taken(write_chain(*archive, 16, 18, numbered_tag(15))), 0u);
  EXPECT_FALSE(archive->crowded());
  for (uint64_t number = 1; number <= 15; ++number) EXPECT_TRUE(reads_back(*archive, numbered_tag(number)));
}

// Whatever fails: what goes to disk is on record before, so that a kill at that moment cannot stretch the
// day.
TEST(KvArchiveWriting, ADaysBytesAreOnRecordBeforeTheyAreWritten) {
  uint64_t refused_records = 0, commits = 0, rewritten = 0;
  for (uint64_t seed = 1; seed <= fewer(40); ++seed) {
    std::atomic<uint64_t> asked{0}, added{0}, committed{0};
    std::atomic<bool> ahead{false};
    ArchiveWorld world(Bytes{48 * kBlock});
    const auto fails = [&](uint64_t one_of) { return mix64(seed * 1000003 + asked++) % one_of == 0; };
    world.records = std::make_shared<MemoryStore>([&](MemoryStore::Operation what, std::string_view key) {
      const bool refused = key == "meta" && what == MemoryStore::Operation::kPut && asked > 0 && fails(3);
      refused_records += refused;
      return refused;
    });
    world.values = std::make_shared<MemoryBulk>([&](MemoryBulk::Operation what, std::string_view) {
      if (what == MemoryBulk::Operation::kAdd) ++added;
      if (what != MemoryBulk::Operation::kCommit) return MemoryBulk::Fault::kNone;
      const uint64_t bytes = added.exchange(0) / 3 * kBlock;
      const std::string meta = world.records->get("meta").value();
      unsigned long long on_record = 0;
      std::sscanf(meta.c_str() + meta.find('\n'), "%*f %*d %llu", &on_record);
      // What cutting out the dead writes again is told when it is done.
      if (committed + bytes + world.values->rewritten().count > on_record) ahead = true;
      if (fails(9)) return MemoryBulk::Fault::kIo;
      committed += bytes;
      ++commits;
      return MemoryBulk::Fault::kNone;
    });
    const auto archive = world.open(Bytes{400 * kBlock});
    asked = 1;
    SeededRandom random(seed);
    for (uint64_t i = 1; i <= 60; ++i) {
      write_chain(*archive, 100 * i, 100 * i + random.below(6));
      // Beginnings outlive their ends, so that parts of batches die.
      for (uint64_t use = 0; use < 8; ++use) archive->adopt(small_shape(), numbered_tag(100 * i));
      if (archive->status().off) world.clock.advance(std::chrono::seconds(60));
      if (random.below(4) == 0) archive->settle();
    }
    EXPECT_FALSE(ahead) << "seed " << seed;
    EXPECT_LE(committed + world.values->rewritten().count, 400 * kBlock);
    rewritten += world.values->rewritten().count;
  }
  EXPECT_GT(refused_records, fewer(50));
  EXPECT_GT(commits, fewer(500));
  EXPECT_GT(rewritten, 0u) << "two spend of one day";
}

TEST(KvArchiveWriting, WhatTheStoreWasNotGivenIsNotOfTheDaysBytes) {
  std::atomic<bool> broken{true};
  ArchiveWorld world;
  world.values = std::make_shared<MemoryBulk>([&](MemoryBulk::Operation what, std::string_view) {
    return broken && what == MemoryBulk::Operation::kAdd ? MemoryBulk::Fault::kIo : MemoryBulk::Fault::kNone;
  });
  const auto archive = world.open(Bytes{11 * kBlock});
  for (uint64_t attempt = 0; attempt < 5; ++attempt) {
    EXPECT_EQ(taken(write_chain(*archive, 1, 10)), 0u);
    world.clock.advance(std::chrono::minutes(4));
  }
  EXPECT_EQ(archive->counters().failures.value(), 5u) << "each was tried";
  broken = false;
  EXPECT_EQ(taken(write_chain(*archive, 1, 10)), 9u) << "a first value of each attempt may have been written";
}

}  // namespace
}  // namespace caravan
