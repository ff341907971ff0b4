#include "peers/lineage.h"

#include <gtest/gtest.h>

#include <set>

#include "base/limits.h"

namespace caravan {
namespace {

PeerKey key(uint8_t first) {
  return {{first}};
}

struct Part {
  std::string numerics;
  uint32_t first, last;
  uint8_t weights = 1;
};

Hash256 weights_of(uint8_t first) {
  return {{first}};
}

Lineage lineage(CodecId codec, std::vector<Part> parts, uint32_t stage, uint8_t kv_type = 0,
                Hash256 model = {}, uint8_t head_weights = 1) {
  Assign assign;
  assign.weights = weights_of(head_weights);
  for (uint32_t i = 0; i < parts.size(); ++i)
    assign.route.push_back({key(static_cast<uint8_t>(i + 1)),
                            "",
                            parts[i].numerics,
                            {},
                            {parts[i].first, parts[i].last},
                            weights_of(parts[i].weights)});
  assign.stage = stage;
  assign.codec = codec;
  assign.kv_type = kv_type;
  return lineage_of(assign, {key(static_cast<uint8_t>(stage + 1)), model, parts[stage].numerics,
                             weights_of(parts[stage].weights)});
}

constexpr CodecId kF32 = CodecId::kF32, kBf16 = CodecId::kBf16, kInt8 = CodecId::kInt8;

TEST(Lineage, WithAnExactCodecEveryCutGivesTheSame) {
  const Lineage alone = lineage(kF32, {{"a", 1, 9}}, 0);
  EXPECT_EQ(lineage(kF32, {{"a", 0, 9}}, 0), alone) << "wherever unit 0 lies";
  for (uint32_t cut = 2; cut < 9; ++cut)
    for (const uint32_t stage : {0u, 1u})
      EXPECT_EQ(lineage(kF32, {{"a", 1, cut}, {"a", cut, 9}}, stage), alone) << cut;
  EXPECT_EQ(lineage(kF32, {{"a", 1, 3}, {"a", 3, 7}, {"a", 7, 9}}, 2), alone);
}

TEST(Lineage, WithALossyCodecEveryCutBeforeCountsAndNoneAfter) {
  const Lineage early = lineage(kBf16, {{"a", 1, 3}, {"a", 3, 9}}, 1);
  EXPECT_NE(lineage(kBf16, {{"a", 1, 4}, {"a", 4, 9}}, 1), early);
  EXPECT_NE(lineage(kInt8, {{"a", 1, 3}, {"a", 3, 9}}, 1), early);
  EXPECT_NE(lineage(kF32, {{"a", 1, 3}, {"a", 3, 9}}, 1), early);
  EXPECT_NE(lineage(kBf16, {{"a", 1, 3}, {"a", 3, 5}, {"a", 5, 9}}, 2), early);
  EXPECT_EQ(lineage(kBf16, {{"a", 1, 3}, {"a", 3, 5}, {"a", 5, 9}}, 1), early) << "what comes after";
  // The head's edge is one of them, unless tokens cross it.
  EXPECT_NE(lineage(kBf16, {{"a", 1, 9}}, 0), lineage(kF32, {{"a", 1, 9}}, 0));
  EXPECT_EQ(lineage(kBf16, {{"a", 0, 9}}, 0), lineage(kF32, {{"a", 0, 9}}, 0));
}

TEST(Lineage, ClassesCountUpToTheOwnStage) {
  const std::vector<Part> mixed = {{"a", 1, 4}, {"b", 4, 7}, {"a", 7, 9}};
  EXPECT_EQ(lineage(kF32, mixed, 0), lineage(kF32, {{"a", 1, 9}}, 0)) << "what comes after";
  std::set<Lineage> all;
  for (uint32_t stage = 0; stage < 3; ++stage) all.insert(lineage(kF32, mixed, stage));
  EXPECT_EQ(all.size(), 3u);
  EXPECT_NE(lineage(kF32, {{"a", 1, 5}, {"b", 5, 9}}, 1), lineage(kF32, {{"a", 1, 4}, {"b", 4, 9}}, 1));
  EXPECT_EQ(lineage(kF32, {{"a", 1, 2}, {"a", 2, 4}, {"b", 4, 5}, {"b", 5, 9}}, 3),
            lineage(kF32, {{"a", 1, 4}, {"b", 4, 9}}, 1));
}

TEST(Lineage, WeightsCountUpToTheOwnStageAndTheHeads) {
  const Lineage alone = lineage(kF32, {{"a", 1, 9}}, 0);
  EXPECT_NE(lineage(kF32, {{"a", 1, 9, 2}}, 0), alone);
  EXPECT_NE(lineage(kF32, {{"a", 1, 9}}, 0, 0, {}, 2), alone) << "the head has the table of tokens";
  EXPECT_NE(lineage(kF32, {{"a", 1, 4, 2}, {"a", 4, 9}}, 1), alone);
  EXPECT_EQ(lineage(kF32, {{"a", 1, 4}, {"a", 4, 9, 2}}, 0), alone) << "what comes after";
  const Lineage fetched = lineage(kF32, {{"a", 1, 9, 2}}, 0);
  for (uint32_t cut = 2; cut < 9; ++cut)
    EXPECT_EQ(lineage(kF32, {{"a", 1, cut, 2}, {"a", cut, 9, 2}}, 1), fetched) << cut;
}

TEST(Lineage, ModelKvTypeAndTheOwnClassCount) {
  const Lineage one = lineage(kF32, {{"a", 1, 9}}, 0);
  EXPECT_NE(lineage(kF32, {{"a", 1, 9}}, 0, 1), one);
  EXPECT_NE(lineage(kF32, {{"a", 1, 9}}, 0, 0, {{1}}), one);
  EXPECT_NE(lineage(kF32, {{"b", 1, 9}}, 0), one);
  // A peer trusts itself about itself.
  Assign assign;
  assign.weights = weights_of(1);
  assign.route = {{key(1), "", "what the head believes", {}, {1, 9}, weights_of(7)}};
  EXPECT_EQ(lineage_of(assign, {key(1), {}, "a", weights_of(1)}), one);
}

}  // namespace
}  // namespace caravan
