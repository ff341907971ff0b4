#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/caught_error.h"
#include "base/error.h"
#include "base/random.h"
#include "store/memory_store.h"
#include "store/rocks_state.h"
#include "store/rocks_store.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kCancelled, "no error"};
}

std::map<std::string, std::string> all(const KeyValue& store, std::string_view prefix = "") {
  std::map<std::string, std::string> found;
  std::string last;
  store.scan(prefix, [&](std::string_view key, std::string_view value) {
    EXPECT_TRUE(found.empty() || last < key) << "not in order";
    last = key;
    found.emplace(key, value);
    return true;
  });
  return found;
}

// What both twins promise: the same random operations leave the same as a map.
void behaves_as_a_map(KeyValue& store, uint64_t seed, int operations) {
  SeededRandom random(seed);
  std::map<std::string, std::string> model;
  for (int i = 0; i < operations; ++i) {
    std::string key = random.below(2) ? "a/" : "b/";
    key += static_cast<char>(random.below(256));
    switch (random.below(4)) {
      case 0:
        store.erase(key);
        model.erase(key);
        break;
      case 1: {
        const auto found = store.get(key);
        ASSERT_EQ(found.has_value(), model.count(key) > 0);
        if (found) {
          ASSERT_EQ(*found, model[key]);
        }
        break;
      }
      default:
        model[key] = std::string(random.below(300), static_cast<char>(random.below(256)));
        store.put(key, model[key]);
    }
  }
  EXPECT_EQ(all(store), model);
  std::map<std::string, std::string> of_a(model.lower_bound("a/"), model.lower_bound("a0"));
  EXPECT_EQ(all(store, "a/"), of_a);
  int visited = 0;
  store.scan("", [&](std::string_view, std::string_view) { return ++visited < 2; });
  EXPECT_EQ(visited, 2);
}

TEST(MemoryStore, BehavesAsAMap) {
  MemoryStore store;
  behaves_as_a_map(store, 1, 2000);
}

TEST(MemoryStore, AFaultChangesNothing) {
  bool is_broken = false;
  MemoryStore store([&](MemoryStore::Operation operation, std::string_view) {
    return is_broken && operation == MemoryStore::Operation::kPut;
  });
  store.put("key", "old");
  is_broken = true;
  EXPECT_EQ(error_of([&] { store.put("key", "new"); }).code(), ErrorCode::kIo);
  EXPECT_EQ(store.get("key"), "old");
}

TEST(RocksStore, BehavesAsAMapAndOutlivesItsHandle) {
  TemporaryFolder folder;
  std::map<std::string, std::string> before;
  {
    RocksStore store(folder.path(), {"pins", "other"});
    const auto pins = store.family("pins");
    behaves_as_a_map(*pins, 2, 120);
    before = all(*pins);
    EXPECT_TRUE(all(*store.family("other")).empty()) << "families are apart";
  }
  // A version that knows fewer families opens it, too.
  RocksStore store(folder.path(), {"pins"});
  EXPECT_EQ(all(*store.family("pins")), before);
}

TEST(RocksStore, WhatWasAcknowledgedSurvivesAKill) {
  TemporaryFolder folder;
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    RocksStore store(folder.path(), {"pins"});
    const auto pins = store.family("pins");
    for (uint32_t i = 0;; ++i) {
      pins->put("key" + std::to_string(i), "value");
      if (write(pipe_ends[1], &i, sizeof i) != sizeof i) _exit(1);
    }
  }
  close(pipe_ends[1]);  // a child that ends early ends the reading
  uint32_t acknowledged = 0;
  for (int i = 0; i < 30; ++i)
    ASSERT_EQ(read(pipe_ends[0], &acknowledged, sizeof acknowledged), static_cast<ssize_t>(sizeof(uint32_t)));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(pipe_ends[0]);
  RocksStore store(folder.path(), {"pins"});
  const auto pins = store.family("pins");
  for (uint32_t i = 0; i <= acknowledged; ++i) EXPECT_EQ(pins->get("key" + std::to_string(i)), "value");
}

TEST(RocksStore, OneHandleAFolder) {
  TemporaryFolder folder;
  RocksStore store(folder.path(), {});
  const Error error = error_of([&] { RocksStore second(folder.path(), {}); });
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_NE(error.message().find(folder.path()), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("in this very process"), std::string::npos) << error.message();
}

TEST(RocksStore, AFolderThatAnotherProcessHasIsRefused) {
  TemporaryFolder folder;
  { RocksStore store(folder.path(), {}); }
  const std::string lock = folder.path() + "/store/LOCK";
  int told[2];
  ASSERT_EQ(::pipe(told), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    struct flock all {};
    all.l_type = F_WRLCK;
    const bool held = ::fcntl(::open(lock.c_str(), O_RDWR), F_SETLK, &all) == 0;
    (void)!::write(told[1], held ? "y" : "n", 1);
    ::pause();
  }
  char held = 'n';
  EXPECT_EQ(::read(told[0], &held, 1), 1);
  EXPECT_EQ(held, 'y');
  const Error error = error_of([&] { RocksStore store(folder.path(), {}); });
  EXPECT_NE(error.message().find("held by another process"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("--state"), std::string::npos) << error.message();
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  for (const int end : told) ::close(end);
}

TEST(RocksStore, ADamagedStoreSaysSo) {
  TemporaryFolder folder;
  {
    RocksStore store(folder.path(), {"pins"});
    store.family("pins")->put("key", "value");
  }
  for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
    if (entry.path().filename().string().rfind("MANIFEST", 0) == 0)
      std::ofstream(entry.path(), std::ios::trunc) << "not a manifest, whatever it is called";
  const Error error = error_of([&] { RocksStore store(folder.path(), {"pins"}); });
  EXPECT_EQ(error.code(), ErrorCode::kMalformed) << error.message();
  EXPECT_NE(error.message().find(folder.path()), std::string::npos) << error.message();
}

// What of a store's own files is not as it should be is told with the file, and nothing is begun anew in its
// place.
TEST(RocksStore, DamageOfItsOwnFilesIsToldAndChangesNothing) {
  struct Case {
    const char* file;
    std::optional<std::string> text;  // none: it is removed
    std::vector<std::string> words;
  };
  const std::vector<Case> cases = {
      {"CARAVAN", "rubbish\x01\n", {"CARAVAN", "\"rubbish?\"", "\"caravan store 1\""}},
      {"CARAVAN", "caravan store x\n", {"CARAVAN", "\"caravan store x\"", "\"caravan store 1\""}},
      {"CARAVAN", "", {"CARAVAN", "is empty", "\"caravan store 1\""}},
      {"CARAVAN", std::string(100, 'x'), {"CARAVAN", "xxxx", "\"caravan store 1\""}},
      {"CURRENT", "rubbish", {"CURRENT"}},
      {"CURRENT", "MANIFEST-000099\n", {"CURRENT", "MANIFEST-000099"}},
      {"CURRENT", "", {"CURRENT"}},
      {"CURRENT", std::nullopt, {"CURRENT"}},
      {"MANIFEST", std::string(300, 'x'), {"MANIFEST"}},
      {"MANIFEST", "", {"MANIFEST"}},
      {"MANIFEST", std::nullopt, {"MANIFEST"}},
  };
  for (const Case& one : cases) {
    TemporaryFolder folder;
    { RocksStore(folder.path(), {"pins"}).family("pins")->put("key", "value"); }
    const std::string path = folder.path() + "/store";
    std::vector<fs::path> hit;
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().filename().string().rfind(one.file, 0) == 0) hit.push_back(entry.path());
    ASSERT_FALSE(hit.empty()) << one.file;
    for (const fs::path& file : hit) {
      fs::remove(file);
      if (one.text) std::ofstream(file, std::ios::binary) << *one.text;
    }
    for (const auto access : {RocksStore::Access::kWrite, RocksStore::Access::kRead}) {
      EXPECT_TRUE(RocksStore::exists(folder.path()));
      const Error error = error_of([&] { RocksStore store(folder.path(), {"pins"}, access); });
      EXPECT_EQ(error.code(), ErrorCode::kMalformed) << one.file << ": " << error.message();
      EXPECT_NE(error.message().find(path), std::string::npos) << error.message();
      for (const std::string& word : one.words)
        EXPECT_NE(error.message().find(word), std::string::npos) << word << " is not in " << error.message();
    }
    for (const fs::path& file : hit) EXPECT_EQ(fs::exists(file), one.text.has_value()) << file;
  }
}

// What a process that ended in order acknowledged is in tables: its log may lose its end, or all of itself.
TEST(RocksStore, WhatWasClosedInOrderNeedsNoLog) {
  for (const bool gone : {false, true}) {
    TemporaryFolder folder;
    { RocksStore(folder.path(), {"pins"}).family("pins")->put("key", "value"); }
    for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
      if (entry.path().extension() == ".log") {
        if (gone)
          fs::remove(entry.path());
        else
          fs::resize_file(entry.path(), 0);
      }
    EXPECT_EQ(RocksStore(folder.path(), {"pins"}, RocksStore::Access::kRead).family("pins")->get("key"),
              "value");
    EXPECT_EQ(RocksStore(folder.path(), {"pins"}).family("pins")->get("key"), "value");
  }
}

TEST(RocksStore, LivesThatWriteNothingLeaveNoLogs) {
  const TemporaryFolder folder;
  const auto logs = [&] {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
      count += entry.path().extension() == ".log";
    return count;
  };
  std::map<std::string, std::string> expected;
  for (int life = 0; life < 20; ++life) {
    RocksStore store(folder.path(), {"a", "bulk.b"});
    EXPECT_EQ(all(*store.family("a")), expected);
    EXPECT_LE(logs(), 2u) << "before it writes";
    if (life % 7 == 3) store.family("a")->put(expected.emplace(std::to_string(life), "x").first->first, "x");
    if (life % 5 != 4) continue;
    RocksStore beside(folder.path(), {"a"}, RocksStore::Access::kRead);
    EXPECT_EQ(all(*beside.family("a")), expected);
  }
  EXPECT_LE(logs(), 2u);
}

// Wherever the list of files is cut or damaged, what it said last is not forgotten in silence.
TEST(RocksStore, AListOfFilesThatIsCutOrDamagedIsTold) {
  TemporaryFolder folder;
  { RocksStore(folder.path(), {"pins"}).family("pins")->put("key", "value"); }
  fs::path list;
  for (const auto& entry : fs::directory_iterator(folder.path() + "/store"))
    if (entry.path().filename().string().rfind("MANIFEST", 0) == 0) list = entry.path();
  const auto is_told = [&](uint64_t at) {
    for (const auto access : {RocksStore::Access::kWrite, RocksStore::Access::kRead})
      EXPECT_EQ(error_of([&] { RocksStore store(folder.path(), {"pins"}, access); }).code(),
                ErrorCode::kMalformed)
          << at;
  };
  const uint64_t bytes = fs::file_size(list);
  const auto flip = [&](uint64_t at) {
    std::fstream file(list, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const int was = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(was ^ 0x40));
  };
  for (uint64_t at = 0; at < bytes; ++at) {
    flip(at);
    is_told(at);
    flip(at);
  }
  EXPECT_EQ(RocksStore(folder.path(), {"pins"}, RocksStore::Access::kRead).family("pins")->get("key"),
            "value");
  for (uint64_t at = bytes; at-- > 0;) {
    fs::resize_file(list, at);
    is_told(at);
  }
}

// The note of the list is no part of the store: damaged or gone, it says nothing.
TEST(RocksStore, ADamagedNoteOfTheListSaysNothing) {
  TemporaryFolder folder;
  { RocksStore(folder.path(), {"pins"}).family("pins")->put("key", "value"); }
  const std::string note = folder.path() + "/store/LIST";
  std::string text;
  std::getline(std::ifstream(note), text);
  ASSERT_FALSE(text.empty());
  for (size_t i = 0; i <= text.size(); ++i) {
    std::string damaged = text.substr(0, i) + (i < text.size() ? "7" + text.substr(i + 1) : "");
    std::ofstream(note, std::ios::trunc) << damaged << "\n";
    RocksStore store(folder.path(), {"pins"}, RocksStore::Access::kRead);
    EXPECT_EQ(store.family("pins")->get("key"), "value");
  }
  fs::remove(note);
  EXPECT_EQ(RocksStore(folder.path(), {"pins"}).family("pins")->get("key"), "value");
}

// A process that was killed while it made the store leaves a list of files, perhaps, and nothing else.
TEST(RocksStore, AStoreThatWasNeverThereIsBegun) {
  TemporaryFolder folder;
  fs::create_directories(folder.path() + "/store");
  std::ofstream(folder.path() + "/store/CARAVAN") << "caravan store 1\n";
  std::ofstream(folder.path() + "/store/MANIFEST-000001") << "half of it";
  EXPECT_FALSE(RocksStore::exists(folder.path()));
  RocksStore(folder.path(), {"pins"}).family("pins")->put("key", "value");
  EXPECT_EQ(RocksStore(folder.path(), {"pins"}).family("pins")->get("key"), "value");
}

uint64_t log_bytes(const std::string& folder) {
  uint64_t most = 0;
  for (const auto& entry : fs::directory_iterator(folder + "/store"))
    if (entry.path().extension() == ".log") most = std::max<uint64_t>(most, entry.file_size());
  return most;
}

// In a process of its own: a put is cut short on its way to the disk, then there is room again. Every key
// that was put stands in the file `told`.
[[noreturn]] void put_while_the_disk_refuses(const std::string& folder, RocksStore::Damage damage) {
  ::signal(SIGXFSZ, SIG_IGN);
  RocksStore store(folder, {"pins"}, RocksStore::Access::kWrite, damage);
  const auto pins = store.family("pins");
  std::ofstream told(folder + "/told");
  const auto put = [&](const std::string& key, size_t bytes) {
    try {
      pins->put(key, std::string(bytes, 'v'));
      told << key << std::endl;
    } catch (const Error& error) {
      told << "! " << error.message() << std::endl;
    }
  };
  for (int i = 0; i < 20; ++i) put("before" + std::to_string(i), 100);
  struct rlimit files {};
  ::getrlimit(RLIMIT_FSIZE, &files);
  struct rlimit small = files;
  small.rlim_cur = log_bytes(folder) + 700;
  ::setrlimit(RLIMIT_FSIZE, &small);
  put("cut", 5000);
  ::setrlimit(RLIMIT_FSIZE, &files);
  ::usleep(300'000);  // RocksDB looks whether it can go on
  for (int i = 0; i < 50; ++i) put("after" + std::to_string(i), 1500);
  ::kill(::getpid(), SIGKILL);
  std::abort();
}

TEST(RocksStore, WhatTheDiskRefusedOnceCostsNothingThatWasAcknowledged) {
  for (const auto damage : {RocksStore::Damage::kRefused, RocksStore::Damage::kTolerated}) {
    const TemporaryFolder folder;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) put_while_the_disk_refuses(folder.path(), damage);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), SIGKILL) << "it was ended by something else than this test";
    RocksStore store(folder.path(), {"pins"}, RocksStore::Access::kWrite, damage);
    std::ifstream told(folder.path() + "/told");
    size_t acknowledged = 0, refused = 0;
    std::string last;
    for (std::string line; std::getline(told, line);) {
      if (line.front() == '!') {
        ++refused;
        last = line;
        continue;
      }
      ++acknowledged;
      EXPECT_TRUE(store.family("pins")->get(line)) << line;
    }
    EXPECT_GE(acknowledged, 20u);
    EXPECT_EQ(refused, 51u);
    EXPECT_NE(last.find("start again"), std::string::npos) << last;
  }
}

TEST(RocksStore, AFolderThatCannotBeWrittenNamesTheFlag) {
  const Error error = error_of([&] { RocksStore store("/proc/caravan", {}); });
  EXPECT_EQ(error.code(), ErrorCode::kIo);
  EXPECT_NE(error.message().find("--state"), std::string::npos) << error.message();
}

// As an inlined noexcept could not: with something to destroy on the way, it ends the process before anybody
// holds the exception.
TEST(RocksStore, EndsInWordsWhenMemoryIsLackingWithinACallThatMustBeWhole) {
  const auto end_by = [](auto thrown) {
    explain_lack_of_memory();
    try {
      whole([&] {
        const auto held = std::make_unique<std::string>("destroyed on the way");
        throw thrown;
      });
    } catch (const std::exception&) {
    }
  };
  EXPECT_EXIT(end_by(std::bad_alloc()), ::testing::ExitedWithCode(1),
              "^caravan: the system gives this process no more memory; .* stays\n$");
  EXPECT_DEATH(end_by(std::logic_error("a bug")), "a bug");
  EXPECT_EQ(whole([] { return 3; }), 3);
}

}  // namespace
}  // namespace caravan
