// Writing into the archive of KV blocks: how much of what is offered is taken, what it counts as, and what
// refuses it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "tests/cache/archive_support.h"

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
      EXPECT_EQ(taken(write_chain(*archive, 100 * today + 50, 100 * today + 57)), 0u) << "of one day";
      world.clock.advance(std::chrono::hours(24));
    }
  }
}

}  // namespace
}  // namespace caravan
