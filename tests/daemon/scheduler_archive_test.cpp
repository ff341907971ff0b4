#include <gtest/gtest.h>

#include <algorithm>

#include "base/limits.h"
#include "daemon/scheduler.h"
#include "proto/encode.h"

namespace caravan {
namespace {

constexpr RingCapacity kHuge{1'000'000, 200'000, 1024, 512};

SchedulerOptions archiving() {
  SchedulerOptions options;
  options.tagger.emplace(ArchiveKey{}, Hash256{});
  return options;
}

TokenRequest request(uint32_t prompt, TokenId first = 7) {
  TokenRequest made;
  made.prompt.assign(prompt, 7);
  made.prompt[0] = first;
  made.max_tokens = 3;
  return made;
}

std::vector<BlockTag> tags_of(const TokenRequest& asked) {
  std::vector<BlockTag> tags;
  BlockTagger({}, {}).extend(tags, asked.prompt, asked.prompt.size() / 32);
  return tags;
}

class SchedulerArchiveTest : public ::testing::Test {
 protected:
  SchedulerArchiveTest() : scheduler_(archiving()) { scheduler_.open_ring(kHuge); }

  StepPlan plan() { return scheduler_.plan(4, 512).value_or(StepPlan{}); }

  Scheduler scheduler_;
};

TEST_F(SchedulerArchiveTest, AsksForAllWholeBlocks) {
  for (const auto& [length, blocks] : std::vector<std::pair<uint32_t, size_t>>{
           {1, 0}, {31, 0}, {32, 1}, {63, 1}, {64, 2}, {70'000, limits::kMaxTagsPerStep}}) {
    const TokenRequest asked = request(length);
    const RequestId id = scheduler_.submit(asked);
    const auto questions = scheduler_.take_questions();
    ASSERT_EQ(questions.size(), blocks > 0) << length;
    if (blocks > 0) {
      EXPECT_EQ(questions[0].request, id);
      std::vector<BlockTag> expected = tags_of(asked);
      expected.resize(blocks);
      EXPECT_EQ(questions[0].tags, expected);
    }
    EXPECT_TRUE(scheduler_.take_questions().empty()) << "once";
    scheduler_.cancel(id);
  }
}

TEST_F(SchedulerArchiveTest, ARequestBeginsOnceItsAnswerIsThereAndOthersDoNotWait) {
  const RequestId asked = scheduler_.submit(request(100));
  scheduler_.submit(request(20));
  EXPECT_TRUE(plan().ranges.empty()) << "not before it was taken";
  ASSERT_EQ(scheduler_.take_questions().size(), 1u);
  StepPlan step = plan();
  ASSERT_EQ(step.ranges.size(), 1u);
  EXPECT_EQ(step.ranges[0].count, 20u);
  scheduler_.answered(asked, 2, 1000);
  step = plan();
  ASSERT_EQ(step.operations.size(), 1u);
  EXPECT_EQ(step.operations[0].kind, OperationKind::kLoad);
  EXPECT_EQ(step.operations[0].number, 1u);
  EXPECT_EQ(step.operations[0].positions, 64u);
  const std::vector<BlockTag> tags = tags_of(request(100));
  EXPECT_EQ(step.load_tags, std::vector<BlockTag>(tags.begin(), tags.begin() + 2));
  ASSERT_EQ(step.ranges.size(), 1u);
  EXPECT_EQ(step.ranges[0].first_position, 64u);
  EXPECT_EQ(step.ranges[0].count, 36u);
  EXPECT_EQ(step.tags, std::vector<BlockTag>{tags[2]}) << "what is computed is tagged";
  EXPECT_EQ(scheduler_.blocks_used(), 1u + 4u) << "loaded blocks count like any other";
}

// A prompt of whole blocks that archives have all of is cut by the row that gives the answer.
TEST_F(SchedulerArchiveTest, OfAPromptThatIsAllThereOneRowIsComputed) {
  const RequestId asked = scheduler_.submit(request(96));
  ASSERT_EQ(scheduler_.take_questions().size(), 1u);
  scheduler_.answered(asked, 3, 1000);
  const StepPlan step = plan();
  ASSERT_EQ(step.operations.size(), 2u);
  EXPECT_EQ(step.operations[0].kind, OperationKind::kLoad);
  EXPECT_EQ(step.operations[0].positions, 96u);
  EXPECT_EQ(step.operations[1].kind, OperationKind::kTruncate);
  EXPECT_EQ(step.operations[1].positions, 95u);
  EXPECT_EQ(step.operations[1].number, 2u);
  ASSERT_EQ(step.ranges.size(), 1u);
  EXPECT_EQ(step.ranges[0].first_position, 95u);
  EXPECT_EQ(step.ranges[0].count, 1u);
  EXPECT_EQ(step.ranges[0].number, 3u);
  EXPECT_EQ(step.tags, std::vector<BlockTag>{tags_of(request(96))[2]}) << "the block is completed once more";
  EXPECT_EQ(scheduler_.blocks_used(), 3u);
}

TEST_F(SchedulerArchiveTest, DecidesByWhatComputingCosts) {
  const auto loads = [&](double position_ns, uint64_t load_ns) {
    scheduler_.tell_position_ns(position_ns);
    const RequestId id = scheduler_.submit(request(100));
    scheduler_.take_questions();
    scheduler_.answered(id, 3, load_ns);
    const bool load = plan().operations.back().kind == OperationKind::kLoad;
    scheduler_.cancel(id);
    return load;
  };
  EXPECT_TRUE(loads(10, 950));
  EXPECT_FALSE(loads(10, 970));
  EXPECT_TRUE(loads(0, 1'000'000'000)) << "nothing is measured yet";
  EXPECT_EQ(scheduler_.archive().hits, 3u);
  EXPECT_EQ(scheduler_.archive().loads, 2u);
  EXPECT_EQ(scheduler_.archive().dearer, 1u);
  EXPECT_EQ(scheduler_.archive().loaded_positions, 192u);
}

TEST_F(SchedulerArchiveTest, ALostSequenceIsNeitherAskedForNorLoadedAgain) {
  const RequestId id = scheduler_.submit(request(100));
  scheduler_.take_questions();
  scheduler_.answered(id, 3, 0);
  const SequenceId loaded = plan().ranges.at(0).sequence;
  scheduler_.lose(loaded, Error(ErrorCode::kIo, "a damaged block"));
  EXPECT_EQ(scheduler_.archive().failed, 1u);
  EXPECT_TRUE(scheduler_.take_questions().empty());
  const StepPlan step = plan();
  ASSERT_EQ(step.operations.size(), 2u);
  EXPECT_EQ(step.operations[0].kind, OperationKind::kClose);
  EXPECT_EQ(step.operations[1].kind, OperationKind::kOpen);
  EXPECT_EQ(step.ranges.at(0).count, 100u);
  EXPECT_EQ(step.tags.size(), 3u);
}

TEST_F(SchedulerArchiveTest, PromptLogitsAreComputed) {
  TokenRequest asked = request(100);
  asked.prompt_logits = std::make_shared<const LogitsSink>();
  scheduler_.submit(asked);
  EXPECT_TRUE(scheduler_.take_questions().empty());
  EXPECT_EQ(plan().ranges.at(0).count, 100u);
}

TEST_F(SchedulerArchiveTest, AFewAreAskedAboutAtOnceAndNobodyIsForgotten) {
  for (uint32_t i = 0; i < 30; ++i) scheduler_.submit(request(100, i));
  size_t asked = 0;
  for (auto questions = scheduler_.take_questions(); !questions.empty();
       questions = scheduler_.take_questions()) {
    EXPECT_LE(questions.size(), 8u);
    for (const auto& question : questions) {
      ++asked % 2 ? scheduler_.answered(question.request, 0, 0) : scheduler_.unanswered(question.request);
    }
    plan();
  }
  EXPECT_EQ(asked, 30u);
  EXPECT_EQ(scheduler_.running(), 30u);
  EXPECT_EQ(scheduler_.archive().misses, 15u);
}

// Loads of the largest size beside all the decodes that a step may have: every step fits its header.
TEST_F(SchedulerArchiveTest, EveryStepFitsItsHeaderHoweverMuchIsLoaded) {
  for (uint32_t i = 0; i < 300; ++i) scheduler_.submit(request(30, i));
  for (uint32_t i = 0; i < 4; ++i) scheduler_.submit(request(70'000, 1000 + i));
  size_t loads = 0;
  for (int turn = 0; turn < 60; ++turn) {
    for (const auto& question : scheduler_.take_questions())
      scheduler_.answered(question.request, limits::kMaxTagsPerStep, 0);
    const StepPlan made = plan();
    Step step;
    step.operations = made.operations;
    step.ranges = made.ranges;
    step.tags = made.tags;
    step.load_tags = made.load_tags;
    step.counters.resize(limits::kMaxPeers);
    step.lost.resize(limits::kMaxRangesPerStep);
    step.lost_reason.assign(limits::kMaxReasonBytes, 'x');
    ASSERT_NO_THROW(encode(step)) << "turn " << turn;
    loads += std::count_if(made.operations.begin(), made.operations.end(),
                           [](const auto& one) { return one.kind == OperationKind::kLoad; });
    std::vector<OutputResult> results(made.answered.size());
    scheduler_.complete(made, std::move(results), {});
  }
  EXPECT_EQ(loads, 4u);
}

TEST(SchedulerWithoutTagger, NeitherTagsNorAsks) {
  Scheduler scheduler{SchedulerOptions{}};
  scheduler.open_ring(kHuge);
  scheduler.submit(request(100));
  EXPECT_TRUE(scheduler.take_questions().empty());
  const auto step = scheduler.plan(4, 512);
  ASSERT_TRUE(step);
  EXPECT_EQ(step->ranges.at(0).count, 100u);
  EXPECT_TRUE(step->tags.empty());
}

}  // namespace
}  // namespace caravan
