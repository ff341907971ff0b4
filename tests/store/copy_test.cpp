// Records are kept twice: damage of their tables costs nothing.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "store/rocks_store.h"
#include "tests/store/faulty_disk.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using Records = std::map<std::string, std::string>;

constexpr auto kKept = RocksStore::Damage::kOfTablesTolerated;
constexpr auto kStrict = RocksStore::Damage::kRefused;

std::optional<ErrorCode> error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return std::nullopt;
}

Records all(const KeyValue& store) {
  Records found;
  std::string last;
  store.scan("", [&](std::string_view key, std::string_view value) {
    EXPECT_TRUE(found.empty() || last < key) << "not in order, or twice";
    last = key;
    found.emplace(key, value);
    return true;
  });
  return found;
}

Records read(const std::string& folder, RocksStore::Access access, RocksStore::Damage damage = kKept) {
  RocksStore store(folder, {"pins"}, access, damage);
  const auto pins = store.family("pins");
  Records found = all(*pins);
  for (const auto& [key, value] : found) EXPECT_EQ(pins->get(key), value);
  EXPECT_FALSE(pins->get("nobody"));
  return found;
}

std::set<fs::path> tables_of(const std::string& folder) {
  std::set<fs::path> tables;
  for (const auto& entry : fs::directory_iterator(folder + "/store"))
    if (entry.path().extension() == ".sst") tables.insert(entry.path());
  return tables;
}

void flip(const fs::path& file, uint64_t at, int mask = 0x10) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(static_cast<std::streamoff>(at));
  const int was = bytes.get();
  bytes.seekp(static_cast<std::streamoff>(at));
  bytes.put(static_cast<char>(was ^ mask));
}

void copy_store(const std::string& from, const std::string& to) {
  fs::remove_all(to + "/store");
  fs::copy(from + "/store", to + "/store", fs::copy_options::recursive);
}

// Puts and erases, over as many lives of the store; returns what is left.
Records write(const std::string& folder, int lives, RocksStore::Damage damage = kKept) {
  SeededRandom random(7);
  Records model;
  for (int life = 0; life < lives; ++life) {
    RocksStore store(folder, {"pins"}, RocksStore::Access::kWrite, damage);
    const auto pins = store.family("pins");
    for (int i = 0; i < 40; ++i) {
      const std::string key = "key" + std::to_string(random.below(60));
      if (random.below(4) == 0) {
        pins->erase(key);
        model.erase(key);
      } else {
        model[key] = std::string(random.below(400), static_cast<char>(random.below(256)));
        pins->put(key, model[key]);
      }
    }
  }
  return model;
}

TEST(RocksCopy, NoFlippedByteOfATableCostsARecord) {
  for (const int lives : {5, 1}) {  // those that were made one of several, and a table each
    if (lives == 1 && test::takes_less()) continue;
    TemporaryFolder folder, damaged;
    const Records model = write(folder.path(), lives);
    const auto tables = tables_of(folder.path());
    ASSERT_GE(tables.size(), 2u);
    ASSERT_LE(tables.size(), 9u);
    for (const fs::path& whole : tables) {
      const uint64_t bytes = fs::file_size(whole);
      for (const uint64_t at : {uint64_t{1}, bytes / 3, bytes - 300, bytes - 3}) {
        SCOPED_TRACE(whole.filename().string() + " at " + std::to_string(at));
        copy_store(folder.path(), damaged.path());
        const fs::path table = damaged.path() + "/store/" + whole.filename().string();
        flip(table, at);
        ASSERT_EQ(read(damaged.path(), RocksStore::Access::kRead), model);
        ASSERT_EQ(tables_of(damaged.path()).size(), tables.size()) << "a reader changed something";
        ASSERT_EQ(read(damaged.path(), RocksStore::Access::kWrite), model);
        // From now on it is a store like any other.
        ASSERT_EQ(read(damaged.path(), RocksStore::Access::kRead, kStrict), model);
      }
    }
  }
}

TEST(RocksCopy, ATableThatIsCutOrGoneCostsNothing) {
  const std::vector<std::function<void(const fs::path&)>> damages = {
      [](const fs::path& table) { fs::resize_file(table, fs::file_size(table) / 2); },
      [](const fs::path& table) { fs::resize_file(table, 0); },
      [](const fs::path& table) { fs::remove(table); },
  };
  TemporaryFolder folder, damaged;
  const Records model = write(folder.path(), 2);
  for (const fs::path& whole : tables_of(folder.path()))
    for (size_t i = 0; i < damages.size(); ++i) {
      SCOPED_TRACE(whole.filename().string() + ", damage " + std::to_string(i));
      copy_store(folder.path(), damaged.path());
      damages[i](damaged.path() + "/store/" + whole.filename().string());
      for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite})
        ASSERT_EQ(read(damaged.path(), access), model);
      ASSERT_EQ(read(damaged.path(), RocksStore::Access::kRead, kStrict), model);
    }
}

// In a process of its own that is killed while it opens the store to write.
void open_and_be_killed(const std::string& folder, useconds_t after) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    RocksStore store(folder, {"pins"}, RocksStore::Access::kWrite, kKept);
    ::pause();
    ::_exit(0);
  }
  ::usleep(after);
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(RocksCopy, AMendingThatIsKilledCostsNothing) {
  TemporaryFolder folder, damaged;
  const Records model = write(folder.path(), 2);
  SeededRandom random(11);
  for (int round = 0; round < 8; ++round) {
    copy_store(folder.path(), damaged.path());
    const auto tables = tables_of(damaged.path());
    flip(*std::next(tables.begin(), static_cast<long>(random.below(tables.size()))), 9);
    open_and_be_killed(damaged.path(), static_cast<useconds_t>(random.below(60'000)));
    ASSERT_EQ(read(damaged.path(), RocksStore::Access::kRead), model) << round;
    ASSERT_EQ(read(damaged.path(), RocksStore::Access::kWrite), model) << round;
    ASSERT_EQ(read(damaged.path(), RocksStore::Access::kRead, kStrict), model) << round;
  }
}

TEST(RocksCopy, AFirstCopyThatIsKilledIsAllOrNothing) {
  TemporaryFolder folder, damaged;
  const Records model = write(folder.path(), 1, kStrict);
  SeededRandom random(12);
  size_t whole = 0;
  for (int round = 0; round < 8; ++round) {
    copy_store(folder.path(), damaged.path());
    const auto before = tables_of(damaged.path());
    open_and_be_killed(damaged.path(), static_cast<useconds_t>(random.below(60'000)));
    for (const fs::path& table : before) flip(table, 9);
    const auto error = error_of([&] {
      ASSERT_EQ(read(damaged.path(), RocksStore::Access::kRead), model) << round;
      ++whole;
    });
    EXPECT_TRUE(!error || error == ErrorCode::kMalformed) << round;
  }
  RecordProperty("whole", static_cast<int>(whole));
}

// What is met while the store is open is read from the copy, too, and written anew by the next opening.
TEST(RocksCopy, DamageBesideAnOpenStoreIsReadAround) {
  TemporaryFolder folder;
  const Records model = write(folder.path(), 1);
  {
    RocksStore store(folder.path(), {"pins"}, RocksStore::Access::kRead, kKept);
    const auto tables = tables_of(folder.path());
    const fs::path table = *std::max_element(tables.begin(), tables.end(), [](const auto& a, const auto& b) {
      return fs::file_size(a) < fs::file_size(b);
    });
    for (uint64_t at = 0; at < fs::file_size(table) / 2; at += 100) flip(table, at);
    EXPECT_EQ(all(*store.family("pins")), model);
  }
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kWrite), model);
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kRead, kStrict), model);
}

// A store that was written before there were copies, or by a program that does not know of them meanwhile.
TEST(RocksCopy, AStoreWithoutACopyGetsOneAndOneThatLagsIsMadeAlike) {
  TemporaryFolder folder, damaged;
  const Records model = write(folder.path(), 1, kStrict);
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kRead), model);
  const size_t tables = tables_of(folder.path()).size();
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kWrite), model);
  EXPECT_GT(tables_of(folder.path()).size(), tables);
  const std::string first = model.begin()->first;
  {
    RocksStore store(folder.path(), {"pins", "copy.pins"}, RocksStore::Access::kWrite, kStrict);
    store.family("copy.pins")->put("old", "value");
    store.family("copy.pins")->erase(first);
  }
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kWrite), model);
  for (const fs::path& table : tables_of(folder.path())) {
    copy_store(folder.path(), damaged.path());
    flip(damaged.path() + "/store/" + table.filename().string(), 9);
    EXPECT_EQ(read(damaged.path(), RocksStore::Access::kRead), model) << table;
    EXPECT_EQ(read(damaged.path(), RocksStore::Access::kWrite), model) << table;
  }
}

// A copy that was begun, and did not come to its end, never stands in for what it was to be a copy of.
TEST(RocksCopy, HalfACopyIsNotTakenForAllThereIs) {
  TemporaryFolder folder;
  write(folder.path(), 1);
  {
    RocksStore store(folder.path(), {"pins", "copy.pins"}, RocksStore::Access::kWrite, kStrict);
    store.family("copy.pins")->erase("");  // what is put last
    store.family("copy.pins")->erase(all(*store.family("pins")).begin()->first);
  }
  for (const fs::path& table : tables_of(folder.path())) flip(table, 9);
  for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite})
    EXPECT_EQ(error_of([&] { read(folder.path(), access); }), ErrorCode::kMalformed);
}

// 1.2 MB of random bytes: tables that are larger than what is read of them at once.
Records write_much(const std::string& folder) {
  SeededRandom random(13);
  Records model;
  RocksStore store(folder, {"pins"}, RocksStore::Access::kWrite, kKept);
  for (int i = 0; i < 120; ++i) {
    std::string value(10'000, ' ');
    for (char& byte : value) byte = static_cast<char>(random.below(256));
    const std::string key = std::to_string(i);
    store.family("pins")->put(key, model[key] = value);
  }
  return model;
}

// The disk says that it cannot read, not that what it reads is damaged; it may be able to again, or give
// other bytes for those that it lost.
TEST(RocksCopy, WhatTheDiskDoesNotGiveOutIsReadFromTheOtherWhichStays) {
  TemporaryFolder folder, damaged;
  const Records model = write_much(folder.path());
  for (const fs::path& whole : tables_of(folder.path())) {
    if (fs::file_size(whole) < 530'000) continue;  // read whole when it is opened
    SCOPED_TRACE(whole);
    copy_store(folder.path(), damaged.path());
    const fs::path table = damaged.path() + "/store/" + whole.filename().string();
    {
      const test::UnreadableFile unreadable(table, 4096);
      EXPECT_EQ(read(damaged.path(), RocksStore::Access::kRead), model);
      EXPECT_EQ(read(damaged.path(), RocksStore::Access::kWrite), model);
      EXPECT_GT(test::UnreadableFile::refused_reads(), 0u);
    }
    for (uint64_t at = 0; fs::exists(table) && at < 4096; ++at) flip(table, at, 0xff);
    EXPECT_EQ(read(damaged.path(), RocksStore::Access::kRead), model);
    EXPECT_EQ(read(damaged.path(), RocksStore::Access::kWrite), model);
    EXPECT_EQ(read(damaged.path(), RocksStore::Access::kRead, kStrict), model);
  }
}

TEST(RocksCopy, WithoutRoomForAllOfItNoMendingIsBegun) {
  TemporaryFolder folder;
  const Records model = write_much(folder.path());
  const auto tables = tables_of(folder.path());
  flip(*tables.begin(), 9);
  {
    const test::DiskWithLittleRoom full(3u << 20);  // 1.2 MB of records, in a log and in a table
    EXPECT_EQ(read(folder.path(), RocksStore::Access::kWrite), model);
    EXPECT_EQ(tables_of(folder.path()), tables);
    flip(*tables.begin(), 9);
    RocksStore store(folder.path(), {"pins"}, RocksStore::Access::kWrite, kKept);
    store.family("pins")->put("0", model.at("1"));
    store.family("pins")->put("0", model.at("0"));
    flip(*tables.begin(), 9);
  }
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kWrite), model);
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kRead, kStrict), model);
}

TEST(RocksCopy, TablesBecomeOneWhenThereIsRoomForIt) {
  TemporaryFolder folder;
  const Records model = write_much(folder.path());
  size_t tables = tables_of(folder.path()).size();
  for (int life = 0; life < 5; ++life) {
    const test::DiskWithLittleRoom full(2u << 20);  // enough for the log, not for 1.2 MB beside it
    RocksStore store(folder.path(), {"pins"}, RocksStore::Access::kWrite, kKept);
    EXPECT_GE(tables_of(folder.path()).size(), tables);
    tables = tables_of(folder.path()).size();
    store.family("pins")->put("0", model.at("0"));
    EXPECT_EQ(all(*store.family("pins")), model);
  }
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kWrite), model);
  EXPECT_LT(tables_of(folder.path()).size(), tables);
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kRead, kStrict), model);
}

// What one lacks is read from the other, and nothing of either is let go.
TEST(RocksCopy, DamageOfBothInOtherPlacesCostsNothing) {
  TemporaryFolder folder;
  const Records model = write_much(folder.path());
  std::vector<fs::path> tables;  // the family's and the copy's
  for (const fs::path& table : tables_of(folder.path()))
    if (fs::file_size(table) > 500'000) tables.push_back(table);
  ASSERT_GE(tables.size(), 2u);
  flip(tables[0], 100'000);
  flip(tables[1], 400'000);
  for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite}) {
    RocksStore store(folder.path(), {"pins"}, access, kKept);
    for (const auto& [key, value] : model) ASSERT_EQ(store.family("pins")->get(key), value) << key;
  }
  for (const fs::path& table : tables) EXPECT_TRUE(fs::exists(table));
}

TEST(RocksCopy, DamageOfBothIsToldAndChangesNothing) {
  TemporaryFolder folder;
  const Records model = write(folder.path(), 1);
  const auto tables = tables_of(folder.path());
  for (const fs::path& table : tables) flip(table, 9);
  for (const auto access : {RocksStore::Access::kRead, RocksStore::Access::kWrite})
    EXPECT_EQ(error_of([&] { read(folder.path(), access); }), ErrorCode::kMalformed);
  for (const fs::path& table : tables) {
    ASSERT_TRUE(fs::exists(table));
    flip(table, 9);
  }
  EXPECT_EQ(read(folder.path(), RocksStore::Access::kRead), model) << "what was mended elsewhere is used";
}

}  // namespace
}  // namespace caravan
