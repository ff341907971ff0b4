#include "daemon/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "base/limits.h"
#include "base/random.h"

namespace caravan {
namespace {

// Plays the stages for a scheduler: steps go out as far as the window allows and come back in order. Every
// sequence's next token is one more than its last.
class Ring {
 public:
  explicit Ring(RingCapacity capacity, uint32_t window = 4, SchedulerOptions options = {},
                uint32_t chunk_rows = 256)
      : scheduler_(options), capacity_(capacity), window_(window), chunk_rows_(chunk_rows) {
    scheduler_.open_ring(capacity);
  }

  Scheduler& scheduler() { return scheduler_; }

  // The step that goes out, if one may.
  const StepPlan* send() {
    if (flying_.size() >= window_) return nullptr;
    std::optional<StepPlan> plan = scheduler_.plan(window_, chunk_rows_);
    if (!plan) return nullptr;
    account(*plan);
    flying_.push_back(std::move(*plan));
    return &flying_.back();
  }
  bool take_back() {
    if (flying_.empty()) return false;
    const StepPlan plan = std::move(flying_.front());
    flying_.pop_front();
    std::vector<OutputResult> results(plan.answered.size());
    size_t row = 0, answered = 0;
    for (const RowRange& range : plan.ranges)
      for (uint32_t i = 0; i < range.count; ++i, ++row)
        if (i + range.answer_count >= range.count) results[answered++].token = plan.tokens[row] + 1;
    scheduler_.complete(plan, std::move(results), {});
    for (RequestEvent& event : scheduler_.take_events()) {
      if (auto* token = std::get_if<TokenEvent>(&event.what)) tokens[event.request].push_back(token->token);
      if (std::holds_alternative<FinishReason>(event.what)) finished.push_back(event.request);
    }
    return true;
  }
  void run() {
    for (int turns = 0; turns < 100000; ++turns) {
      while (send() != nullptr) {
      }
      if (!take_back()) return;
    }
    FAIL() << "it never ends";
  }

  std::map<RequestId, std::vector<TokenId>> tokens;
  std::vector<RequestId> finished;
  uint64_t most_blocks = 0;
  size_t open() const { return positions_.size(); }
  const std::vector<TokenId>& log(SequenceId sequence) const { return log_.at(sequence); }

 private:
  // What a stage would hold, counted apart from the scheduler.
  void account(const StepPlan& plan) {
    for (const SequenceOperation& operation : plan.operations) {
      if (operation.kind == OperationKind::kOpen) {
        ASSERT_TRUE(positions_.emplace(operation.sequence, 0).second);
      }
      if (operation.kind == OperationKind::kFork) {
        ASSERT_EQ(operation.positions % limits::kKvBlockPositions, 0u) << "a partial block would be copied";
        ASSERT_GE(positions_.at(operation.source), operation.positions);
        ASSERT_TRUE(positions_.emplace(operation.sequence, operation.positions).second);
        const std::vector<TokenId>& source = log_.at(operation.source);
        log_[operation.sequence].assign(source.begin(), source.begin() + operation.positions);
      }
      if (operation.kind == OperationKind::kClose) {
        ASSERT_EQ(positions_.erase(operation.sequence), 1u);
        log_.erase(operation.sequence);
      }
    }
    size_t rows = 0;
    for (const RowRange& range : plan.ranges) {
      ASSERT_EQ(positions_.at(range.sequence), range.first_position);
      positions_[range.sequence] += range.count;
      const auto first = plan.tokens.begin() + static_cast<long>(rows);
      log_[range.sequence].insert(log_[range.sequence].end(), first, first + range.count);
      rows += range.count;
    }
    ASSERT_EQ(rows, plan.tokens.size());
    ASSERT_LE(rows, capacity_.max_rows);
    ASSERT_LE(positions_.size(), capacity_.max_sequences);
    uint64_t blocks = 0;
    for (const auto& [id, positions] : positions_)
      blocks += (positions + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
    ASSERT_LE(blocks, capacity_.kv_blocks);
    most_blocks = std::max(most_blocks, blocks);
  }

  Scheduler scheduler_;
  const RingCapacity capacity_;
  const uint32_t window_;
  const uint32_t chunk_rows_;
  std::deque<StepPlan> flying_;
  std::map<SequenceId, uint32_t> positions_;
  std::map<SequenceId, std::vector<TokenId>> log_;  // what the stages were given
};

TokenRequest request(uint32_t prompt, uint32_t tokens) {
  TokenRequest made;
  made.prompt.assign(prompt, 7);
  made.max_tokens = tokens;
  return made;
}

constexpr RingCapacity kRoomy{1000, 2000, 100, 512};

uint32_t rows_of(const StepPlan& plan, SequenceId sequence) {
  uint32_t rows = 0;
  for (const RowRange& range : plan.ranges)
    if (range.sequence == sequence) rows += range.count;
  return rows;
}

TEST(SchedulerTest, ANewRequestWaitsAtMostOneChunkOfEveryRunningOne) {
  for (uint32_t running = 1; running < 8; ++running) {
    Ring ring(kRoomy, 64, {100}, 64);
    for (uint32_t i = 0; i < running; ++i) ring.scheduler().submit(request(1500, 1));
    // Some way into their prompts.
    for (uint32_t step = 0; step < 3 * running + 1; ++step) ASSERT_NE(ring.send(), nullptr);
    ring.scheduler().submit(request(10, 1));
    const SequenceId newcomer{running + 1};
    std::map<SequenceId, uint32_t> waited_for;
    for (uint32_t steps = 0;; ++steps) {
      ASSERT_LE(steps, running);
      const StepPlan* plan = ring.send();
      ASSERT_NE(plan, nullptr);
      if (rows_of(*plan, newcomer) > 0) break;
      for (const RowRange& range : plan->ranges) waited_for[range.sequence] += range.count;
    }
    for (const auto& [sequence, rows] : waited_for) EXPECT_LE(rows, 64u) << "sequence " << sequence;
    ring.run();
    EXPECT_EQ(ring.finished.size(), running + 1);
  }
}

TEST(SchedulerTest, RunningSequencesGoOnWhileAPromptIsReadIn) {
  Ring ring(kRoomy, 2, {100}, 64);
  const RequestId writing = ring.scheduler().submit(request(4, 1000));
  for (int i = 0; i < 6; ++i) ring.send(), ring.take_back();
  const size_t before = ring.tokens[writing].size();
  ring.scheduler().submit(request(1280, 1));  // 20 chunks
  for (int i = 0; i < 20; ++i) ring.send(), ring.take_back();
  EXPECT_GE(ring.tokens[writing].size(), before + 19);
}

TEST(SchedulerTest, SpreadsRunningSequencesOverTheWindow) {
  Ring ring(kRoomy, 5);
  for (int i = 0; i < 20; ++i) ring.scheduler().submit(request(3, 500));
  for (int i = 0; i < 100; ++i) {
    while (ring.send()) {
    }
    ring.take_back();
  }
  for (int i = 0; i < 50; ++i) {
    const StepPlan* plan = ring.send();
    ASSERT_NE(plan, nullptr);
    EXPECT_EQ(plan->tokens.size(), 4u);
    ring.take_back();
  }
}

TEST(SchedulerTest, PreemptsTheYoungestAndStillFinishesEverythingRight) {
  // Room for four blocks of 32; each of the five requests comes to need three.
  Ring ring({4, 128, 100, 512});
  for (int i = 0; i < 5; ++i) ring.scheduler().submit(request(10, 80));
  ring.run();
  EXPECT_GT(ring.scheduler().preemptions(), 0u);
  ASSERT_EQ(ring.finished.size(), 5u);
  EXPECT_EQ(ring.finished.front(), RequestId{1}) << "the oldest is never preempted";
  for (const auto& [id, tokens] : ring.tokens) {
    ASSERT_EQ(tokens.size(), 80u);
    for (uint32_t i = 0; i < 80; ++i) ASSERT_EQ(tokens[i], 8 + i) << "request " << id;
  }
  EXPECT_EQ(ring.open(), 0u);
  EXPECT_EQ(ring.scheduler().blocks_used(), 0u);
  EXPECT_TRUE(ring.scheduler().idle());
}

TEST(SchedulerTest, NeverPassesTheRingsRoomWhateverComes) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SeededRandom random(seed);
    const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random.below(bound)); };
    const RingCapacity capacity{2 + below(30), 32 + below(400), 1 + below(12), 16 + below(200)};
    Ring ring(capacity, 1 + below(9), {1000}, 1 + below(80));
    const uint32_t room =
        std::min<uint32_t>(capacity.context, static_cast<uint32_t>(capacity.kv_blocks) * 32);
    std::set<RequestId> wanted, cancelled;
    for (int turn = 0; turn < 400; ++turn) {
      if (turn < 200 && below(6) == 0)
        wanted.insert(ring.scheduler().submit(request(1 + below(room), below(100))));
      if (below(15) == 0 && !wanted.empty()) {
        const auto victim = std::next(wanted.begin(), below(static_cast<uint32_t>(wanted.size())));
        ring.scheduler().cancel(*victim);
        cancelled.insert(*victim);
      }
      if (below(2) == 0) ring.send();
      if (below(2) == 0) ring.take_back();
      if (HasFatalFailure()) FAIL() << "seed " << seed;
    }
    ring.run();
    for (const RequestId id : wanted) {
      const auto times = std::count(ring.finished.begin(), ring.finished.end(), id);
      ASSERT_TRUE(times == 1 || (times == 0 && cancelled.count(id))) << "seed " << seed << " request " << id;
    }
    ASSERT_EQ(ring.open(), 0u) << "seed " << seed;
    ASSERT_EQ(ring.scheduler().blocks_used(), 0u) << "seed " << seed;
    ASSERT_TRUE(ring.scheduler().idle());
  }
}

TEST(SchedulerTest, ACancelledRequestSaysNothingMoreAndGivesItsBlocksBack) {
  Ring ring(kRoomy);
  const RequestId id = ring.scheduler().submit(request(100, 50));
  ring.send();
  ring.scheduler().cancel(id);
  ring.run();
  EXPECT_TRUE(ring.tokens[id].empty());
  EXPECT_EQ(ring.open(), 0u);
  EXPECT_EQ(ring.scheduler().blocks_used(), 0u);
}

TEST(SchedulerTest, EndsAtEndTokensAtMaxTokensAndAtTheContext) {
  Ring ring({1000, 40, 100, 512});
  TokenRequest ends = request(4, 30);
  ends.end_tokens = {11};
  const RequestId stopped = ring.scheduler().submit(ends);
  const RequestId counted = ring.scheduler().submit(request(4, 9));
  TokenRequest open_ended = request(4, 0);
  open_ended.max_tokens.reset();
  const RequestId full = ring.scheduler().submit(open_ended);
  const RequestId none = ring.scheduler().submit(request(4, 0));
  ring.run();
  EXPECT_EQ(ring.tokens[stopped], (std::vector<TokenId>{8, 9, 10, 11}));
  EXPECT_EQ(ring.tokens[counted].size(), 9u);
  EXPECT_EQ(ring.tokens[full].size(), 36u);
  EXPECT_TRUE(ring.tokens[none].empty());
  EXPECT_EQ(ring.finished.size(), 4u);
}

TEST(SchedulerTest, AsksForEveryRowWhenPromptLogitsAreWanted) {
  Ring ring(kRoomy, 4, {10}, 16);
  TokenRequest asked = request(40, 0);
  asked.prompt_logits = std::make_shared<const LogitsSink>();
  ring.scheduler().submit(asked);
  uint32_t answered = 0;
  while (const StepPlan* plan = ring.send())
    for (const OutputRow& row : plan->asked) answered += row.logits != nullptr;
  EXPECT_EQ(answered, 40u);
}

TEST(SchedulerTest, ARequestThatCannotBeIsRefusedAtOnce) {
  Scheduler scheduler({2});
  const auto code = [&](TokenRequest asked) -> std::optional<ErrorCode> {
    try {
      scheduler.submit(std::move(asked));
    } catch (const Error& error) {
      return error.code();
    }
    return std::nullopt;
  };
  EXPECT_EQ(code(request(1, 1)), ErrorCode::kUnavailable);
  scheduler.open_ring({2, 1000, 10, 512});
  EXPECT_EQ(code(request(0, 1)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(request(65, 1)), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code(request(64, 1)), std::nullopt);
  EXPECT_EQ(code(request(1, 1)), std::nullopt);
  EXPECT_EQ(code(request(1, 1)), ErrorCode::kLimit);
}

TEST(SchedulerTest, ALostSequenceEndsItsRequestAndNoOther) {
  Ring ring(kRoomy);
  const RequestId first = ring.scheduler().submit(request(10, 20));
  const RequestId second = ring.scheduler().submit(request(10, 20));
  const StepPlan* plan = ring.send();
  ASSERT_EQ(plan->ranges.size(), 2u);
  ring.scheduler().lose(plan->ranges[0].sequence, Error(ErrorCode::kIo, "the disk is full"));
  ring.scheduler().lose(SequenceId{99}, Error(ErrorCode::kIo, "nobody's"));
  EXPECT_TRUE(ring.scheduler().take_events().empty()) << "it is filled again, once";
  plan = ring.send();
  ASSERT_FALSE(plan->ranges.empty());
  const SequenceId again = plan->ranges[0].sequence;
  EXPECT_EQ(plan->ranges[0].first_position, 0u);
  ring.scheduler().lose(again, Error(ErrorCode::kIo, "the disk is full"));
  const auto events = ring.scheduler().take_events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].request, first);
  EXPECT_EQ(std::get<Error>(events[0].what).message(), "the disk is full");
  ring.run();
  EXPECT_TRUE(ring.tokens[first].empty());
  EXPECT_EQ(ring.tokens[second].size(), 20u);
  EXPECT_EQ(ring.open(), 0u) << "its sequence was closed";
  EXPECT_EQ(ring.scheduler().blocks_used(), 0u);
}

TEST(SchedulerTest, ALostSequenceIsFilledAgainToTheSameTokens) {
  Ring ring(kRoomy);
  const RequestId id = ring.scheduler().submit(request(50, 20));
  for (int i = 0; i < 8; ++i) ring.send(), ring.take_back();
  const std::vector<TokenId> before = ring.tokens[id];
  ASSERT_GT(before.size(), 3u);
  ring.scheduler().lose(SequenceId{1}, Error(ErrorCode::kIo, "a damaged block"));
  ring.run();
  ASSERT_EQ(ring.tokens[id].size(), 20u);
  for (uint32_t i = 0; i < 20; ++i) EXPECT_EQ(ring.tokens[id][i], 8u + i);
}

TEST(SchedulerTest, APromptSeenBeforeIsNotComputedAgain) {
  Ring ring(kRoomy, 4, {.keep = true});
  TokenRequest first = request(0, 5);
  for (TokenId token = 0; token < 100; ++token) first.prompt.push_back(token * 3);
  ring.scheduler().submit(first);
  ring.run();
  EXPECT_EQ(ring.open(), 1u) << "it is kept";

  // The same, another end, the conversation going on, and one that has little in common.
  TokenRequest other = first, longer = first, foreign = first;
  other.prompt.back() += 1;
  for (uint32_t i = 0; i < 4; ++i) longer.prompt.push_back(298 + i);  // what was generated
  longer.prompt.insert(longer.prompt.end(), 60, 7);
  foreign.prompt[20] = 1;
  const std::vector<std::pair<TokenRequest, uint32_t>> cases = {
      {first, 96}, {other, 96}, {longer, 96}, {foreign, 0}};
  for (const auto& [asked, reused] : cases) {
    const uint64_t before = ring.scheduler().reused_positions();
    const RequestId id = ring.scheduler().submit(asked);
    uint32_t rows = 0;
    SequenceId sequence;
    while (const StepPlan* plan = ring.send()) {
      rows += plan->prompt_rows;
      if (!plan->ranges.empty()) sequence = plan->ranges[0].sequence;
    }
    EXPECT_EQ(ring.log(sequence), asked.prompt);
    EXPECT_EQ(rows, asked.prompt.size() - reused);
    EXPECT_EQ(ring.scheduler().reused_positions() - before, reused);
    ring.run();
    ASSERT_EQ(ring.tokens[id].size(), 5u);
    EXPECT_EQ(ring.tokens[id][0], asked.prompt.back() + 1);
  }
}

// They may share it, or have the memory that it lacked.
TEST(SchedulerTest, WhereStateWasLostOthersAreKeptNoLonger) {
  Ring ring(kRoomy, 4, {.keep = true});
  ring.scheduler().submit(request(100, 5));
  ring.scheduler().submit(request(300, 5));
  ring.run();
  ASSERT_EQ(ring.scheduler().kept(), 2u);
  const RequestId id = ring.scheduler().submit(request(100, 5));
  const StepPlan* plan = ring.send();
  ASSERT_EQ(plan->operations.at(0).kind, OperationKind::kFork);
  ring.scheduler().lose(plan->ranges.at(0).sequence, Error(ErrorCode::kIo, "a damaged block"));
  EXPECT_EQ(ring.scheduler().kept(), 0u);
  ring.run();
  EXPECT_EQ(ring.tokens[id].size(), 5u);
  EXPECT_EQ(ring.scheduler().kept(), 1u) << "the one that was computed again";
  EXPECT_EQ(ring.open(), 1u);
  EXPECT_EQ(ring.scheduler().reused_positions(), 96u) << "once, in vain";
}

TEST(SchedulerTest, KeptSequencesGiveWayToWhateverRuns) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SeededRandom random(seed);
    const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random.below(bound)); };
    const RingCapacity capacity{4 + below(30), 64 + below(400), 1 + below(6), 16 + below(200)};
    Ring ring(capacity, 1 + below(9), {.keep = true}, 1 + below(80));
    const uint32_t room =
        std::min<uint32_t>(capacity.context, static_cast<uint32_t>(capacity.kv_blocks) * 32);
    std::map<RequestId, TokenRequest> asked;
    for (int i = 0; i < 40; ++i) {
      TokenRequest one = request(0, 1 + below(20));
      // Few beginnings, many ends.
      one.prompt.assign(1 + below(room), static_cast<TokenId>(100 * below(3)));
      if (below(2)) one.prompt.back() = 7 + below(50);
      asked[ring.scheduler().submit(one)] = one;
      for (uint32_t turn = below(12); turn > 0; --turn) below(2) ? (void)ring.send() : (void)ring.take_back();
      if (below(8) == 0) {
        ring.scheduler().cancel(asked.rbegin()->first);
        asked.erase(asked.rbegin()->first);
      }
      if (below(10) == 0)
        ring.scheduler().lose(SequenceId{1 + below(40)}, Error(ErrorCode::kIo, "a damaged block"));
      if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed;
    }
    ring.run();
    for (const auto& [id, one] : asked) {
      if (std::count(ring.finished.begin(), ring.finished.end(), id) == 0) continue;  // lost twice
      ASSERT_FALSE(ring.tokens[id].empty()) << "seed " << seed;
      for (uint32_t i = 0; i < ring.tokens[id].size(); ++i)
        ASSERT_EQ(ring.tokens[id][i], one.prompt.back() + 1 + i) << "seed " << seed;
    }
    EXPECT_EQ(ring.scheduler().blocks_used(), ring.scheduler().kept_blocks());
    EXPECT_EQ(ring.scheduler().running() + ring.scheduler().waiting(), 0u);
  }
}

TEST(SchedulerTest, EveryRequestEndsWithTheErrorOfALostRing) {
  Ring ring({4, 128, 1, 512});
  for (int i = 0; i < 3; ++i) ring.scheduler().submit(request(10, 20));
  ring.send();
  ring.scheduler().close_ring(Error(ErrorCode::kUnavailable, "peer x was lost"));
  size_t errors = 0;
  for (const RequestEvent& event : ring.scheduler().take_events())
    errors += std::holds_alternative<Error>(event.what);
  EXPECT_EQ(errors, 3u);
  EXPECT_EQ(ring.scheduler().blocks_used(), 0u);
}

}  // namespace
}  // namespace caravan
