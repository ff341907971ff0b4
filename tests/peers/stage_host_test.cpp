#include "peers/stage_host.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/limits.h"

namespace caravan {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

PeerKey key(uint8_t first) {
  PeerKey made;
  made.bytes[0] = first;
  return made;
}

constexpr uint8_t kHead = 1, kBefore = 2, kSelf = 3, kAfter = 4;

// The middle one of three stages, driven by hand.
class StageHostTest : public ::testing::Test {
 protected:
  StageHostTest() : host_(options()) {
    ring_.bytes[0] = 7;
    host_.start(now_);
    on(LinkUp{key(kHead)});
    Welcome welcome;
    welcome.ring = ring_;
    welcome.heartbeat_ms = 1000;
    welcome.peer_timeout_ms = 10000;
    receive(kHead, welcome);
  }

  static StageHostOptions options() {
    StageHostOptions options;
    options.self = key(kSelf);
    options.head = key(kHead);
    options.hello.layers = 6;
    options.hello.numerics_class = "avx2";
    return options;
  }

  Assign assignment(uint64_t epoch) const {
    Assign assign;
    assign.ring = ring_;
    assign.epoch = EpochId{epoch};
    assign.stage = 1;
    assign.route = {{key(kBefore), "before", "avx2", {}, {1, 3}, {}},
                    {key(kSelf), "self", "avx2", {}, {3, 5}, {}},
                    {key(kAfter), "after", "avx2", {}, {5, 7}, {}}};
    assign.context = 100;
    assign.max_sequences = 4;
    assign.max_rows = 64;
    return assign;
  }

  void agree(uint64_t epoch) {
    const Assign assign = assignment(epoch);
    const Hash256 hash = contract_hash(assign, {key(kBefore), {}, "avx2"});
    receive(kBefore, Contract{ring_, assign.epoch, 1, false, hash, true});
    receive(kAfter, Contract{ring_, assign.epoch, 2, false, hash, true});
  }

  void form(uint64_t epoch) {
    receive(kHead, assignment(epoch));
    host_.on(StagePrepared{ring_, EpochId{epoch}, 40, {}}, now_);
    agree(epoch);
    ASSERT_EQ(host_.state(), StageHost::State::kReady);
    host_.take_actions();
  }

  Step step(uint64_t number, uint64_t epoch = 1) const {
    Step made;
    made.ring = ring_;
    made.epoch = EpochId{epoch};
    made.step = StepId{number};
    return made;
  }
  // `number` also counts the sequence's operations: its open, then one row a step.
  Step row(uint64_t number, uint64_t epoch = 1) const {
    Step made = step(number, epoch);
    if (number == 1) made.operations.push_back({OperationKind::kOpen, SequenceId{5}, 1, {}, 0});
    made.ranges.push_back({SequenceId{5}, number + 1, static_cast<uint32_t>(number - 1), 1, KernelClass::kFew,
                           AnswerKind::kRow, 1});
    made.rows = rows();
    return made;
  }
  static Rows rows() { return {CodecId::kF32, 1, 1, std::make_shared<const std::vector<std::byte>>(4)}; }

  void on(const LinkEvent& event) { host_.on(event, now_); }
  void receive(uint8_t from, Message message) { on(Received{key(from), std::move(message)}); }

  // Messages of a kind among the actions so far, and to whom.
  template <class Kind>
  std::vector<std::pair<PeerKey, Kind>> sent() {
    std::vector<std::pair<PeerKey, Kind>> found;
    for (const StageAction& action : host_.take_actions())
      if (const auto* message = std::get_if<SendMessage>(&action))
        if (const auto* kind = std::get_if<Kind>(&message->message)) found.emplace_back(message->to, *kind);
    return found;
  }
  size_t steps_run() {
    size_t count = 0;
    for (const StageAction& action : host_.take_actions())
      if (const auto* run = std::get_if<RunSteps>(&action)) count += run->steps.size();
    return count;
  }

  Time now_{seconds(1)};
  RingId ring_;
  StageHost host_;
};

TEST_F(StageHostTest, IsReadyOnlyWhenLoadedAndBothNeighboursAgree) {
  receive(kHead, assignment(1));
  const Hash256 hash = contract_hash(assignment(1), {key(kBefore), {}, "avx2"});
  receive(kBefore, Contract{ring_, EpochId{1}, 1, false, hash, false});
  host_.on(StagePrepared{ring_, EpochId{1}, 40, {}}, now_);
  EXPECT_TRUE(sent<Ready>().empty());
  receive(kAfter, Contract{ring_, EpochId{1}, 2, false, hash, false});
  const auto ready = sent<Ready>();
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(ready[0].first, key(kHead));
  EXPECT_EQ(ready[0].second.kv_blocks, 40u);
}

TEST_F(StageHostTest, TellsTheHeadWhatItExpectsOfTheLayersOfThisEpoch) {
  const auto expected_at = [this](uint64_t epoch, StageForecast forecast) {
    receive(kHead, assignment(epoch));
    host_.on(StagePrepared{ring_, EpochId{epoch}, 40, {}, std::move(forecast)}, now_);
    agree(epoch);
    const auto ready = sent<Ready>();
    EXPECT_EQ(ready.size(), 1u);
    return ready.at(0).second.forecast.token_ns;
  };
  EXPECT_EQ(expected_at(1, {{5, 6}, {7}}), (std::vector<uint64_t>{5, 6}));
  EXPECT_EQ(expected_at(2, {{8, 9}, {7}}), (std::vector<uint64_t>{8, 9}));
  EXPECT_TRUE(expected_at(3, {}).empty()) << "that of another cut says nothing of this one";
}

TEST_F(StageHostTest, NamesTheEdgeWhoseContractDiffers) {
  receive(kHead, assignment(1));
  const Hash256 other = contract_hash(assignment(1), {key(kAfter), {}, "avx512"});
  receive(kAfter, Contract{ring_, EpochId{1}, 2, false, other, false});
  const auto failed = sent<NotReady>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].second.edge, 2u);
  EXPECT_EQ(host_.state(), StageHost::State::kFailed);
}

TEST_F(StageHostTest, RepeatsItsContractUntilItIsKnownAndGivesUpInTime) {
  receive(kHead, assignment(1));
  EXPECT_EQ(sent<Contract>().size(), 2u);
  now_ += milliseconds(200);
  host_.tick(now_);
  EXPECT_EQ(sent<Contract>().size(), 2u);
  for (int i = 0; i < 12; ++i) {
    now_ += seconds(1);
    receive(kHead, Heartbeat{1, 1, 0, 0, 0, 0, {}, {}});
    host_.tick(now_);
  }
  const auto failed = sent<NotReady>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].second.edge, 1u);
}

TEST_F(StageHostTest, RefusesStepsOfAnotherEpochAndFromOthersThanTheStageBefore) {
  form(2);
  receive(kBefore, row(1, 1));
  receive(kBefore, row(1, 3));
  receive(kAfter, row(1, 2));
  receive(kHead, row(1, 2));
  Step foreign = row(1, 2);
  foreign.ring.bytes[0] = 8;
  receive(kBefore, foreign);
  EXPECT_EQ(steps_run(), 0u);
  EXPECT_EQ(host_.refused_steps(), 5u);
  receive(kBefore, row(1, 2));
  EXPECT_EQ(steps_run(), 1u);
  EXPECT_EQ(host_.state(), StageHost::State::kReady);
}

TEST_F(StageHostTest, IgnoresAStepThatComesAgain) {
  form(1);
  receive(kBefore, row(1));
  receive(kBefore, row(2));
  EXPECT_EQ(steps_run(), 2u);
  receive(kBefore, row(1));
  receive(kBefore, row(2));
  EXPECT_EQ(steps_run(), 0u);
  receive(kBefore, row(3));
  EXPECT_EQ(steps_run(), 1u);
}

TEST_F(StageHostTest, FailsTheEpochWhenAStepIsMissing) {
  form(1);
  receive(kBefore, row(1));
  receive(kBefore, step(3));  // of no sequence, so that only its number tells
  const auto failed = sent<StepFailed>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].second.step, StepId{3});
  EXPECT_EQ(host_.state(), StageHost::State::kFailed);
  receive(kBefore, row(4));
  EXPECT_EQ(steps_run(), 0u);
}

TEST_F(StageHostTest, PassesResultsOnAndCountsThem) {
  form(1);
  receive(kBefore, row(1));
  host_.take_actions();
  StepDone done;
  done.ring = ring_;
  done.epoch = EpochId{1};
  done.step = StepId{1};
  done.rows = rows();
  done.compute_ns = 123;
  host_.on(done, now_);
  const auto steps = sent<Step>();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].first, key(kAfter));
  ASSERT_EQ(steps[0].second.counters.size(), 1u);
  EXPECT_EQ(steps[0].second.counters[0].compute_ns, 123u);
  EXPECT_EQ(steps[0].second.counters[0].bytes_in, 4u);
  EXPECT_EQ(steps[0].second.counters[0].bytes_out, 4u);
  EXPECT_EQ(host_.queued_steps(), 0u);
}

TEST_F(StageHostTest, PassesOnWhichSequencesLostStateHereAndBefore) {
  form(1);
  Step step = row(1);
  step.lost = {SequenceId{5}};
  step.lost_reason = "the first reason";
  receive(kBefore, step);
  host_.take_actions();
  StepDone done;
  done.ring = ring_;
  done.epoch = EpochId{1};
  done.step = StepId{1};
  done.rows = rows();
  done.lost = {SequenceId{5}, SequenceId{6}};
  done.lost_reason = "another reason";
  host_.on(done, now_);
  const auto steps = sent<Step>();
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].second.lost, (std::vector<SequenceId>{SequenceId{5}, SequenceId{6}}));
  EXPECT_EQ(steps[0].second.lost_reason, "the first reason");
  EXPECT_EQ(host_.state(), StageHost::State::kReady);
}

TEST_F(StageHostTest, KeepsItsQueueBounded) {
  form(1);
  for (uint64_t number = 1; number <= limits::kMaxStepsInFlight; ++number) receive(kBefore, row(number));
  EXPECT_EQ(steps_run(), limits::kMaxStepsInFlight);
  EXPECT_EQ(host_.queued_steps(), limits::kMaxStepsInFlight);
  receive(kBefore, row(limits::kMaxStepsInFlight + 1));
  EXPECT_EQ(host_.state(), StageHost::State::kFailed);
  EXPECT_EQ(sent<StepFailed>().size(), 1u);
}

TEST_F(StageHostTest, TellsTheHeadWhenANeighbourIsGone) {
  form(1);
  on(LinkDown{key(kAfter), "reset"});
  const auto failed = sent<NotReady>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].second.edge, 2u);
}

TEST_F(StageHostTest, DropsEverythingWhenTheHeadIsGoneAndGreetsItAnew) {
  form(1);
  receive(kBefore, row(1));
  on(LinkDown{key(kHead), "reset"});
  bool released = false;
  for (const StageAction& action : host_.take_actions())
    released |= std::holds_alternative<ReleaseStage>(action);
  EXPECT_TRUE(released);
  EXPECT_EQ(host_.open_sequences(), 0u);
  EXPECT_EQ(host_.queued_steps(), 0u);
  on(LinkUp{key(kHead)});
  const auto hello = sent<Hello>();
  ASSERT_EQ(hello.size(), 1u);
  EXPECT_EQ(hello[0].second.incarnation, 2u);
}

TEST_F(StageHostTest, GivesUpASilentHead) {
  form(1);
  for (int i = 0; i < 9; ++i) {
    now_ += seconds(1);
    host_.tick(now_);
  }
  EXPECT_EQ(host_.state(), StageHost::State::kReady);
  now_ += milliseconds(1500);
  host_.tick(now_);
  EXPECT_EQ(host_.state(), StageHost::State::kAlone);
}

TEST_F(StageHostTest, ForgivesAHeadThatWasSilentWhileItSleptItself) {
  form(1);
  now_ += seconds(1);
  host_.tick(now_);
  now_ += seconds(60);
  host_.tick(now_);
  EXPECT_EQ(host_.state(), StageHost::State::kReady);
}

TEST_F(StageHostTest, TakesOnlyTheHeadsWordForAssignmentsAndReleases) {
  receive(kBefore, assignment(1));
  EXPECT_EQ(host_.state(), StageHost::State::kIdle);
  form(2);
  receive(kAfter, Release{ring_, EpochId{2}, "no"});
  EXPECT_EQ(host_.state(), StageHost::State::kReady);
  receive(kHead, assignment(1));  // late
  EXPECT_EQ(host_.assignment()->epoch, EpochId{2});
  receive(kHead, Release{ring_, EpochId{2}, "done"});
  EXPECT_EQ(host_.state(), StageHost::State::kIdle);
}

TEST_F(StageHostTest, RefusesAnAssignmentThatItCannotMean) {
  const auto refused = [&](const std::function<void(Assign&)>& spoil) {
    Assign assign = assignment(1);
    spoil(assign);
    receive(kHead, assign);
    return sent<NotReady>().size() == 1 && !host_.assignment();
  };
  EXPECT_TRUE(refused([](Assign& assign) { assign.model.bytes[0] = 1; }));
  EXPECT_TRUE(refused([](Assign& assign) { assign.stage = 3; }));
  EXPECT_TRUE(refused([](Assign& assign) { assign.stage = 0; }));
  EXPECT_TRUE(refused([](Assign& assign) { assign.route[1].span = {5, 5}; }));
  EXPECT_TRUE(refused([](Assign& assign) { assign.route[1].span = {3, 100}; }));
  EXPECT_TRUE(refused([](Assign& assign) { assign.max_rows = limits::kMaxRowsPerStep + 1; }));
  EXPECT_TRUE(refused([](Assign& assign) { assign.context = 0; }));
}

// --- Steps that a stage must not believe ---

TEST(SequenceTableTest, RefusesWhatDoesNotContinueASequence) {
  const auto error = [](const std::function<void(Step&)>& spoil) {
    SequenceTable table({100, 2, 8});
    Step good;
    good.operations.push_back({OperationKind::kOpen, SequenceId{1}, 1, {}, 0});
    good.ranges.push_back({SequenceId{1}, 2, 0, 4, KernelClass::kMany, AnswerKind::kNothing, 0});
    good.rows.count = 4;
    EXPECT_EQ(table.apply(good), std::nullopt);
    Step next;
    next.ranges.push_back({SequenceId{1}, 3, 4, 2, KernelClass::kMany, AnswerKind::kRow, 1});
    next.rows.count = 2;
    spoil(next);
    return table.apply(next);
  };
  EXPECT_EQ(error([](Step&) {}), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].number = 2; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].number = 4; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].first_position = 5; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].sequence = SequenceId{2}; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.rows.count = 3; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].answer_count = 3; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].answer = AnswerKind::kNothing; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].count = s.rows.count = 9; }), std::nullopt);
  EXPECT_NE(error([](Step& s) { s.ranges[0].count = ~0u, s.rows.count = ~0u; }), std::nullopt);
  EXPECT_NE(error([](Step& s) {
              s.operations.push_back({OperationKind::kOpen, SequenceId{1}, 1, {}, 0});
            }),
            std::nullopt);
  EXPECT_NE(error([](Step& s) {
              s.operations.push_back({OperationKind::kClose, SequenceId{9}, 3, {}, 0});
            }),
            std::nullopt);
  EXPECT_NE(error([](Step& s) {
              s.operations.push_back({OperationKind::kTruncate, SequenceId{1}, 3, {}, 5});
            }),
            std::nullopt);
  EXPECT_NE(error([](Step& s) { s.operations.resize(limits::kMaxOperationsPerStep + 1); }), std::nullopt);
  EXPECT_NE(error([](Step& s) {
              for (uint64_t id = 2; id < 4; ++id)
                s.operations.push_back({OperationKind::kOpen, SequenceId{id}, 1, {}, 0});
            }),
            std::nullopt)
      << "more sequences than agreed";
}

TEST(SequenceTableTest, FollowsForksAndCuts) {
  SequenceTable table({100, 4, 50});
  Step step;
  step.operations.push_back({OperationKind::kOpen, SequenceId{1}, 1, {}, 0});
  step.ranges.push_back({SequenceId{1}, 2, 0, 40, KernelClass::kMany, AnswerKind::kNothing, 0});
  step.rows.count = 40;
  ASSERT_EQ(table.apply(step), std::nullopt);
  Step next;
  next.operations.push_back({OperationKind::kFork, SequenceId{2}, 1, SequenceId{1}, 33});
  next.operations.push_back({OperationKind::kTruncate, SequenceId{1}, 3, {}, 10});
  next.ranges.push_back({SequenceId{1}, 4, 10, 1, KernelClass::kFew, AnswerKind::kRow, 1});
  next.ranges.push_back({SequenceId{2}, 2, 33, 1, KernelClass::kFew, AnswerKind::kRow, 1});
  next.rows.count = 2;
  EXPECT_EQ(table.apply(next), std::nullopt);
  Step close;
  close.operations.push_back({OperationKind::kClose, SequenceId{1}, 5, {}, 0});
  close.operations.push_back({OperationKind::kClose, SequenceId{2}, 3, {}, 0});
  EXPECT_EQ(table.apply(close), std::nullopt);
  EXPECT_EQ(table.size(), 0u);
}

// --- The archive ---

BlockTag tag(uint8_t first) {
  return {{first}};
}

class ArchiveProbeTest : public StageHostTest {
 protected:
  ArchiveProbe probe(uint64_t epoch = 1) const {
    return {ring_, EpochId{epoch}, 9, false, {tag(1), tag(2), tag(3)}, 3, 100};
  }
  // What the stage asks of its archive.
  std::vector<ArchiveProbe> asked() {
    std::vector<ArchiveProbe> found;
    for (const StageAction& action : host_.take_actions())
      if (const auto* find = std::get_if<FindArchived>(&action)) found.push_back(find->probe);
    return found;
  }
};

TEST_F(ArchiveProbeTest, PassesOnWhatItHasOfWhatTheStageBeforeHas) {
  form(1);
  receive(kBefore, probe());
  const auto questions = asked();
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_EQ(questions[0].tags, probe().tags);
  host_.on(ArchiveFound{questions[0], {2, 11}}, now_);
  const auto passed = sent<ArchiveProbe>();
  ASSERT_EQ(passed.size(), 1u);
  EXPECT_EQ(passed[0].first, key(kAfter));
  EXPECT_FALSE(passed[0].second.to_head);
  EXPECT_EQ(passed[0].second.tags, (std::vector<BlockTag>{tag(1), tag(2)}));
  EXPECT_EQ(passed[0].second.blocks, 2u);
  EXPECT_EQ(passed[0].second.load_ns, 111u);
}

TEST_F(ArchiveProbeTest, NothingFoundIsToldToTheHeadAtOnce) {
  form(1);
  host_.on(ArchiveFound{probe(), {0, 0}}, now_);
  const auto answers = sent<ArchiveProbe>();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].first, key(kHead));
  EXPECT_TRUE(answers[0].second.to_head);
  EXPECT_EQ(answers[0].second.blocks, 0u);
  EXPECT_TRUE(answers[0].second.tags.empty());
}

TEST_F(ArchiveProbeTest, TheLastStageAnswersTheHead) {
  Assign assign = assignment(1);
  assign.route.pop_back();
  receive(kHead, assign);
  host_.on(StagePrepared{ring_, EpochId{1}, 40, {}}, now_);
  const Hash256 hash = contract_hash(assign, {key(kBefore), {}, "avx2"});
  receive(kBefore, Contract{ring_, EpochId{1}, 1, false, hash, true});
  receive(kHead, Contract{ring_, EpochId{1}, 2, false, hash, true});
  ASSERT_EQ(host_.state(), StageHost::State::kReady);
  host_.take_actions();
  host_.on(ArchiveFound{probe(), {3, 1}}, now_);
  const auto answers = sent<ArchiveProbe>();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].first, key(kHead));
  EXPECT_EQ(answers[0].second.probe, 9u);
  EXPECT_EQ(answers[0].second.blocks, 3u);
  EXPECT_EQ(answers[0].second.load_ns, 101u);
}

TEST_F(ArchiveProbeTest, WaitsForNoStepThatIsComputed) {
  form(1);
  receive(kBefore, row(1));
  receive(kBefore, row(2));
  host_.take_actions();
  receive(kBefore, probe());
  EXPECT_EQ(asked().size(), 1u);
  host_.on(ArchiveFound{probe(), {3, 1}}, now_);
  EXPECT_EQ(sent<ArchiveProbe>().size(), 1u);
  EXPECT_EQ(host_.queued_steps(), 2u);
}

TEST_F(ArchiveProbeTest, OthersQuestionsAreNotAnswered) {
  form(2);
  receive(kBefore, probe(1));
  receive(kBefore, probe(3));
  receive(kAfter, probe(2));
  receive(kHead, probe(2));
  ArchiveProbe foreign = probe(2), answer = probe(2), none = probe(2), crooked = probe(2);
  foreign.ring.bytes[0] = 8;
  answer.to_head = true;
  none.tags.clear(), none.blocks = 0;
  crooked.blocks = 2;
  for (const ArchiveProbe& one : {foreign, answer, none, crooked}) receive(kBefore, one);
  EXPECT_TRUE(asked().empty());
  EXPECT_EQ(host_.state(), StageHost::State::kReady);
  receive(kBefore, probe(2));
  EXPECT_EQ(asked().size(), 1u);
  // The ring goes before the archive has answered.
  receive(kHead, Release{ring_, EpochId{2}, "over"});
  host_.on(ArchiveFound{probe(2), {3, 1}}, now_);
  EXPECT_TRUE(sent<ArchiveProbe>().empty());
}

TEST_F(StageHostTest, TellsTheHeadWhatItsArchiveTakesAndHearsFromItWhatAllDo) {
  receive(kHead, assignment(1));
  host_.on(StagePrepared{ring_, EpochId{1}, 40, {}, {}, {70, 4, 9}}, now_);
  agree(1);
  const auto ready = sent<Ready>();
  ASSERT_EQ(ready.size(), 1u);
  EXPECT_EQ(ready[0].second.archive, (ArchiveRoom{70, 4, 9}));
  const auto limits = [this] {
    std::vector<ArchiveRoom> found;
    for (const StageAction& action : host_.take_actions())
      if (const auto* limit = std::get_if<ArchiveLimit>(&action)) found.push_back(limit->room);
    return found;
  };
  receive(kBefore, ArchiveLimit{ring_, EpochId{1}, {1, 1, 1}});
  receive(kHead, ArchiveLimit{ring_, EpochId{2}, {2, 2, 2}});
  EXPECT_TRUE(limits().empty()) << "of another peer, and of another epoch";
  receive(kHead, ArchiveLimit{ring_, EpochId{1}, {30, 3, 9}});
  EXPECT_EQ(limits(), (std::vector<ArchiveRoom>{{30, 3, 9}}));
}

class TagsTest : public StageHostTest {
 protected:
  // A sequence that is loaded, and rows of it.
  Step load(uint32_t positions, uint32_t tags, uint32_t rows = 1) const {
    Step made = step(1);
    made.operations.push_back({OperationKind::kLoad, SequenceId{5}, 1, {}, positions});
    made.load_tags.resize(tags);
    made.ranges.push_back({SequenceId{5}, 2, positions, rows, KernelClass::kMany, AnswerKind::kNothing, 0});
    made.rows = {CodecId::kF32, 1, rows, std::make_shared<const std::vector<std::byte>>(4 * rows)};
    return made;
  }
  bool takes(const Step& made) {
    SequenceTable table({200, 4, 64});
    return !table.apply(made);
  }
};

TEST_F(TagsTest, ALoadOpensASequenceWithWholeBlocks) {
  EXPECT_TRUE(takes(load(64, 2)));
  EXPECT_FALSE(takes(load(0, 0)));
  EXPECT_FALSE(takes(load(65, 2)));
  EXPECT_FALSE(takes(load(224, 7))) << "more than the context";
  Step later = load(64, 2);
  later.operations[0].number = 2;
  EXPECT_FALSE(takes(later));
  Step before = load(64, 2);
  before.ranges[0].first_position = 32;
  EXPECT_FALSE(takes(before)) << "rows begin where the loaded blocks end";
  SequenceTable table({200, 4, 64});
  EXPECT_FALSE(table.apply(load(64, 2)).has_value());
  EXPECT_TRUE(table.apply(load(64, 2)).has_value()) << "it is open already";
}

TEST_F(TagsTest, EveryBlockToLoadHasATag) {
  EXPECT_FALSE(takes(load(64, 1)));
  EXPECT_FALSE(takes(load(64, 3)));
  EXPECT_FALSE(takes(load(64, 0)));
  Step none = row(1);
  none.load_tags.resize(1);
  EXPECT_FALSE(takes(none));
}

TEST_F(TagsTest, AllCompletedBlocksHaveATagOrNone) {
  for (const uint32_t tags : {0u, 1u, 2u, 3u}) {
    Step made = load(32, 1, 64);
    made.tags.resize(tags);
    EXPECT_EQ(takes(made), tags == 0 || tags == 2) << tags;
  }
  Step unfinished = row(1);
  unfinished.tags.resize(1);
  EXPECT_FALSE(takes(unfinished));
}

}  // namespace
}  // namespace caravan
