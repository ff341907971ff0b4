#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/log.h"
#include "tests/sim/sim_world.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A caravan, its clients and what goes wrong, all drawn from one seed.
class Scenario {
 public:
  explicit Scenario(uint64_t seed)
      : seed_(seed), random_(seed * 7919 + 1), config_(draw()), world_(config_) {}

  void run() {
    for (uint32_t process = 0; process <= peers_; ++process) {
      const bool late = process > config_.min_peers && chance(30);
      world_.at(Time{} + (late ? milliseconds(random_.below(8000)) : milliseconds(random_.below(50))),
                [this, process] { world_.start(process); });
    }
    for (uint32_t i = 2 + below(40); i > 0; --i) schedule_request();
    if (chance(60))
      for (uint32_t i = 1 + below(4); i > 0; --i) schedule_fault();
    const Time last = Time{} + seconds(20);
    world_.run_until(last);
    ASSERT_TRUE(world_.run_until(last + seconds(300), [&] { return world_.all_over(); }))
        << "a request hangs";
    world_.run_until(std::max(world_.now(), healed_) + seconds(40));
    check_answers();
    check_quiet();
    if (::testing::Test::HasFatalFailure()) return;
    check_that_it_serves_again();
  }

 private:
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(random_.below(bound)); }
  bool chance(uint32_t percent) { return below(100) < percent; }
  Time some_time() { return Time{} + milliseconds(500 + random_.below(15000)); }

  SimConfig draw() {
    SimConfig config;
    config.seed = seed_;
    peers_ = 1 + below(5);
    config.layers = peers_ + 1 + below(6);
    config.mode = chance(50) ? CutMode::kEven : CutMode::kByCost;
    config.min_peers = 1 + below(peers_);
    config.head_hosts_stage = chance(30);
    config.vocabulary = chance(50) ? 12 : 1000;
    config.context = 64 + below(200);
    config.kv_blocks = chance(50) ? 1000 : 2 + below(12);
    // With little memory, a ring that lost a peer may have to wait for it.
    config.peer_memory = chance(30) ? (config.layers + peers_ - 1) / peers_ + 1 : 1000;
    config.max_sequences = 1 + below(32);
    config.chunk_rows = 1 + below(64);
    config.window = chance(50) ? 0 : 1 + below(8);
    config.latency = std::chrono::microseconds(20 + below(5000));
    config.jitter = std::chrono::microseconds(below(20000));
    config.peer_timeout = milliseconds(2000 + below(8000));
    config.step_timeout = seconds(30);
    config.keep = chance(50);
    if (chance(30))
      for (uint32_t process = 1; process <= peers_; ++process)
        if (chance(60)) config.fetching.insert(process);
    config.fetch_time = milliseconds(below(400));
    if (chance(40)) config.codec = CodecId::kBf16;
    config.archive = chance(60);
    config.archive_faults = {below(3) * 5, below(3) * 10, below(3) * 10};
    config.archive_block_time = std::chrono::microseconds(1 + below(chance(80) ? 200 : 20000));
    config.probe_timeout = milliseconds(chance(80) ? 300 : 1 + below(40));
    return config;
  }

  TokenRequest draw_request() {
    TokenRequest request;
    const uint32_t length = 1 + below(chance(80) ? 40 : 100);
    // Many begin alike, which is what kept sequences are for.
    if (beginning_.empty())
      for (uint32_t i = 34 + below(config_.context / 3); i > 0; --i)
        beginning_.push_back(below(config_.vocabulary));
    if (chance(60)) request.prompt = beginning_;
    for (uint32_t i = 0; i < length; ++i) request.prompt.push_back(below(config_.vocabulary));
    if (chance(80)) request.max_tokens = below(100);
    if (chance(50)) request.end_tokens = {0, 3};
    request.sampling.seed = random_.next();
    if (chance(30)) request.sampling.repetition_penalty = 1.2f, request.sampling.penalty_window = below(20);
    if (chance(20)) request.prompt_logits = std::make_shared<const LogitsSink>();  // the world puts its own
    return request;
  }

  void schedule_request() {
    const Time time = some_time();
    const TokenRequest request = draw_request();
    const bool cancelled = chance(15);
    const Duration patience = milliseconds(random_.below(500));
    world_.at(time, [this, request, cancelled, patience] {
      const size_t index = world_.submit(request);
      if (cancelled) world_.after(patience, [this, index] { world_.cancel(index); });
    });
  }

  void schedule_fault() {
    const Time time = some_time();
    const Duration length = milliseconds(random_.below(20000));
    healed_ = std::max(healed_, time + length);
    faults_ = true;
    const uint32_t victim = 1 + below(peers_), other = below(peers_ + 1);
    const uint32_t kind = below(6);
    const bool silent = chance(50);
    world_.at(time, [=, this] {
      switch (kind) {
        case 0:
        case 1:
          world_.kill(victim, silent);
          expect_noticed(victim, time);
          if (kind == 0) world_.after(length, [=, this] { world_.start(victim); });
          return;
        case 2:
          world_.pause(victim, length);
          if (length > config_.peer_timeout + seconds(3)) expect_noticed(victim, time);
          return;
        case 3:
          return world_.break_link(victim, other);
        case 4:
          return world_.set_slowness(victim, 1 + static_cast<double>(length.count() % 20));
        default:
          world_.kill(0, silent);
          world_.after(length, [this] { world_.start(0); });
      }
    });
  }

  // A ring that contains a lost peer ends within the configured time, and its requests with it.
  void expect_noticed(uint32_t victim, Time time) {
    if (!world_.alive(0) || !world_.head().ring().stage_of(world_.key(victim))) return;
    const EpochId epoch = world_.head().ring().assignment()->epoch;
    const RingId ring = world_.head().ring().assignment()->ring;
    world_.at(time + config_.peer_timeout + seconds(2), [=, this] {
      if (!world_.alive(0)) return;
      EXPECT_FALSE(world_.head().ring().is_current(ring, epoch)) << "a lost peer is not noticed";
    });
  }

  void check_answers() {
    finished = failed = 0;
    for (size_t i = 0; i < world_.requests().size(); ++i) {
      const SimRequest& request = world_.requests()[i];
      const auto reference =
          world_.model().reference(request.asked, config_.layers, positions(), request.cuts);
      // Whatever came is a beginning of the reference; a finished answer is all of it.
      ASSERT_LE(request.tokens.size(), reference.tokens.size()) << "request " << i;
      ASSERT_TRUE(std::equal(request.tokens.begin(), request.tokens.end(), reference.tokens.begin()))
          << "wrong tokens in request " << i;
      failed += request.error.has_value();
      if (request.error) {
        if (request.error->code() != ErrorCode::kUnavailable) {
          // More prompt than the ring has room for: said at once.
          EXPECT_EQ(request.error->code(), ErrorCode::kInvalidArgument) << request.error->message();
          EXPECT_GT(request.asked.prompt.size(), positions());
        } else if (!faults_ && request.submitted > Time{} + seconds(10)) {
          ADD_FAILURE() << "an error without a fault: " << request.error->message();
        }
        EXPECT_FALSE(request.error->message().empty());
      }
      if (!request.finish) continue;
      EXPECT_EQ(request.tokens, reference.tokens);
      EXPECT_EQ(*request.finish, reference.finish);
      EXPECT_EQ(request.prompt_logits, reference.prompt_logits);
      ++finished;
    }
  }

  // Nothing is left of all that: no sequence, no block, no step, no buffer.
  void check_quiet() {
    ASSERT_TRUE(world_.alive(0));
    const Head& head = world_.head();
    EXPECT_TRUE(head.scheduler().idle());
    EXPECT_EQ(head.scheduler().blocks_used(), head.scheduler().kept_blocks());
    EXPECT_EQ(head.scheduler().running() + head.scheduler().waiting(), 0u);
    EXPECT_EQ(head.steps_in_flight(), 0u);
    for (uint32_t process = 0; process < world_.process_count(); ++process) {
      if (!world_.alive(process) || !world_.node(process).stage()) continue;
      EXPECT_LE(world_.node(process).stage()->open_sequences(), head.scheduler().kept())
          << "process " << process;
      EXPECT_EQ(world_.node(process).stage()->queued_steps(), 0u) << "process " << process;
      if (world_.stage(process)) {
        EXPECT_LE(world_.stage(process)->sequences(), head.scheduler().kept()) << "process " << process;
      }
      const bool in_ring = head.ring().stage_of(world_.key(process)).has_value();
      EXPECT_EQ(world_.stage(process) != nullptr, in_ring) << "a stage that no ring uses: " << process;
    }
    EXPECT_EQ(world_.model().live_buffers(), 0u);
  }

  void check_that_it_serves_again() {
    const Head& head = world_.head();
    if (!head.ready()) {
      // Rightly so only when too few peers are there.
      std::vector<PeerOffer> offers(head.members().size(), PeerOffer{config_.peer_memory, 1});
      const std::vector<LayerCost> layers(config_.layers, LayerCost{1, 1});
      const bool covered =
          !(config_.mode == CutMode::kEven ? cut_evenly(layers, offers) : cut_by_cost(layers, offers))
               .empty();
      EXPECT_FALSE(covered && offers.size() >= config_.min_peers) << head.not_ready_reason();
      EXPECT_FALSE(head.not_ready_reason().empty());
      return;
    }
    const size_t probe = world_.submit(draw_request());
    ASSERT_TRUE(world_.run_until(world_.now() + seconds(60), [&] { return world_.all_over(); }));
    check_answers();
    EXPECT_TRUE(world_.requests()[probe].finish ||
                world_.requests()[probe].error->code() == ErrorCode::kInvalidArgument);
  }

  uint32_t positions() const {
    return static_cast<uint32_t>(std::min<uint64_t>(config_.context, config_.kv_blocks * 32));
  }

  const uint64_t seed_;
  SeededRandom random_;
  uint32_t peers_ = 1;
  const SimConfig config_;
  std::vector<TokenId> beginning_;  // of many prompts
  SimWorld world_;
  Time healed_{};
  bool faults_ = false;

 public:
  size_t finished = 0, failed = 0;
  uint64_t events() const { return world_.events(); }
  uint64_t preemptions() const { return world_.head().scheduler().preemptions(); }
  uint64_t reused_positions() const { return world_.head().scheduler().reused_positions(); }
  // Of the head's last life.
  const ArchiveCounts& archive() const { return world_.head().scheduler().archive(); }
};

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(SimTest, EveryRequestEndsRightOrWithACleanErrorUnderEverySeed) {
  const uint64_t only = number_from_environment("CARAVAN_SIM_SEED", 0);
  const uint64_t count = number_from_environment("CARAVAN_SIM_SEEDS", 200);
  set_log_level(only ? LogLevel::kInfo : LogLevel::kOff);
  size_t finished = 0, failed = 0;
  uint64_t events = 0, preemptions = 0, reused = 0;
  ArchiveCounts archive;
  for (uint64_t seed = only ? only : 1; seed <= (only ? only : count); ++seed) {
    auto scenario = std::make_unique<Scenario>(seed);
    scenario->run();
    finished += scenario->finished;
    failed += scenario->failed;
    events += scenario->events();
    if (!HasFailure()) {
      preemptions += scenario->preemptions(), reused += scenario->reused_positions();
      archive.loads += scenario->archive().loads;
      archive.misses += scenario->archive().misses;
      archive.dearer += scenario->archive().dearer;
      archive.failed += scenario->archive().failed;
    }
    if (HasFailure())
      FAIL() << "seed " << seed << " fails; replay it with\n  CARAVAN_SIM_SEED=" << seed
             << " test_sim --gtest_filter=SimTest.EveryRequest*";
  }
  fmt::print(
      "{} seeds, {} events, {} requests answered in full, {} with an error, {} preemptions, {} positions "
      "not computed again; archives: {} loads, {} of them in vain, {} not worth it, {} misses\n",
      only ? 1 : count, events, finished, failed, preemptions, reused, archive.loads, archive.failed,
      archive.dearer, archive.misses);
  if (!only && count >= 100) {
    // The seeds exercise what they are there for.
    EXPECT_GT(finished, count * 5);
    EXPECT_GT(failed, count);
    EXPECT_GT(preemptions, count / 5);
    EXPECT_GT(reused, 10 * count);
    EXPECT_GT(archive.loads, count / 2);
    EXPECT_GT(archive.failed, count / 20);
    EXPECT_GT(archive.dearer, 0u);
    EXPECT_GT(archive.misses, count / 2);
  }
}

// --- Weights that come over the link ---

TEST(SimTest, ThePresentRingServesWhileAPeerFetchesItsWeights) {
  SimConfig config;
  config.head_hosts_stage = true;
  config.fetching = {1, 2};
  config.fetch_time = seconds(20);
  SimWorld world(config);
  world.start(0);
  world.at(Time{} + seconds(2), [&] { world.start(1); });
  for (int second = 1; second < 200; ++second)
    world.at(Time{} + seconds(second) + milliseconds(100), [&] {
      TokenRequest request;
      request.prompt = {1, 2, 3};
      request.max_tokens = 5;
      world.submit(request);
    });
  const auto stages = [&] {
    return world.head().ready() ? world.head().ring().assignment()->route.size() : 0;
  };
  world.run_until(Time{} + seconds(30));
  EXPECT_EQ(stages(), 1u);
  ASSERT_TRUE(world.run_until(Time{} + seconds(100), [&] { return stages() == 2; }));
  EXPECT_GE(world.now(), Time{} + seconds(60)) << "three units take as long";
  // A third one: the second has what it needs of its new span, or fetches it beside its work.
  world.start(2);
  ASSERT_TRUE(world.run_until(Time{} + seconds(200), [&] { return stages() == 3; }));
  world.run_until(Time{} + seconds(220));
  for (const SimRequest& request : world.requests()) {
    ASSERT_TRUE(request.finish) << (request.error ? request.error->message() : "it hangs");
    EXPECT_LT(request.ended - request.submitted, seconds(2));
  }
}

// A disk that is full for a while: not at once again and again, and not never.
TEST(SimTest, WhatCouldNotBeFetchedIsAskedForAgain) {
  for (const uint32_t failures : {1u, 2u, 4u}) {
    SimConfig config;
    config.head_hosts_stage = true;
    config.fetching = {1};
    config.fetch_time = milliseconds(100);
    config.fetch_failures = failures;
    SimWorld world(config);
    world.start(0);
    world.start(1);
    const auto stages = [&] {
      return world.head().ready() ? world.head().ring().assignment()->route.size() : 0;
    };
    world.run_until(Time{} + seconds(9));
    EXPECT_EQ(stages(), 1u);
    EXPECT_TRUE(world.run_until(Time{} + seconds(15 * failures), [&] { return stages() == 2; })) << failures;
  }
}

TEST(SimTest, WithoutOthersARingFormsAndItsStagesFetch) {
  SimConfig config;
  config.fetching = {1, 2};
  config.min_peers = 2;
  config.fetch_time = seconds(20);
  SimWorld world(config);
  for (uint32_t process = 0; process <= 2; ++process) world.start(process);
  ASSERT_TRUE(world.run_until(Time{} + seconds(100), [&] { return world.head().ready(); }));
  EXPECT_EQ(world.head().ring().assignment()->epoch.value, 1u) << "no deadline ended it";
  EXPECT_GE(world.now(), Time{} + seconds(60));
}

TEST(SimTest, APeerThatComesBackHasItsWeights) {
  SimConfig config;
  config.head_hosts_stage = true;
  config.fetching = {1};
  config.fetch_time = seconds(10);
  SimWorld world(config);
  world.start(0);
  world.start(1);
  const auto stages = [&] {
    return world.head().ready() ? world.head().ring().assignment()->route.size() : 0;
  };
  ASSERT_TRUE(world.run_until(Time{} + seconds(60), [&] { return stages() == 2; }));
  world.kill(1, false);
  ASSERT_TRUE(world.run_until(world.now() + seconds(5), [&] { return stages() == 1; }));
  world.start(1);
  EXPECT_TRUE(world.run_until(world.now() + seconds(5), [&] { return stages() == 2; }));
}

// --- Speed ---

// The share of a second in which each stage computes, with many sequences and nothing going wrong.
std::vector<double> busy_shares(SimConfig config, uint32_t stages, uint32_t sequences) {
  config.min_peers = stages;
  config.layers = 2 * stages;
  config.context = 4000;
  config.kv_blocks = 100000;
  config.max_sequences = 1024;
  SimWorld world(config);
  for (uint32_t process = 0; process <= stages; ++process) world.start(process);
  EXPECT_TRUE(world.run_until(Time{} + seconds(10), [&] { return world.head().ready(); }));
  for (uint32_t i = 0; i < sequences; ++i) {
    TokenRequest request;
    request.prompt = {i, 1, 2};
    request.max_tokens = 3900;
    world.submit(request);
  }
  const Time start = world.now() + seconds(1), end = start + seconds(1);
  world.run_until(start);
  std::vector<Duration> before;
  for (uint32_t stage = 1; stage <= stages; ++stage) before.push_back(world.busy(stage));
  world.run_until(end);
  EXPECT_EQ(world.head().scheduler().running(), sequences);
  std::vector<double> shares;
  for (uint32_t stage = 1; stage <= stages; ++stage)
    shares.push_back(caravan::seconds(world.busy(stage) - before[stage - 1]));
  return shares;
}

TEST(SimTest, EveryStageIsBusyWithEnoughSequences) {
  for (const uint32_t stages : {1u, 2u, 3u, 5u, 8u}) {
    if (test::kSanitized && stages != 3) continue;
    // With 8 stages and 5 ms a hop, more steps would be on their way than may be.
    for (const Duration latency :
         {Duration(milliseconds(0)), Duration(milliseconds(1)), Duration(milliseconds(5))}) {
      if (stages == 8 && latency == milliseconds(5)) continue;
      if (test::kSanitized && latency != milliseconds(1)) continue;
      SimConfig config;
      config.latency = latency;
      config.jitter = latency / 5;
      const std::vector<double> shares = busy_shares(config, stages, 200);
      for (const double share : shares)
        EXPECT_GE(share, 0.9) << stages << " stages, latency " << latency.count() << " ns";
    }
  }
}

TEST(SimTest, FewerStepsThanTheWayHoldsLeaveStagesIdle) {
  SimConfig config;
  config.latency = milliseconds(5);
  config.window = 5;  // stages plus two
  for (const double share : busy_shares(config, 3, 200)) EXPECT_LT(share, 0.5);
}

TEST(SimTest, OneSequenceKeepsOneStageBusyAtATime) {
  SimConfig config;
  config.latency = config.jitter = Duration{};
  double sum = 0;
  for (const double share : busy_shares(config, 4, 1)) sum += share;
  EXPECT_LE(sum, 1.0);
  EXPECT_GE(sum, 0.8);
}

// --- Fairness ---

// A ring of so many stages, in each of which a row takes 2 ms; chunks are of 32 rows for each stage.
SimConfig slow_prompts(uint32_t stages) {
  SimConfig config;
  config.min_peers = stages;
  config.layers = 2 * stages;
  config.chunk_rows = 32 * stages;
  config.row_time = milliseconds(1);
  config.latency = config.jitter = std::chrono::microseconds(100);
  config.context = 2000;
  return config;
}
constexpr Duration kPiece = milliseconds(66);  // 32 rows in one stage, and the step

TEST(SimTest, ANewRequestWaitsForOneChunkOfEachRunningOne) {
  for (const uint32_t stages : {1u, 3u})
    for (const uint32_t running : {1u, 3u}) {
      SimWorld world(slow_prompts(stages));
      for (uint32_t process = 0; process <= stages; ++process) world.start(process);
      ASSERT_TRUE(world.run_until(Time{} + seconds(10), [&] { return world.head().ready(); }));
      TokenRequest request;
      request.max_tokens = 1;
      request.prompt.assign(1500, 1);
      for (uint32_t i = 0; i < running; ++i) world.submit(request);
      request.prompt.assign(4, 2);
      for (int i = 0; i < 10; ++i) {
        world.run_until(world.now() + milliseconds(37));
        const size_t index = world.submit(request);
        ASSERT_TRUE(
            world.run_until(world.now() + seconds(20), [&] { return world.requests()[index].over(); }));
        const SimRequest& done = world.requests()[index];
        EXPECT_LE(done.ended - done.submitted, (running * stages + stages) * kPiece + milliseconds(20))
            << stages << " stages, " << running << " running, request " << i;
      }
      EXPECT_FALSE(world.requests()[0].over());
    }
}

TEST(SimTest, APromptHoldsRunningAnswersUpForOneChunkAtATime) {
  for (const uint32_t stages : {1u, 3u}) {
    SimWorld world(slow_prompts(stages));
    for (uint32_t process = 0; process <= stages; ++process) world.start(process);
    ASSERT_TRUE(world.run_until(Time{} + seconds(10), [&] { return world.head().ready(); }));
    TokenRequest request;
    request.max_tokens = 60;
    request.prompt.assign(4, 1);
    const size_t answer = world.submit(request);
    world.run_until(world.now() + milliseconds(100));
    request.prompt.assign(1500, 2);
    world.submit(request);
    while (!world.requests()[answer].over()) {
      const size_t before = world.requests()[answer].tokens.size();
      const Time asked = world.now();
      ASSERT_TRUE(world.run_until(asked + seconds(20), [&] {
        return world.requests()[answer].over() || world.requests()[answer].tokens.size() > before;
      }));
      // Its row waits for one chunk, and rides with another piece through all stages.
      EXPECT_LE(world.now() - asked, (stages + stages) * kPiece + milliseconds(20)) << stages << " stages";
    }
  }
}

// --- The tests' own eyes ---

// A ring of two stages that serves one request while `tamper` works on the messages.
SimRequest tampered(const std::function<bool(uint32_t from, uint32_t to, Message& message)>& tamper,
                    HashModel::Reference& reference) {
  SimConfig config;
  config.min_peers = 2;
  SimWorld world(config);
  for (uint32_t process = 0; process <= 2; ++process) world.start(process);
  EXPECT_TRUE(world.run_until(Time{} + seconds(10), [&] { return world.head().ready(); }));
  world.tamper = tamper;
  TokenRequest request;
  request.prompt = {1, 2, 3, 4, 5};
  request.max_tokens = 240;
  reference = world.model().reference(request, config.layers, config.context);
  world.submit(request);
  EXPECT_TRUE(world.run_until(Time{} + seconds(200), [&] { return world.all_over(); }));
  return world.requests()[0];
}

TEST(SimTest, ALostStepIsNoticedByTheNextStage) {
  HashModel::Reference reference;
  int steps = 0;
  const SimRequest request = tampered(
      [&](uint32_t from, uint32_t to, Message& message) {
        return !(from != 0 && to != 0 && std::holds_alternative<Step>(message) && ++steps == 10);
      },
      reference);
  ASSERT_TRUE(request.error.has_value());
  EXPECT_EQ(request.error->code(), ErrorCode::kUnavailable);
}

TEST(SimTest, ALostAnswerEndsTheRequestWithinTheStepTimeoutNamingTheEdge) {
  HashModel::Reference reference;
  int answers = 0;
  const SimRequest request = tampered(
      [&](uint32_t, uint32_t, Message& message) {
        return !(std::holds_alternative<Answer>(message) && ++answers == 10);
      },
      reference);
  ASSERT_TRUE(request.error.has_value());
  EXPECT_NE(request.error->message().find("edge 2, from p"), std::string::npos) << request.error->message();
  EXPECT_NE(request.error->message().find("to the head"), std::string::npos) << request.error->message();
}

TEST(SimTest, AForeignRowChangesTheText) {
  HashModel::Reference reference;
  const SimRequest request = tampered(
      [&](uint32_t, uint32_t, Message& message) {
        if (auto* step = std::get_if<Step>(&message); step && step->step.value == 10) {
          auto bytes =
              std::make_shared<std::vector<std::byte>>(step->rows.bytes->begin(), step->rows.bytes->end());
          (*bytes)[0] ^= std::byte{1};
          step->rows.bytes = bytes;
        }
        return true;
      },
      reference);
  EXPECT_NE(request.tokens, reference.tokens);
}

TEST(SimTest, AStepThatComesTwiceIsDoneOnce) {
  // Doubling is done by sending the step before in place of a heartbeat's answer, which nobody misses.
  HashModel::Reference reference;
  std::optional<Step> last;
  uint32_t first_stage = 0;
  int doubled = 0;
  const SimRequest request = tampered(
      [&](uint32_t from, uint32_t to, Message& message) {
        if (from != 0) return true;
        if (const auto* step = std::get_if<Step>(&message)) last = *step, first_stage = to;
        if (std::holds_alternative<Heartbeat>(message) && last && to == first_stage)
          message = *last, ++doubled;
        return true;
      },
      reference);
  EXPECT_GT(doubled, 0);
  EXPECT_EQ(request.tokens, reference.tokens);
  EXPECT_TRUE(request.finish.has_value());
}

}  // namespace
}  // namespace caravan
