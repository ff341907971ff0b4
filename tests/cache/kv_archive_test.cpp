// The archive of KV blocks: what is kept, for how long, and what a kill, a bad disk or a bound do to it.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "base/error.h"
#include "cache/kv_value.h"
#include "store/rocks_store.h"
#include "tests/cache/archive_support.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

using namespace test;
using Fault = MemoryBulk::Fault;
using Operation = MemoryBulk::Operation;

constexpr uint64_t kBlock = kSmallBlockBytes;

TEST(KvArchive, WhatWasWrittenIsThereAfterReopening) {
  ArchiveWorld world;
  auto archive = world.open();
  for (const auto& handle : write_chain(*archive, 1, 10)) EXPECT_TRUE(handle);
  for (const auto& handle : write_chain(*archive, 11, 12, numbered_tag(10))) EXPECT_TRUE(handle);
  archive.reset();
  archive = world.open();
  EXPECT_EQ(found_of_chain(*archive, 1, 12), 12u);
  EXPECT_EQ(archive->status().bytes, 12 * kBlock);
  for (uint64_t number = 1; number <= 12; ++number)
    EXPECT_TRUE(reads_back(*archive, numbered_tag(number))) << number;
  EXPECT_EQ(found_of_chain(*archive, 13, 13), 0u);
}

TEST(KvArchive, OnlyEqualLineageIsFound) {
  ArchiveWorld world;
  const auto archive = world.open();
  write_chain(*archive, 1, 3);
  KvArchiveShape other = small_shape();
  other.lineage = Lineage{{8}};
  EXPECT_EQ(found_of_chain(*archive, 1, 3, other), 0u);
  EXPECT_FALSE(archive->adopt(other, numbered_tag(1)));
}

TEST(KvArchive, AnotherCutOfTheLayersFindsWhatIsThere) {
  ArchiveWorld world;
  auto archive = world.open();
  const KvArchiveShape low = small_shape(2, {96, 64}), high = small_shape(4, {128, 32}),
                       middle = small_shape(3, {64, 128}), all = small_shape(2, {96, 64, 128, 32});
  write_chain(*archive, 1, 2, {}, low);
  EXPECT_EQ(found_of_chain(*archive, 1, 2, middle), 0u);
  write_chain(*archive, 1, 2, {}, high);
  archive.reset();
  archive = world.open();
  EXPECT_EQ(found_of_chain(*archive, 1, 2, middle), 2u);
  EXPECT_TRUE(reads_back(*archive, numbered_tag(2), middle));
  EXPECT_TRUE(reads_back(*archive, numbered_tag(2), all));
  EXPECT_TRUE(reads_back(*archive, numbered_tag(1), small_shape(3, {64})));
  EXPECT_EQ(found_of_chain(*archive, 1, 2, small_shape(2, {96, 64, 128, 32, 8})), 0u);
  // One cut that holds the layers of others takes their place.
  const uint64_t before = archive->counters().blocks_written.value();
  write_chain(*archive, 1, 2, {}, small_shape(2, {96, 64, 128, 32, 8}));
  EXPECT_EQ(archive->counters().blocks_written.value(), before + 2);
  archive->settle();
  EXPECT_EQ(archive->status().blocks, 2u);
  EXPECT_TRUE(reads_back(*archive, numbered_tag(2), middle));
}

TEST(KvArchive, KnownBlocksAreNotWrittenAgain) {
  ArchiveWorld world;
  const auto archive = world.open();
  write_chain(*archive, 1, 4);
  const uint64_t written = archive->counters().bytes_written.value();
  for (const auto& handle : write_chain(*archive, 1, 4)) EXPECT_TRUE(handle);
  EXPECT_EQ(archive->counters().bytes_written.value(), written);
}

TEST(KvArchive, ABlockWithoutTheOneBeforeItIsRefused) {
  ArchiveWorld world;
  const auto archive = world.open();
  for (const auto& handle : write_chain(*archive, 5, 6, numbered_tag(4))) EXPECT_FALSE(handle);
  EXPECT_EQ(archive->counters().refused.value(), 2u);
  EXPECT_FALSE(write_chain(*archive, 7, 7, numbered_tag(7)).front()) << "its own successor";
  EXPECT_EQ(world.values->bytes().count, 0u);
}

TEST(KvArchive, StaysWithinItsBoundAndGivesSequencesUpFromTheirEnds) {
  ArchiveWorld world(Bytes{40 * kBlock});
  const auto archive = world.open();
  uint64_t most = 0;
  for (uint64_t chain = 0; chain < 30; ++chain) {
    for (uint64_t block = 0; block < 6; block += 2)
      write_chain(*archive, 100 * chain + block, 100 * chain + block + 1,
                  block == 0 ? BlockTag{} : numbered_tag(100 * chain + block - 1));
    archive->settle();
    most = std::max(most, world.values->bytes().count);
    EXPECT_LE(archive->status().bytes, 40 * kBlock);
  }
  EXPECT_LE(most, 40 * kBlock);
  EXPECT_GT(archive->counters().evicted.value(), 100u);
  uint64_t whole = 0, blocks = 0;
  for (uint64_t chain = 0; chain < 30; ++chain) {
    const uint32_t found = found_of_chain(*archive, 100 * chain, 100 * chain + 5);
    whole += found == 6;
    blocks += found;
  }
  EXPECT_EQ(blocks, archive->status().blocks) << "no block is left behind one that is gone";
  EXPECT_GE(whole, 4u);
  EXPECT_EQ(found_of_chain(*archive, 2900, 2905), 6u) << "the newest";
}

// What is known of them is in memory.
TEST(KvArchive, NeverHasMoreBlocksThanItMay) {
  ArchiveWorld world;
  world.most_blocks = 10;
  auto archive = world.open();
  for (uint64_t chain = 0; chain < 20; ++chain) {
    EXPECT_TRUE(write_chain(*archive, 100 * chain, 100 * chain).front());
    EXPECT_LE(archive->status().blocks, 10u);
  }
  EXPECT_EQ(found_of_chain(*archive, 1900, 1900), 1u) << "the newest";
  archive.reset();
  world.most_blocks = 4;
  archive = world.open();
  EXPECT_EQ(archive->status().blocks, 4u);
  archive->settle();
  EXPECT_EQ(world.values->bytes().count, 4 * kBlock);
}

TEST(KvArchive, WhatIsInUseStaysAndThenNothingNewIsTaken) {
  ArchiveWorld world(Bytes{16 * kBlock});
  const auto archive = world.open();
  const auto held = write_chain(*archive, 1, 12);
  EXPECT_FALSE(write_chain(*archive, 100, 100).front());
  EXPECT_EQ(found_of_chain(*archive, 1, 12), 12u);
}

TEST(KvArchive, TellsWhenMoreThanHalfOfItsBoundIsInUse) {
  ArchiveWorld world(Bytes{16 * kBlock});
  const auto archive = world.open();
  auto held = write_chain(*archive, 1, 12);
  EXPECT_TRUE(archive->mostly_in_use());
  held.resize(8);
  EXPECT_FALSE(archive->mostly_in_use());
  held.push_back(archive->adopt(small_shape(), numbered_tag(9)));
  EXPECT_TRUE(archive->mostly_in_use());
}

// Chats that share a long beginning, and prompts that come once, go before the end of a long session does.
TEST(KvArchive, NeitherASharedBeginningNorShortPromptsPushOutALongSession) {
  ArchiveWorld world(Bytes{400 * kBlock});
  const auto archive = world.open();
  write_chain(*archive, 1000, 1099);  // the session
  write_chain(*archive, 2000, 2059);  // the shared beginning
  for (uint64_t chat = 0; chat < 300; ++chat) {
    const auto begin = archive->adopt(small_shape(), numbered_tag(2059));
    ASSERT_TRUE(begin) << chat;
    write_chain(*archive, 10000 + 10 * chat, 10000 + 10 * chat + 1, numbered_tag(2059));
    write_chain(*archive, 50000 + 10 * chat, 50000 + 10 * chat + 1);
    archive->settle();
  }
  EXPECT_EQ(found_of_chain(*archive, 1000, 1099), 100u);
  EXPECT_EQ(found_of_chain(*archive, 2000, 2059), 60u);
  // It does not stay for ever either.
  for (uint64_t chain = 0; chain < 40; ++chain) {
    write_chain(*archive, 100000 + 1000 * chain, 100000 + 1000 * chain + 99);
    archive->settle();
  }
  EXPECT_EQ(found_of_chain(*archive, 1000, 1099), 0u);
}

TEST(KvArchive, ADaysBytesAreBoundedOverRestarts) {
  ArchiveWorld world;
  const Bytes day{10 * kBlock};
  auto archive = world.open(day);
  for (int round = 0; round < 4; ++round) {
    for (uint64_t i = 0; i < 4; ++i) write_chain(*archive, 100 * round + i, 100 * round + i);
    archive.reset();
    archive = world.open(day);
  }
  EXPECT_LE(archive->status().bytes, day.count);
  EXPECT_GE(archive->status().bytes, day.count - 2 * kBlock);
  world.clock.advance(std::chrono::hours(24));
  EXPECT_TRUE(write_chain(*archive, 7000, 7003).front());
}

// Every other block of each batch is given up, so that cutting them out writes the others again.
void leave_holes(ArchiveWorld& world, KvArchive& archive) {
  for (uint64_t batch = 0; batch < 5; ++batch) {
    for (uint64_t i = 0; i < 8; ++i) {
      const uint64_t number = 100 * batch + i;
      if (i % 2 == 0) continue;
      std::vector<std::byte>& value = *world.values->value(kv_key(8 * batch + i + 1, 4));
      value[3] ^= std::byte{1};
      std::vector<std::byte> to(96);
      const auto parts = std::vector<uint64_t>{to.size()};
      EXPECT_TRUE(archive.adopt(small_shape(), numbered_tag(number))->read(4, parts, to.data()));
    }
  }
}

TEST(KvArchive, WhatCuttingOutTheDeadWritesAgainIsOfTheDaysBytes) {
  for (const bool room : {true, false}) {
    ArchiveWorld world(Bytes{80 * kBlock});
    const Bytes day{(room ? 61 : 45) * kBlock};
    auto archive = world.open(day);
    for (uint64_t batch = 0; batch < 5; ++batch) write_chain(*archive, 100 * batch, 100 * batch + 7);
    ASSERT_EQ(archive->counters().bytes_written.value(), 40 * kBlock);
    leave_holes(world, *archive);
    archive->settle();
    const uint64_t written = archive->counters().bytes_written.value();
    EXPECT_EQ(written, 40 * kBlock + world.values->rewritten().count);
    EXPECT_LE(written, day.count);
    if (!room) {
      EXPECT_GT(archive->status().bytes, 30 * kBlock) << "the rest waits for another day";
      world.clock.advance(std::chrono::hours(24));
      EXPECT_TRUE(write_chain(*archive, 900, 900).front());
      archive->settle();
    }
    EXPECT_LE(archive->status().bytes, 30 * kBlock + kBlock);
    EXPECT_GT(world.values->rewritten().count, 0u);
    // What is cut out once costs nothing any more.
    uint64_t rewritten = 0;
    for (int round = 0; round < 2; ++round) {
      rewritten = world.values->rewritten().count;
      archive.reset();
      archive = world.open();
      archive->settle();
    }
    EXPECT_EQ(world.values->rewritten().count, rewritten);
    for (uint64_t batch = 0; batch < 5; ++batch)
      EXPECT_TRUE(reads_back(*archive, numbered_tag(100 * batch + 6)));
  }
}

TEST(KvArchive, ADamagedBlockIsReadOnceAndThenNeverFoundUntilItIsWrittenAgain) {
  ArchiveWorld world;
  auto archive = world.open();
  write_chain(*archive, 1, 4);
  const std::string key = world.values->keys()[4];  // the second layer of the second block
  world.values->value(key)->at(3) ^= std::byte{1};
  auto block = archive->adopt(small_shape(), numbered_tag(2));
  std::vector<std::byte> to(96 + 64);
  const auto error = block->read(4, std::vector<uint64_t>{96, 64}, to.data());
  ASSERT_TRUE(error);
  EXPECT_NE(error->message().find("the archive: block 02000000, layer 5"), std::string::npos)
      << error->message();
  EXPECT_EQ(found_of_chain(*archive, 1, 4), 1u);
  EXPECT_EQ(archive->counters().quarantined.value(), 1u);
  block.reset();
  archive->settle();
  archive.reset();
  archive = world.open();
  EXPECT_EQ(found_of_chain(*archive, 1, 4), 1u);
  EXPECT_TRUE(write_chain(*archive, 2, 2, numbered_tag(1)).front());
  EXPECT_EQ(found_of_chain(*archive, 1, 4), 4u) << "those behind it were good";
  for (uint64_t number = 1; number <= 4; ++number) EXPECT_TRUE(reads_back(*archive, numbered_tag(number)));
}

TEST(KvArchive, AFullDiskSwitchesItOffForAWhile) {
  ArchiveWorld world;
  std::atomic<bool> full{false};
  std::atomic<uint64_t> asked{0};
  world.values = std::make_shared<MemoryBulk>([&](Operation operation, std::string_view) {
    if (operation == Operation::kCommit) ++asked;
    return full && operation == Operation::kCommit ? Fault::kFull : Fault::kNone;
  });
  const auto archive = world.open();
  write_chain(*archive, 1, 2);
  full = true;
  for (uint64_t i = 0; i < 20; ++i) EXPECT_FALSE(write_chain(*archive, 10 + i, 10 + i).front());
  EXPECT_EQ(asked, 2u) << "nobody waits for a full disk again and again";
  EXPECT_TRUE(archive->status().off);
  full = false;
  world.clock.advance(std::chrono::seconds(11));
  EXPECT_TRUE(write_chain(*archive, 10, 10).front());
  EXPECT_FALSE(archive->status().off);
  EXPECT_EQ(found_of_chain(*archive, 1, 2), 2u);
  EXPECT_EQ(archive->counters().failures.value(), 1u);
}

TEST(KvArchive, ADiskThatCannotEraseAtOpeningCostsSpaceAlone) {
  ArchiveWorld world;
  bool broken = false;
  world.values = std::make_shared<MemoryBulk>([&](Operation operation, std::string_view) {
    return broken && operation == Operation::kErase ? Fault::kIo : Fault::kNone;
  });
  auto archive = world.open();
  write_chain(*archive, 1, 10);
  archive.reset();
  broken = true;
  archive = world.open();
  EXPECT_EQ(found_of_chain(*archive, 1, 10), 10u);
  for (const auto& handle : write_chain(*archive, 11, 12, numbered_tag(10))) EXPECT_TRUE(handle);
  for (uint64_t number = 1; number <= 12; ++number) EXPECT_TRUE(reads_back(*archive, numbered_tag(number)));
}

TEST(KvArchive, RecordsOfAnotherVersionAreLeftAlone) {
  ArchiveWorld world;
  world.records->put("meta", "caravan kv archive 9\nwhatever");
  try {
    world.open();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find("the archive"), std::string::npos);
  }
  EXPECT_EQ(world.records->get("meta"), "caravan kv archive 9\nwhatever");
}

TEST(KvArchive, RecordsOfAnOlderVersionAreToBeBegunAnew) {
  ArchiveWorld world;
  world.records->put("meta", "caravan kv archive 1\n12 0 0 1");
  try {
    world.open();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kMalformed);
    EXPECT_NE(error.message().find("the archive is of an older version"), std::string::npos);
  }
}

TEST(KvArchive, ASmallerBoundHoldsFromTheStartOn) {
  ArchiveWorld world(Bytes{40 * kBlock});
  auto archive = world.open();
  for (uint64_t session = 0; session < 6; ++session) write_chain(*archive, 100 * session, 100 * session + 4);
  ASSERT_EQ(archive->status().bytes, 30 * kBlock);
  archive.reset();
  world.limit = Bytes{16 * kBlock};
  archive = world.open();
  archive->settle();
  EXPECT_LE(world.values->bytes().count, 16 * kBlock);
  EXPECT_LE(archive->status().bytes, 16 * kBlock);
  EXPECT_GE(archive->status().blocks, 10u);
  EXPECT_EQ(found_of_chain(*archive, 500, 504), 5u) << "the newest";
}

// Every clock, use and count of a life is there in the next, so that the same goes then as would have gone.
TEST(KvArchive, WhatWasUsedLongAgoIsKnownAfterReopening) {
  for (const bool reopened : {false, true}) {
    ArchiveWorld world(Bytes{40 * kBlock});
    auto archive = world.open();
    for (uint64_t session = 0; session < 6; ++session)
      write_chain(*archive, 100 * session, 100 * session + 4);
    archive->adopt(small_shape(), numbered_tag(4));
    if (reopened) {
      archive.reset();
      archive = world.open();
    }
    write_chain(*archive, 1000, 1009);
    EXPECT_EQ(found_of_chain(*archive, 0, 4), 5u) << reopened;
    EXPECT_EQ(found_of_chain(*archive, 100, 104) + found_of_chain(*archive, 200, 204), 0u) << reopened;
    EXPECT_EQ(found_of_chain(*archive, 300, 304), 5u) << reopened;
  }
}

// Cutting out what is dead of a batch meets a damaged table: the batch goes whole.
TEST(KvArchive, ABatchOfWhichNoPartCanBeCutOutGoesWhole) {
  ArchiveWorld world;
  std::atomic<bool> damaged{false};
  world.values = std::make_shared<MemoryBulk>([&](Operation operation, std::string_view key) {
    // A part of the third batch, serials 17 to 24; not all of it.
    const bool part = key > kv_key(17, 0) && key < kv_key(25, 0);
    return damaged && operation == Operation::kErase && part ? Fault::kIo : Fault::kNone;
  });
  auto archive = world.open();
  for (uint64_t batch = 0; batch < 5; ++batch) write_chain(*archive, 100 * batch, 100 * batch + 7);
  leave_holes(world, *archive);
  archive->settle();
  ASSERT_EQ(archive->status().bytes, 40 * kBlock) << "nothing is cut out as yet";
  archive.reset();
  world.limit = Bytes{80 * kBlock};
  damaged = true;
  archive = world.open();
  KvArchive::Handle held = archive->adopt(small_shape(), numbered_tag(200));
  archive->settle();
  EXPECT_EQ(found_of_chain(*archive, 200, 207), 0u);
  EXPECT_EQ(archive->counters().quarantined.value(), 4u);
  EXPECT_EQ(archive->counters().failures.value(), 0u);
  EXPECT_EQ(archive->status().blocks, 16u);
  EXPECT_EQ(archive->status().bytes, 16 * kBlock);
  EXPECT_EQ(world.values->bytes().count, 16 * kBlock) << "nothing of it is left";
  std::vector<std::byte> to(96);
  EXPECT_TRUE(!held || held->read(4, std::vector<uint64_t>{96}, to.data())) << "it says that it is not there";
  held.reset();
  EXPECT_TRUE(reads_back(*archive, numbered_tag(106)));
  EXPECT_TRUE(write_chain(*archive, 200, 207).front()) << "it is written anew";
  archive.reset();
  archive = world.open();
  EXPECT_EQ(archive->status().blocks, 24u);
}

TEST(KvArchive, ADamagedRecordCostsItsBatchAlone) {
  ArchiveWorld world;
  auto archive = world.open();
  write_chain(*archive, 1, 2);
  write_chain(*archive, 11, 12);
  archive.reset();
  std::vector<std::string> keys;
  world.records->scan("b", [&](std::string_view key, std::string_view) {
    keys.emplace_back(key);
    return true;
  });
  ASSERT_EQ(keys.size(), 2u);
  std::string record = *world.records->get(keys[0]);
  record[20] = static_cast<char>(record[20] ^ 1);
  world.records->put(keys[0], record);
  archive = world.open();
  EXPECT_EQ(found_of_chain(*archive, 1, 2), 0u);
  EXPECT_EQ(found_of_chain(*archive, 11, 12), 2u);
  EXPECT_EQ(world.values->bytes().count, 2 * kBlock) << "its values are erased";
}

// A process that dies at any operation: afterwards nothing more reaches the stores. What write() acknowledged
// before is there, unless it made room; what is found reads as it was written; nothing else takes space.
void die_at(uint64_t operation, uint64_t seed, uint64_t& acknowledged, uint64_t& inside) {
  std::atomic<uint64_t> left{operation};
  std::atomic<bool> dead{false};
  const auto dies = [&] {
    if (dead) return true;
    if (left.fetch_sub(1) == 0) dead = true;
    return dead.load();
  };
  ArchiveWorld world(Bytes{24 * kBlock});
  world.values = std::make_shared<MemoryBulk>([&](Operation what, std::string_view) {
    return what != Operation::kRead && dies() ? Fault::kIo : Fault::kNone;
  });
  world.records = std::make_shared<MemoryStore>([&](MemoryStore::Operation what, std::string_view) {
    return what != MemoryStore::Operation::kScan && what != MemoryStore::Operation::kGet && dies();
  });
  SeededRandom random(seed);
  std::set<uint64_t> known, refused;
  try {
    const auto archive = world.open();
    for (int i = 0; i < 40 && !dead; ++i) {
      const uint64_t chain = 100 * random.below(9), length = 1 + random.below(4);
      uint64_t from = chain;
      while (known.count(from) > 0 && found_of_chain(*archive, from, from) > 0) ++from;
      const auto handles =
          write_chain(*archive, from, from + length - 1, from == chain ? BlockTag{} : numbered_tag(from - 1));
      if (dead) break;  // acknowledged or not, nobody can tell any more
      for (uint64_t k = 0; k < length; ++k)
        if (handles[k]) known.insert(from + k);
      if (random.below(4) == 0) archive->settle();
    }
    if (!dead) {
      archive->settle();
    } else {
      ++inside;
    }
    // What the index of the dead process still has, it had acknowledged and not given up.
    world.clock.advance(std::chrono::hours(1));  // past its being off
    for (auto at = known.begin(); at != known.end();)
      at = archive->adopt(small_shape(), numbered_tag(*at)) ? std::next(at) : known.erase(at);
    dead = true;
  } catch (const Error&) {
    ++inside;  // while it opened
    known.clear();
  }
  acknowledged += known.size();
  left = UINT64_MAX;
  dead = false;
  const auto archive = world.open();
  for (const uint64_t number : known)
    EXPECT_TRUE(reads_back(*archive, numbered_tag(number)))
        << number << ", seed " << seed << ", " << operation;
  archive->settle();
  uint64_t there = 0;
  for (uint64_t number = 0; number < 1000; ++number) {
    const bool found = found_of_chain(*archive, number, number) > 0;
    there += found;
    if (found) {
      EXPECT_TRUE(reads_back(*archive, numbered_tag(number)));
    }
  }
  EXPECT_EQ(there, archive->status().blocks);
  // Values of dead blocks wait for the rest of their batch, and are counted.
  EXPECT_LE(world.values->bytes().count, archive->status().bytes) << "seed " << seed << ", " << operation;
}

TEST(KvArchive, LosesNothingAcknowledgedWhereverItDies) {
  uint64_t acknowledged = 0, inside = 0;
  for (uint64_t seed = 1; seed <= test::fewer(12); ++seed)
    for (uint64_t operation = 0; operation < 60; operation += 1 + seed % 5)
      die_at(operation * (1 + seed % 3), seed, acknowledged, inside);
  EXPECT_GT(acknowledged, test::fewer(1000));
  EXPECT_GT(inside, test::fewer(50));
}

TEST(KvArchive, TheRealStoreDoesTheSame) {
  const TemporaryFolder folder;
  const SystemClock clock;
  for (int round = 0; round < 3; ++round) {
    RocksStore rocks(folder.path(), {"bulk.kv", "index"}, RocksStore::Access::kWrite,
                     RocksStore::Damage::kTolerated);
    KvArchive archive(rocks.bulk("bulk.kv"), rocks.family("index"), clock,
                      {Bytes{60 * kBlock}, std::nullopt, {}, "the archive"});
    if (round > 0) {
      EXPECT_EQ(found_of_chain(archive, 1, 12), 12u);
      EXPECT_TRUE(reads_back(archive, numbered_tag(12)));
    }
    write_chain(archive, 1, 12);
    write_chain(archive, 100u + 20 * static_cast<uint64_t>(round), 107u + 20 * static_cast<uint64_t>(round));
  }
}

// The largest table of the store: one bit of what lies so far into it, in eighths.
std::string flip_a_bit(const std::string& folder, uint64_t eighths) {
  std::filesystem::path largest;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/store"))
    if (entry.path().extension() == ".sst" &&
        (largest.empty() || entry.file_size() > std::filesystem::file_size(largest)))
      largest = entry.path();
  std::fstream file(largest, std::ios::in | std::ios::out | std::ios::binary);
  const auto at = static_cast<std::streamoff>(std::filesystem::file_size(largest) * eighths / 8);
  char byte = 0;
  file.seekg(at).read(&byte, 1);
  byte = static_cast<char>(byte ^ 1);
  file.seekp(at).write(&byte, 1);
  return largest;
}

// Nobody reads the block; the first that meets it is the compaction that cuts out what is dead beside it.
TEST(KvArchive, ADamagedTableOfTheRealStoreCostsItsBatchAlone) {
  const SystemClock clock;
  const KvArchiveShape shape = small_shape(0, {20'000});
  const uint64_t block = 20'000 + kKvSealBytes, limit = 160 * block;
  constexpr uint64_t kSessions = 26;  // of 8 blocks: more than the limit
  for (const uint64_t eighths : {1, 6}) {
    const TemporaryFolder folder;
    std::string damaged;
    uint64_t quarantined = 0;
    for (uint64_t life = 0; life < 3; ++life) {
      RocksStore rocks(folder.path(), {"bulk.kv", "index"}, RocksStore::Access::kWrite,
                       RocksStore::Damage::kTolerated);
      KvArchive archive(rocks.bulk("bulk.kv"), rocks.family("index"), clock,
                        {Bytes{limit}, std::nullopt, {}, "the archive"});
      if (life == 0) {
        for (const auto& handle : write_chain(archive, 1, 10, {}, shape)) EXPECT_TRUE(handle);
        damaged = flip_a_bit(folder.path(), eighths);
        continue;
      }
      // Beginnings are worth more than ends, so that parts of batches die.
      const auto use_beginning = [&](uint64_t first) {
        for (uint64_t use = 0; use < 12; ++use) archive.adopt(shape, numbered_tag(first + use % 3));
      };
      use_beginning(1);
      for (uint64_t session = 0; session < (life == 1 ? kSessions : 2); ++session) {
        const uint64_t first = 10'000 * life + 100 * session;
        auto handles = write_chain(archive, first, first + 7, {}, shape);
        if (!handles.back()) {  // a slow disk took longer to make room than a batch waits
          archive.settle();
          handles = write_chain(archive, first, first + 7, {}, shape);
        }
        EXPECT_TRUE(handles.back()) << life << ": " << session;
        use_beginning(first);
        archive.settle();
        EXPECT_LE(archive.status().bytes, limit);
        EXPECT_LE(rocks.bulk("bulk.kv")->bytes().count, limit + limit / 20) << life << ": " << session;
      }
      EXPECT_EQ(archive.counters().failures.value(), 0u);
      EXPECT_GE(archive.status().blocks, 96u);
      EXPECT_TRUE(reads_back(archive, numbered_tag(10'000 * life + (life == 1 ? 100 * (kSessions - 1) : 100)),
                             shape));
      quarantined += archive.counters().quarantined.value();
    }
    EXPECT_GT(quarantined, 0u) << "it was met";
    EXPECT_FALSE(std::filesystem::exists(damaged));
  }
}

}  // namespace
}  // namespace caravan
