// Writing into the archive of KV blocks: how much of what is offered is taken, what it counts as, and what
// refuses it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
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

}  // namespace
}  // namespace caravan
