#include "daemon/kv_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

// So that the stack of no thread finds room.
void take_addresses_away() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t bytes = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) + (6u << 20);
  const rlimit limit{bytes, bytes};
  ::setrlimit(RLIMIT_AS, &limit);
}

std::string refusal(KvFolder& folder) {
  try {
    (void)folder.store();
    return "";
  } catch (const Error& error) {
    return error.message();
  }
}

// RocksDB keeps the lock of what it could not open to the end.
TEST(KvFolder, ALackOfThreadsIsToldAsOneWhoeverAsksAgain) {
  if (test::kSanitized) return;  // sanitizers need the addresses themselves
  // In a process of its own from the start: the stacks of threads that have ended are used again.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto ask_twice = [] {
    const std::string place = ::testing::TempDir() + "kv_folder_" + std::to_string(::getpid());
    KvFolder folder({place});
    take_addresses_away();
    const std::string first = refusal(folder), again = refusal(folder);
    if (again != first) std::fprintf(stderr, "other words: %s\n", again.c_str());
    std::fprintf(stderr, "%s\n", first.c_str());
    std::filesystem::remove_all(place);
    ::_exit(again == first ? 0 : 1);  // threads that RocksDB has begun are not waited for
  };
  EXPECT_EXIT(ask_twice(), ::testing::ExitedWithCode(0), "the system starts no more threads");
}

}  // namespace
}  // namespace caravan
