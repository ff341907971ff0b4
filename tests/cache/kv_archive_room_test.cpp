#include <gtest/gtest.h>

#include <map>
#include <set>
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
    ArchiveRoom room{UINT64_MAX, UINT64_MAX};
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

// What this stage alone has still is of use where it is alone.
TEST(KvArchiveRoomTest, OnlyTheRingsOwnLineageIsKeptWithinIt) {
  StageArchive stage(100, 4, {96, 64, 128});
  KvArchiveShape alone = stage.shape;
  alone.lineage = Lineage{{7}};
  write_chain(*stage.archive, 1, 40, {}, alone);
  write_chain(*stage.archive, 101, 130, {}, stage.shape);
  stage.archive->keep_within(stage.shape, {10, UINT64_MAX});
  EXPECT_EQ(found_of_chain(*stage.archive, 101, 130, stage.shape), 30u) << "nothing needs the room yet";
  write_chain(*stage.archive, 201, 203, {}, stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 201, 203, stage.shape), 3u);
  EXPECT_EQ(found_of_chain(*stage.archive, 101, 130, stage.shape), 7u);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 40, alone), 40u);
  // The next ring has more room, and then none.
  stage.archive->keep_within(stage.shape, {1000, UINT64_MAX});
  write_chain(*stage.archive, 301, 320, {}, stage.shape);
  EXPECT_EQ(stage.archive->status().blocks, 40u + 7 + 3 + 20);
  stage.archive->keep_within(stage.shape, {0, UINT64_MAX});
  EXPECT_EQ(write_chain(*stage.archive, 401, 401, {}, stage.shape)[0], nullptr);
  EXPECT_FALSE(stage.archive->crowded()) << "nobody could make room";
  EXPECT_EQ(stage.archive->status().blocks, 40u + 7 + 3 + 20);
}

TEST(KvArchiveRoomTest, NoMoreIsWrittenInADayThanEveryStageMay) {
  StageArchive stage(100, 4, {96, 64, 128});
  stage.archive->keep_within(stage.shape, {UINT64_MAX, 5});
  write_chain(*stage.archive, 1, 9, {}, stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 9, stage.shape), 5u);
  stage.world.clock.advance(std::chrono::hours(24));
  write_chain(*stage.archive, 6, 9, numbered_tag(5), stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 9, stage.shape), 9u);
}

TEST(KvArchiveRoomTest, NumbersPastCountingAreNoBound) {
  StageArchive stage(100, 4, {96, 64, 128});
  stage.archive->keep_within(stage.shape, {UINT64_MAX, UINT64_MAX / kSmallBlockBytes + 2});
  write_chain(*stage.archive, 1, 9, {}, stage.shape);
  EXPECT_EQ(found_of_chain(*stage.archive, 1, 9, stage.shape), 9u);
}

TEST(KvArchiveRoomTest, ABoundThatHoldsNoBlockIsNoRoom) {
  const KvArchiveShape shape = small_shape();
  ArchiveWorld world(Bytes{kSmallBlockBytes});
  EXPECT_EQ(world.open()->room(shape), (ArchiveRoom{0, UINT64_MAX}));
  EXPECT_EQ(world.open(Bytes{kSmallBlockBytes * 2})->room(shape), (ArchiveRoom{0, 2}));
}

}  // namespace
}  // namespace caravan
