#include "shards/chunk_slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

constexpr size_t kBytes = 10'000;

Hash256 group_of(uint8_t number) {
  Hash256 group;
  group.bytes.fill(number);
  return group;
}

void fill(const ChunkSlots& slots, uint32_t chunk, size_t bytes) {
  std::fill_n(slots.now().begin(), bytes, static_cast<std::byte>(chunk));
  slots.note(group_of(1), chunk, bytes);
}

// Chunk number to bytes, of what lies in the file while it is in use: as after a kill.
std::map<uint32_t, size_t> left_in(const std::string& path) {
  std::map<uint32_t, size_t> found;
  ChunkSlots::read(path, [&](const Hash256& group, uint32_t chunk, std::span<const std::byte> bytes, size_t) {
    EXPECT_EQ(group, group_of(1));
    for (const std::byte byte : bytes) ASSERT_EQ(byte, static_cast<std::byte>(chunk));
    found[chunk] = bytes.size();
  });
  return found;
}

TEST(ChunkSlots, WhatNoTableMayHaveOnDiskIsInTheFile) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/chunks";
  ChunkSlots slots(path, kBytes);
  EXPECT_TRUE(left_in(path).empty());
  for (uint32_t chunk = 0; chunk < 20; ++chunk) {
    fill(slots, chunk, 100);
    fill(slots, chunk, 1000 + chunk);
    const auto left = left_in(path);
    EXPECT_EQ(left.at(chunk), 1000 + chunk);
    for (uint32_t before = chunk - std::min(chunk, 2u); before < chunk; ++before)
      EXPECT_EQ(left.at(before), 1000 + before);
    slots.next();
  }
}

TEST(ChunkSlots, TheLastOfATableStaysUntilItHasLanded) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/chunks";
  ChunkSlots slots(path, kBytes);
  fill(slots, 7, 500);
  slots.next();
  slots.hold();
  for (uint32_t chunk = 20; chunk < 40; ++chunk) {
    fill(slots, chunk, 600);
    EXPECT_EQ(left_in(path).at(7), 500u);
    slots.next();
  }
  slots.landed();
  for (uint32_t chunk = 40; chunk < 44; ++chunk) {
    fill(slots, chunk, 600);
    slots.next();
  }
  EXPECT_EQ(left_in(path).count(7), 0u);
}

TEST(ChunkSlots, WhatIsForgottenIsGone) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/chunks";
  {
    ChunkSlots slots(path, kBytes);
    for (uint32_t chunk = 0; chunk < 3; ++chunk) {
      fill(slots, chunk, 100);
      slots.next();
    }
  }
  ChunkSlots::read(path, [&](const Hash256&, uint32_t chunk, auto, size_t slot) {
    if (chunk == 1) ChunkSlots::forget(path, slot);
  });
  EXPECT_EQ(left_in(path), (std::map<uint32_t, size_t>{{0, 100}, {2, 100}}));
}

TEST(ChunkSlots, WithoutAFileThereIsOne) {
  ChunkSlots slots("", kBytes);
  std::byte* const first = slots.now().data();
  EXPECT_GE(slots.now().size(), kBytes);
  fill(slots, 1, kBytes);
  slots.next();
  EXPECT_EQ(slots.now().data(), first);
}

TEST(ChunkSlots, AFolderThatIsNotThereIsNamed) {
  try {
    ChunkSlots slots("/nowhere/chunks", kBytes);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("/nowhere/chunks"), std::string::npos);
  }
}

TEST(ChunkSlots, AnyFileIsRead) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/chunks";
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SeededRandom random(seed);
    {
      ChunkSlots slots(path, kBytes);
      for (uint32_t chunk = 0; chunk < random.below(9); ++chunk) {
        fill(slots, chunk, 1 + random.below(kBytes));
        slots.next();
      }
    }
    const uint64_t bytes = std::filesystem::file_size(path);
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    for (int flips = 0; flips < 20; ++flips) {
      file.seekp(static_cast<std::streamoff>(random.below(4) * (bytes / 4) + random.below(80)));
      file.put(static_cast<char>(random.below(256)));
    }
    file.close();
    if (random.below(3) == 0) std::filesystem::resize_file(path, random.below(bytes));
    ChunkSlots::read(path, [&](const auto&, auto, auto left, auto) { EXPECT_LE(left.size(), bytes / 4); });
  }
  ChunkSlots::read(folder.path() + "/none", [](const auto&, auto, auto, auto) { FAIL(); });
}

}  // namespace
}  // namespace caravan
