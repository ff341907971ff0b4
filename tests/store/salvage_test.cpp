// What is left of batches that were given up, or whose process was killed.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "store/memory_bulk.h"
#include "store/rocks_store.h"
#include "store/table_block.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using Value = std::vector<std::byte>;
struct Entry {
  std::string key;
  Value value;
  bool operator==(const Entry&) const = default;
};
using Entries = std::vector<Entry>;

constexpr const char* kFamily = "bulk.test";
constexpr auto kKept = BulkStore::Uncommitted::kKept;

std::string key_of(size_t number) {
  return fmt::format("key {:06}", number);
}

// Many small ones, which share blocks, among large ones, which have one each.
Entries random_entries(SeededRandom& random) {
  Entries entries(1 + random.below(120));
  const bool small = random.below(3) == 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i].key = key_of(i * (1 + random.below(3)) + i);
    const size_t bytes = random.below(8) > 0 || small ? random.below(700) : random.below(100'000);
    entries[i].value.resize(bytes);
    for (std::byte& byte : entries[i].value) byte = static_cast<std::byte>(random.below(256));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.key < b.key; });
  entries.erase(std::unique(entries.begin(), entries.end(),
                            [](const Entry& a, const Entry& b) { return a.key == b.key; }),
                entries.end());
  return entries;
}

void add(BulkStore::Batch& batch, const Entries& entries) {
  for (const Entry& entry : entries) batch.add(entry.key, entry.value);
}

struct Salvaged {
  std::vector<std::string> notes;  // of each entry
  Entries entries;
};
Salvaged salvage(BulkStore& store) {
  Salvaged all;
  store.salvage([&](std::string_view notes, std::string_view key, std::span<const std::byte> value) {
    all.notes.emplace_back(notes);
    all.entries.push_back({std::string(key), {value.begin(), value.end()}});
  });
  return all;
}

bool is_prefix(const Entries& some, const Entries& all) {
  return some.size() <= all.size() && std::equal(some.begin(), some.end(), all.begin());
}

fs::path table_with(const std::string& folder, const std::string& extension) {
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.path().extension() == extension) return entry.path();
  return {};
}

// What both twins promise.
void keeps_what_is_given_up(BulkStore& store) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SeededRandom random(seed);
    const Entries entries = random_entries(random);
    {
      const auto kept = store.begin(kKept);
      kept->note("of ");
      add(*kept, entries);
      kept->note("this");
    }
    add(*store.begin(), entries);  // gone
    const Salvaged found = salvage(store);
    EXPECT_EQ(found.entries, entries) << "seed " << seed;
    for (const std::string& note : found.notes) EXPECT_EQ(note, "of this");
    EXPECT_TRUE(salvage(store).entries.empty()) << "it is gone";
    EXPECT_FALSE(store.read(entries.front().key, [](auto) {})) << "it was never committed";
  }
}

void forgets_what_is_committed_and_keeps_what_is_not_used(BulkStore& store) {
  SeededRandom random(40);
  const Entries committed = random_entries(random), kept = random_entries(random);
  {
    const auto batch = store.begin(kKept);
    batch->note("committed");
    add(*batch, committed);
    batch->commit();
  }
  EXPECT_TRUE(salvage(store).entries.empty());
  EXPECT_TRUE(store.read(committed.front().key, [](auto) {}));
  add(*store.begin(kKept), kept);
  const auto refuse = [](auto, auto, auto) { fail(ErrorCode::kIo, "the disk is full"); };
  EXPECT_THROW(store.salvage(refuse), Error);
  const auto other = store.begin(kKept);  // is under way
  other->add("a", committed.front().value);
  EXPECT_EQ(salvage(store).entries, kept);
}

// A batch may outlive its commit, and RocksDB then has its file already.
void the_next_one_is_left_alone_by_one_that_is_committed(BulkStore& store) {
  for (const auto then : {BulkStore::Uncommitted::kGone, kKept}) {
    auto first = store.begin(then);
    first->add("first", Value(20'000));
    first->commit();
    const auto second = store.begin(then);
    second->add("second", Value(20'000));
    first.reset();
    second->commit();
    EXPECT_TRUE(store.read("second", [](auto) {}));
    store.erase_range("", "~");
  }
}

TEST(MemoryBulk, KeepsWhatIsGivenUp) {
  MemoryBulk store;
  keeps_what_is_given_up(store);
  forgets_what_is_committed_and_keeps_what_is_not_used(store);
  the_next_one_is_left_alone_by_one_that_is_committed(store);
}

TEST(RocksBulk, KeepsWhatIsGivenUp) {
  TemporaryFolder folder;
  RocksStore store(folder.path(), {kFamily});
  keeps_what_is_given_up(*store.bulk(kFamily));
  forgets_what_is_committed_and_keeps_what_is_not_used(*store.bulk(kFamily));
  the_next_one_is_left_alone_by_one_that_is_committed(*store.bulk(kFamily));
}

TEST(RocksBulk, SalvagesTheBeginningOfATableThatWasCutAnywhere) {
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    TemporaryFolder folder;
    SeededRandom random(seed);
    const Entries entries = random_entries(random);
    {
      RocksStore store(folder.path(), {kFamily});
      const auto batch = store.bulk(kFamily)->begin(kKept);
      batch->note("note");
      add(*batch, entries);
    }
    const fs::path table = table_with(folder.path(), ".left");
    ASSERT_FALSE(table.empty());
    const uint64_t bytes = fs::file_size(table), left = random.below(bytes + 1);
    fs::resize_file(table, left);
    RocksStore store(folder.path(), {kFamily});
    const Salvaged found = salvage(*store.bulk(kFamily));
    EXPECT_TRUE(is_prefix(found.entries, entries)) << "seed " << seed;
    uint64_t lost = 0;
    for (size_t i = found.entries.size(); i < entries.size(); ++i)
      lost += entries[i].key.size() + entries[i].value.size();
    const size_t cut = found.entries.size() < entries.size() ? entries[found.entries.size()].value.size() : 0;
    EXPECT_LE(lost, bytes - left + cut + 100) << "no more than the one that was cut, seed " << seed;
    EXPECT_TRUE(table_with(folder.path(), ".left").empty());
    EXPECT_TRUE(table_with(folder.path(), ".notes").empty());
  }
}

// Whoever uses what was salvaged fails now and then: each value comes until it was used, and the room of
// those before it is given back meanwhile. Not of a table that the database has, too.
TEST(RocksBulk, WhatWasSalvagedGivesItsRoomBackAsItIsUsed) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    TemporaryFolder folder;
    SeededRandom random(200 + seed);
    Entries entries(30);
    for (size_t i = 0; i < entries.size(); ++i) {
      entries[i] = {key_of(i),
                    Value(random.below(4) > 0 ? 150'000 + random.below(300'000) : random.below(2000))};
      for (std::byte& byte : entries[i].value) byte = static_cast<std::byte>(random.below(256));
    }
    RocksStore store(folder.path(), {kFamily});
    const auto bulk = store.bulk(kFamily);
    add(*bulk->begin(kKept), entries);
    const fs::path table = table_with(folder.path(), ".left");
    const bool has_two_names = seed % 4 == 0;
    if (has_two_names) fs::create_hard_link(table, folder.path() + "/other");
    struct stat before {};
    ASSERT_EQ(::stat(table.c_str(), &before), 0);
    Entries used;
    blkcnt_t least = before.st_blocks;
    for (bool fails = true; fails;) {
      fails = false;
      try {
        bulk->salvage([&](auto, std::string_view key, std::span<const std::byte> value) {
          if (random.below(6) == 0) fail(ErrorCode::kIo, "the disk is full");
          if (!used.empty() && key <= used.back().key) return;  // used before
          used.push_back({std::string(key), {value.begin(), value.end()}});
        });
      } catch (const Error&) {
        fails = true;
        struct stat now {};
        ASSERT_EQ(::stat(table.c_str(), &now), 0);
        least = std::min(least, now.st_blocks);
      }
    }
    EXPECT_EQ(used, entries) << "seed " << seed;
    if (has_two_names)
      EXPECT_EQ(least, before.st_blocks);
    else
      EXPECT_LT(least, before.st_blocks) << "seed " << seed;
    EXPECT_TRUE(salvage(*bulk).entries.empty());
  }
}

TEST(RocksBulk, SalvagesWhatAKilledProcessHadWritten) {
  TemporaryFolder folder;
  SeededRandom random(50);
  Entries entries(40);
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i] = {key_of(i), Value(200'000)};
    for (std::byte& byte : entries[i].value) byte = static_cast<std::byte>(random.below(256));
  }
  const pid_t child = ::fork();
  if (child == 0) {
    RocksStore store(folder.path(), {kFamily});
    const auto batch = store.bulk(kFamily)->begin(kKept);
    batch->note("note");
    add(*batch, entries);
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  RocksStore store(folder.path(), {kFamily});
  const Salvaged found = salvage(*store.bulk(kFamily));
  EXPECT_TRUE(is_prefix(found.entries, entries));
  EXPECT_GT(found.entries.size(), 30u) << "a megabyte or two were on their way";
  ASSERT_FALSE(found.notes.empty());
  EXPECT_EQ(found.notes.front(), "note");
}

// One that reached the disk whole, and was not taken in: what follows its values is for the caller to know.
TEST(CutTable, AWholeOneBeginsWithAllItsValues) {
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    TemporaryFolder folder;
    SeededRandom random(100 + seed);
    const Entries entries = random_entries(random);
    {
      RocksStore store(folder.path(), {kFamily});
      const auto batch = store.bulk(kFamily)->begin();
      add(*batch, entries);
      batch->commit();
    }
    Entries found;
    read_cut_table(table_with(folder.path(), ".sst"), [&](std::string_view key, auto value) {
      found.push_back({std::string(key), {value.begin(), value.end()}});
    });
    EXPECT_TRUE(is_prefix(entries, found)) << "seed " << seed;
  }
}

TEST(CutTable, AnyBytesEnd) {
  TemporaryFolder folder;
  const std::string path = folder.path() + "/table";
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SeededRandom random(seed);
    std::vector<uint8_t> bytes(random.below(400));
    random.fill(bytes);
    // Lengths that are small enough to be met.
    for (uint8_t& byte : bytes)
      if (random.below(2) == 0) byte = static_cast<uint8_t>(random.below(12));
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    size_t found = 0;
    EXPECT_EQ(read_cut_table(path, [&](auto, auto value) { found += value.size(); }), "");
    EXPECT_LE(found, bytes.size());
  }
  for (const char* name : {"/none", "/"})
    EXPECT_NE(read_cut_table(folder.path() + name, [](auto, auto) {}), "") << name;
}

}  // namespace
}  // namespace caravan
