#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/cache/archive_support.h"

namespace caravan {
namespace {

using test::ArchiveWorld;
using test::found_of_chain;
using test::kSmallBlockBytes;
using test::numbered_tag;
using test::small_shape;
using test::write_chain;

// A stage of a ring, with its part of the layers and its own bound.
struct StageArchive {
  StageArchive(uint64_t blocks, uint32_t first_layer, std::vector<uint64_t> part_bytes)
      : shape(small_shape(first_layer, std::move(part_bytes))),
        world(Bytes{shape.disk_bytes() * blocks * 4 / 3 + 4}),
        archive(world.open()) {}
  const KvArchiveShape shape;
  ArchiveWorld world;
  std::unique_ptr<KvArchive> archive;
};

// Conversations that go on, some of which share a beginning, as the steps of a ring bring them to every
// stage: more of them than the least has room for.
TEST(KvArchiveRoomTest, StagesOfUnequalBoundsKeepTheSameBlocks) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SeededRandom random(seed);
    std::vector<std::unique_ptr<StageArchive>> stages;
    stages.push_back(std::make_unique<StageArchive>(60, 4, std::vector<uint64_t>{96, 64, 128}));
    stages.push_back(std::make_unique<StageArchive>(400, 7, std::vector<uint64_t>(5, 480)));
    stages.push_back(std::make_unique<StageArchive>(90, 12, std::vector<uint64_t>{2048}));
    ArchiveRoom room{UINT64_MAX, UINT64_MAX, UINT64_MAX};
    for (const auto& stage : stages) room = least(room, stage->archive->room(stage->shape));
    EXPECT_EQ(room.blocks, 60u);
    EXPECT_EQ(room.blocks_a_day, UINT64_MAX);
    for (const auto& stage : stages) stage->archive->keep_within(stage->shape, room);

    std::map<uint64_t, uint64_t> previous;  // by number
    std::vector<std::vector<uint64_t>> talks;
    uint64_t next = 1, evicted = 0;
    for (int turn = 0; turn < 60; ++turn) {
      if (talks.empty() || random.below(3) == 0) talks.emplace_back();
      std::vector<uint64_t>& talk = talks[random.below(talks.size())];
      if (!talk.empty() && random.below(4) == 0)
        for (const auto& stage : stages)  // it is loaded, and used
          for (const uint64_t number : talk) stage->archive->adopt(stage->shape, numbered_tag(number));
      const BlockTag before = talk.empty() ? BlockTag{} : numbered_tag(talk.back());
      const uint64_t count = 1 + random.below(4);
      for (const auto& stage : stages) {
        write_chain(*stage->archive, next, next + count - 1, before, stage->shape);
        stage->archive->settle();
      }
      for (uint64_t i = 0; i < count; ++i) talk.push_back(next++);
      evicted += stages[0]->archive->counters().evicted.value();
      for (uint64_t number = 1; number < next; ++number)
        for (const auto& stage : stages)
          ASSERT_EQ(found_of_chain(*stage->archive, number, number, stage->shape),
                    found_of_chain(*stages[0]->archive, number, number, stages[0]->shape))
              << "seed " << seed << ", turn " << turn << ", block " << number << " of layers from "
              << stage->shape.first_layer;
    }
    EXPECT_GT(evicted, 0u);
    for (const auto& stage : stages) EXPECT_LE(stage->archive->status().blocks, 60u);
  }
}

ArchiveRoom kept(uint64_t blocks) {
  return {blocks, UINT64_MAX, UINT64_MAX};
}

// A peer with little room comes and goes: what was archived without it is of use without it.
TEST(KvArchiveRoomTest, WhatWasArchivedInOtherRingsStays) {
  StageArchive stage(200, 4, {96, 64, 128});
  write_chain(*stage.archive, 1, 80, {}, stage.shape);
  stage.archive->keep_within(stage.shape, kept(10));
  for (uint64_t first = 101; first < 150; first += 7)
    write_chain(*stage.archive, first, first + 6, {}, stage.shape);
  EXPECT_EQ(stage.archive->status().blocks, 80u + 10);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 80, stage.shape), 80u);
  EXPECT_EQ(found_of_chain(*stage.archive, 143, 149, stage.shape), 7u) << "the newest";
  // Another one, with another room; and the first again, in another life.
  stage.archive->keep_within(stage.shape, kept(5));
  write_chain(*stage.archive, 201, 209, {}, stage.shape);
  EXPECT_EQ(stage.archive->status().blocks, 80u + 10 + 5);
  stage.archive.reset();
  stage.archive = stage.world.open();
  stage.archive->keep_within(stage.shape, kept(10));
  write_chain(*stage.archive, 301, 304, {}, stage.shape);
  EXPECT_EQ(stage.archive->status().blocks, 80u + 10 + 5);
  EXPECT_EQ(found_of_chain(*stage.archive, 301, 304, stage.shape), 4u);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 80, stage.shape), 80u);
  // With room for all that it holds itself, it is its own bound that counts.
  stage.archive->keep_within(stage.shape, kept(1000));
  write_chain(*stage.archive, 401, 500, {}, stage.shape);
  EXPECT_EQ(stage.archive->status().blocks, 80u + 10 + 5 + 100);
  // And with none nothing is taken.
  stage.archive->keep_within(stage.shape, kept(0));
  EXPECT_EQ(write_chain(*stage.archive, 501, 501, {}, stage.shape)[0], nullptr);
  EXPECT_FALSE(stage.archive->crowded()) << "nobody could make room";
  EXPECT_EQ(stage.archive->status().blocks, 80u + 10 + 5 + 100);
}

// What a ring with little room takes in and gives up again does not age what others have archived.
TEST(KvArchiveRoomTest, ALongSessionOutlivesARingOfLittleRoom) {
  for (const uint64_t room : {1u, 3u, 60u, 1000u}) {
    StageArchive stage(60, 4, {96, 64, 128});
    KvArchiveShape alone = stage.shape;
    alone.lineage = Lineage{{7}};
    write_chain(*stage.archive, 1, 40, {}, alone);
    stage.archive->keep_within(stage.shape, kept(room));
    for (uint64_t first = 1000; first < 1240; first += 4) {
      write_chain(*stage.archive, first, first + 3, {}, stage.shape);
      stage.archive->settle();
    }
    stage.archive->keep_within(alone, kept(1000));
    for (uint64_t first = 2000; first < 2150; first += 3) {
      write_chain(*stage.archive, first, first + 2, {}, alone);
      stage.archive->settle();
    }
    EXPECT_GE(found_of_chain(*stage.archive, 1, 40, alone), 38u) << "after a ring with room for " << room;
  }
}

// --- Days ---

TEST(KvArchiveRoomTest, NoMoreIsWrittenInADayThanEveryStageMay) {
  StageArchive stage(200, 4, {96, 64, 128});
  write_chain(*stage.archive, 1, 20, {}, stage.shape);
  stage.archive->keep_within(stage.shape, {UINT64_MAX, 5, 8});  // another one has written today, too
  write_chain(*stage.archive, 101, 109, {}, stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 101, 109, stage.shape), 5u);
  stage.world.clock.advance(std::chrono::hours(24));
  write_chain(*stage.archive, 106, 120, numbered_tag(105), stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 101, 120, stage.shape), 5u + 8);
  stage.archive->keep_within(stage.shape, {UINT64_MAX, UINT64_MAX, UINT64_MAX});
  write_chain(*stage.archive, 114, 120, numbered_tag(113), stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 101, 120, stage.shape), 20u);
}

TEST(KvArchiveRoomTest, WhatIsLeftOfTheDayIsTold) {
  StageArchive stage(200, 4, {96, 64, 128});
  EXPECT_EQ(stage.archive->room(stage.shape).blocks_today, UINT64_MAX);
  stage.archive.reset();
  stage.archive = stage.world.open(Bytes{10 * kSmallBlockBytes});
  write_chain(*stage.archive, 1, 4, {}, stage.shape);
  EXPECT_EQ(stage.archive->room(stage.shape), (ArchiveRoom{200, 6, 10}));
  stage.archive->keep_within(stage.shape, {200, 2, 2});
  EXPECT_EQ(stage.archive->room(stage.shape), (ArchiveRoom{200, 6, 10})) << "of its own, whatever a ring's";
  stage.world.clock.advance(std::chrono::hours(24));
  EXPECT_EQ(stage.archive->room(stage.shape), (ArchiveRoom{200, 10, 10}));
}

// What is on record ahead of the writing is a small part of what may be written, so that kills cost little.
TEST(KvArchiveRoomTest, AKillCostsLittleOfARingsDay) {
  ArchiveWorld world(Bytes{1 << 30});
  const KvArchiveShape shape = small_shape();
  {
    const std::unique_ptr<KvArchive> archive = world.open();
    archive->keep_within(shape, {UINT64_MAX, 100, 100});
    write_chain(*archive, 1, 10, {}, shape);
    const std::string meta = *world.records->get("meta");
    unsigned long long written = 0;
    std::sscanf(meta.c_str() + meta.find('\n'), "%*f %*d %llu", &written);
    EXPECT_GE(written, 10 * kSmallBlockBytes);
    EXPECT_LE(written, 12 * kSmallBlockBytes);
  }
}

TEST(KvArchiveRoomTest, NumbersPastCountingAreNoBound) {
  StageArchive stage(100, 4, {96, 64, 128});
  const uint64_t odd = UINT64_MAX / kSmallBlockBytes + 2;
  stage.archive->keep_within(stage.shape, {UINT64_MAX, odd, odd});
  write_chain(*stage.archive, 1, 9, {}, stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 9, stage.shape), 9u);
}

TEST(KvArchiveRoomTest, ABoundThatHoldsNoBlockIsNoRoom) {
  const KvArchiveShape shape = small_shape();
  ArchiveWorld world(Bytes{kSmallBlockBytes});
  EXPECT_EQ(world.open()->room(shape), (ArchiveRoom{0, UINT64_MAX, UINT64_MAX}));
  EXPECT_EQ(KvArchive::least(shape), Bytes{kSmallBlockBytes / 3 * 4});
  EXPECT_EQ(world.open(Bytes{kSmallBlockBytes * 2})->room(shape), (ArchiveRoom{0, 2, 2}));
}

}  // namespace
}  // namespace caravan
