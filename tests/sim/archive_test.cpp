#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/limits.h"
#include "tests/sim/sim_world.h"

namespace caravan {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

SimConfig archiving(uint32_t peers) {
  SimConfig config;
  config.min_peers = peers;
  config.context = 2000;
  config.archive = true;
  config.row_time = microseconds(500);
  config.jitter = Duration{};
  return config;
}

TokenRequest prompt(uint32_t length, uint32_t tokens = 5, TokenId first = 7) {
  TokenRequest made;
  for (uint32_t i = 0; i < length; ++i) made.prompt.push_back((first + i * i) % 50);
  made.max_tokens = tokens;
  return made;
}

// A world whose messages are looked at on their way.
class Caravan : public SimWorld {
 public:
  explicit Caravan(SimConfig config) : SimWorld(config), config_(config) {
    tamper = [this](uint32_t, uint32_t, Message& message) {
      if (const auto* step = std::get_if<Step>(&message)) tags += step->tags.size();
      if (!std::holds_alternative<ArchiveProbe>(message)) return true;
      ++probes;
      return !loses_probes;
    };
  }

  void start(std::vector<uint32_t> peers) {
    SimWorld::start(0);
    for (const uint32_t peer : peers) SimWorld::start(peer);
    EXPECT_TRUE(run_until(now() + seconds(60), [&] {
      return head().ready() && head().ring().assignment()->route.size() == peers.size();
    })) << head().not_ready_reason();
  }
  void kill(std::vector<uint32_t> processes) {
    for (const uint32_t process : processes) SimWorld::kill(process, false);
    run_until(now() + seconds(1));
  }
  // Answers the request and checks it.
  const SimRequest& ask(const TokenRequest& request) {
    const size_t index = submit(request);
    EXPECT_TRUE(run_until(now() + seconds(100), [&] { return requests()[index].over(); })) << "it hangs";
    check(index);
    return requests()[index];
  }
  void check(size_t index) {
    const SimRequest& seen = requests()[index];
    EXPECT_TRUE(seen.finish) << (seen.error ? seen.error->message() : "cancelled");
    const auto reference = model().reference(seen.asked, config_.layers, config_.context, seen.cuts);
    EXPECT_EQ(seen.tokens, reference.tokens);
  }
  const ArchiveCounts& counts() const { return head().scheduler().archive(); }

  size_t tags = 0, probes = 0;
  bool loses_probes = false;

 private:
  const SimConfig config_;
};

Duration first_token(const SimRequest& request) {
  return request.first_token - request.submitted;
}

// --- What it is for ---

TEST(ArchiveTest, APromptSeenBeforeEveryProcessDiedIsLoaded) {
  for (const CodecId codec : {CodecId::kF32, CodecId::kBf16}) {
    SimConfig config = archiving(3);
    config.codec = codec;
    Caravan world(config);
    world.start({1, 2, 3});
    const Duration cold = first_token(world.ask(prompt(1000)));
    world.kill({0, 1, 2, 3});
    world.start({1, 2, 3});
    const Duration warm = first_token(world.ask(prompt(1000)));
    EXPECT_EQ(world.counts().loads, 1u);
    EXPECT_EQ(world.counts().loaded_positions, 992u);
    EXPECT_EQ(world.head().scheduler().reused_positions(), 992u);
    EXPECT_LT(warm, cold / 10) << fmt::format("{} of {} ns", warm.count(), cold.count());
  }
}

TEST(ArchiveTest, EachPeerGetsItsLayersAgainInWhateverOrderTheyComeBack) {
  Caravan world(archiving(3));
  world.start({1, 2, 3});
  world.ask(prompt(300));
  world.kill({0, 1, 2, 3});
  for (const uint32_t process : {3u, 0u, 2u, 1u}) {
    world.SimWorld::start(process);
    world.run_until(world.now() + seconds(1));
  }
  ASSERT_TRUE(world.head().ready());
  world.ask(prompt(300));
  EXPECT_EQ(world.counts().loads, 1u);
}

// Peers that are alike measure themselves a little differently in each life. The head forms a ring alone, and
// takes in one peer after the other as they come.
TEST(ArchiveTest, EachPeerGetsItsLayersAgainThoughItMeasuresItselfAnew) {
  int moved = 0;
  for (const bool keeps_cuts : {true, false}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      SimConfig config = archiving(1);
      config.seed = seed;
      config.head_hosts_stage = true;
      config.mode = CutMode::kByCost;
      config.layers = 22;
      config.row_time = microseconds(100);
      config.measured_off = 0.04;
      config.keeps_cuts = keeps_cuts;
      Caravan world(config);
      std::vector<uint32_t> order = {0, 1, 2, 3};
      SeededRandom random(seed);
      const auto start_all = [&] {
        for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
        for (const uint32_t process : order) {
          world.SimWorld::start(process);
          world.run_until(world.now() + milliseconds(random.below(3000)));
        }
        world.start({0, 1, 2, 3});
      };
      start_all();
      const std::vector<RouteStage> route = world.head().ring().assignment()->route;
      world.ask(prompt(300));
      world.kill({0, 1, 2, 3});
      start_all();
      world.ask(prompt(300));
      if (!keeps_cuts) {
        moved += world.counts().loads == 0;
        continue;
      }
      for (size_t stage = 0; stage < route.size(); ++stage)
        EXPECT_EQ(world.head().ring().assignment()->route[stage].span, route[stage].span) << "seed " << seed;
      EXPECT_EQ(world.counts().loads, 1u) << "seed " << seed;
    }
  }
  EXPECT_GT(moved, 5) << "without the earlier cut nothing is found either way: this proves nothing";
}

TEST(ArchiveTest, APeerThatComesBackGetsItsLayersAgain) {
  SimConfig config = archiving(1);
  config.head_hosts_stage = true;
  config.mode = CutMode::kByCost;
  config.layers = 22;
  config.row_time = microseconds(100);
  config.measured_off = 0.04;
  for (config.seed = 1; config.seed <= 10; ++config.seed) {
    Caravan world(config);
    world.start({0, 1, 2});
    world.ask(prompt(300));
    world.kill({2});
    ASSERT_TRUE(world.run_until(world.now() + seconds(60), [&] { return world.head().ready(); }));
    world.ask(prompt(300));
    world.start({0, 1, 2});
    const uint64_t loads = world.counts().loads;
    world.ask(prompt(300));
    EXPECT_EQ(world.counts().loads, loads + 1) << "seed " << config.seed;
  }
}

TEST(ArchiveTest, AHeadThatHostsAStageAsksItself) {
  SimConfig config = archiving(2);
  config.head_hosts_stage = true;
  Caravan world(config);
  world.start({0, 1});
  world.ask(prompt(300));
  world.kill({0, 1});
  world.start({0, 1});
  world.ask(prompt(300));
  EXPECT_EQ(world.counts().loads, 1u);
}

TEST(ArchiveTest, APromptThatBeginsAlikeLoadsWhatIsAlike) {
  Caravan world(archiving(2));
  world.start({1, 2});
  world.ask(prompt(300));
  TokenRequest other = prompt(300);
  other.prompt[100] ^= 1;
  world.ask(other);
  EXPECT_EQ(world.counts().loaded_positions, 96u);
  // The same block behind another one is another block.
  TokenRequest behind = prompt(300);
  behind.prompt[0] ^= 1;
  world.ask(behind);
  EXPECT_EQ(world.counts().loads, 1u);
  EXPECT_EQ(world.counts().misses, 2u) << "the first and this one";
}

TEST(ArchiveTest, WhatWasGeneratedIsArchivedAsWell) {
  Caravan world(archiving(2));
  world.start({1, 2});
  const SimRequest first = world.ask(prompt(70, 100));
  TokenRequest on = prompt(70, 3);
  on.prompt.insert(on.prompt.end(), first.tokens.begin(), first.tokens.end());
  on.prompt.push_back(1);
  world.ask(on);
  EXPECT_EQ(world.counts().loaded_positions, 160u) << "of 169 that were computed";
}

TEST(ArchiveTest, APreemptedRequestLoadsWhatItHadComputed) {
  SimConfig config = archiving(2);
  config.kv_blocks = 6;
  Caravan world(config);
  world.start({1, 2});
  for (TokenId first = 1; first <= 3; ++first) world.submit(prompt(50, 70, first));
  ASSERT_TRUE(world.run_until(world.now() + seconds(100), [&] { return world.all_over(); }));
  for (size_t i = 0; i < 3; ++i) world.check(i);
  EXPECT_GT(world.head().scheduler().preemptions(), 0u);
  EXPECT_GT(world.counts().loads, 0u);
  EXPECT_EQ(world.head().scheduler().blocks_used(), 0u);
}

// Whoever has the most room keeps nothing that another stage cannot give back with it.
TEST(ArchiveTest, AllStagesArchiveToTheSameDepth) {
  SimConfig config = archiving(3);
  config.layers = 6;
  config.archive_blocks = {{1, 100}, {2, 7}, {3, 20}};
  Caravan world(config);
  world.start({1, 2, 3});
  EXPECT_EQ(world.head().status(world.now()).archive_tokens, 7u * 32);
  world.ask(prompt(300));
  for (const uint32_t process : {1u, 2u, 3u}) EXPECT_EQ(world.archive(process).size(), 7u * 2) << process;
  world.ask(prompt(300));
  EXPECT_EQ(world.counts().loaded_positions, 7u * 32);
}

TEST(ArchiveTest, WhereOneStageHasNoneNothingIsTaggedAndNobodyAsked) {
  SimConfig config = archiving(2);
  config.archive_blocks = {{2, 0}};
  Caravan world(config);
  world.start({1, 2});
  for (int i = 0; i < 2; ++i) world.ask(prompt(300, 40));
  EXPECT_EQ(world.tags + world.probes + world.archive(1).size(), 0u);
  EXPECT_FALSE(world.head().status(world.now()).archive);
  // Without that one they are.
  world.kill({2});
  world.start({1});
  for (int i = 0; i < 2; ++i) world.ask(prompt(300, 40));
  EXPECT_EQ(world.counts().loads, 1u);
}

// --- Lineage ---

// Two peers, each of which once ran all layers alone: together they have all of a prompt, but the second
// one's part was computed without the cut that now lies before it.
TEST(ArchiveTest, AnotherCutFindsItsBlocksUnlessACutLosesSomething) {
  for (const CodecId codec : {CodecId::kF32, CodecId::kBf16}) {
    SimConfig config = archiving(1);
    config.codec = codec;
    Caravan world(config);
    for (const uint32_t alone : {1u, 2u}) {
      world.start({alone});
      world.ask(prompt(300));
      world.kill({0, alone});
    }
    world.start({1, 2});
    world.ask(prompt(300));
    EXPECT_EQ(world.counts().loads, codec == CodecId::kF32 ? 1u : 0u);
    // Now it was computed under this cut.
    world.kill({0, 1, 2});
    world.start({1, 2});
    world.ask(prompt(300));
    EXPECT_EQ(world.counts().loads, 1u);
  }
}

// --- What goes wrong ---

TEST(ArchiveTest, ABlockThatCannotBeReadIsComputedOnceAndArchivedAnew) {
  SimConfig config = archiving(2);
  config.archive_faults.damaged = 300;
  Caravan world(config);
  world.start({1, 2});
  world.ask(prompt(300));
  const size_t stored = world.archive(1).size() + world.archive(2).size();
  for (uint64_t round = 1; round <= 5; ++round) {
    world.ask(prompt(300));
    EXPECT_EQ(world.counts().loads, round);
    EXPECT_EQ(world.counts().failed, round);
    EXPECT_GE(world.archive(1).losses() + world.archive(2).losses(), round);
    EXPECT_EQ(world.archive(1).size() + world.archive(2).size(), stored);
  }
  EXPECT_EQ(world.head().scheduler().blocks_used(), 0u);
  world.run_until(world.now() + seconds(1));
  EXPECT_EQ(world.stage(1)->sequences() + world.stage(2)->sequences(), 0u);
}

TEST(ArchiveTest, AProbeThatIsLostCostsItsTimeoutAndThenNoneIsSentForAWhile) {
  SimConfig config = archiving(2);
  Caravan world(config);
  world.start({1, 2});
  const Duration usual = first_token(world.ask(prompt(300)));
  world.loses_probes = true;
  const Duration late = first_token(world.ask(prompt(300)));
  EXPECT_GE(late, config.probe_timeout);
  EXPECT_LE(late, usual + config.probe_timeout);
  EXPECT_EQ(world.head().status(world.now()).archive_timeouts, 1u);
  const size_t sent = world.probes;
  EXPECT_LE(first_token(world.ask(prompt(300))), usual);
  EXPECT_EQ(world.probes, sent) << "it is not asked";
  world.loses_probes = false;
  world.run_until(world.now() + seconds(3));
  world.ask(prompt(300));
  EXPECT_GT(world.probes, sent);
  EXPECT_EQ(world.counts().loads, 1u);
}

TEST(ArchiveTest, NobodyElseWaitsForAnAnswerThatDoesNotCome) {
  Caravan world(archiving(2));
  world.start({1, 2});
  world.loses_probes = true;
  const size_t asked = world.submit(prompt(300, 1));
  const size_t behind = world.submit(prompt(20, 1));
  ASSERT_TRUE(world.run_until(world.now() + seconds(100), [&] { return world.all_over(); }));
  EXPECT_LT(world.requests()[behind].ended - world.requests()[behind].submitted, milliseconds(100));
  EXPECT_GT(world.requests()[asked].ended - world.requests()[asked].submitted, milliseconds(300));
}

TEST(ArchiveTest, ACancelledRequestsAnswerIsNobodys) {
  Caravan world(archiving(2));
  world.start({1, 2});
  world.ask(prompt(300));
  const size_t index = world.submit(prompt(300));
  world.cancel(index);
  world.run_until(world.now() + seconds(2));
  EXPECT_EQ(world.counts().hits, 0u);
  EXPECT_TRUE(world.head().scheduler().idle());
  world.ask(prompt(300));
  EXPECT_EQ(world.counts().loads, 1u);
}

TEST(ArchiveTest, ARingThatEndsTakesItsQuestionsAlong) {
  Caravan world(archiving(1));
  world.start({1, 2});
  world.ask(prompt(300));
  world.loses_probes = true;
  const size_t index = world.submit(prompt(300));
  world.SimWorld::kill(2, false);
  world.run_until(world.now() + milliseconds(100));
  EXPECT_TRUE(world.requests()[index].error);
  world.loses_probes = false;
  world.start({1});
  world.ask(prompt(300));
  world.ask(prompt(300));
  EXPECT_EQ(world.counts().loads, 1u);
  EXPECT_EQ(world.head().status(world.now()).archive_timeouts, 0u);
}

// --- What it costs ---

TEST(ArchiveTest, WhatIsDearerThanComputingIsComputed) {
  SimConfig config = archiving(2);
  config.archive_block_time = milliseconds(200);  // a block is computed in 48 ms
  Caravan world(config);
  world.start({1, 2});
  world.ask(prompt(300));
  world.ask(prompt(300));
  EXPECT_EQ(world.counts().hits, 1u);
  EXPECT_EQ(world.counts().dearer, 1u);
  EXPECT_EQ(world.counts().loads, 0u);
}

TEST(ArchiveTest, WhatIsKeptInMemoryIsNotAskedFor) {
  SimConfig config = archiving(2);
  config.keep = true;
  Caravan world(config);
  world.start({1, 2});
  world.ask(prompt(300));
  const size_t before = world.probes;
  world.ask(prompt(300));
  EXPECT_EQ(world.probes, before);
  EXPECT_EQ(world.head().scheduler().reused_positions(), 288u);
  // Nor is it loaded where little more is archived; where much more is, it is.
  world.ask(prompt(301, 64));
  EXPECT_EQ(world.counts().loads, 0u);
}

TEST(ArchiveTest, SwitchedOffNothingIsTaggedAndNobodyAsked) {
  SimConfig config = archiving(2);
  config.archive = false;
  Caravan off(config);
  off.start({1, 2});
  for (int i = 0; i < 2; ++i) off.ask(prompt(300, 40));
  EXPECT_EQ(off.tags, 0u);
  EXPECT_EQ(off.probes, 0u);
  EXPECT_FALSE(off.head().status(off.now()).archive);
  config.archive = true;
  Caravan on(config);
  on.start({1, 2});
  on.ask(prompt(300, 40));
  EXPECT_EQ(on.tags, 2 * 10u) << "twice, for the way to each stage";
  EXPECT_EQ(on.probes, 2u);
}

// Of prompts that nothing is archived for, with stages and ways of any speed.
TEST(ArchiveTest, AMissCostsAtMostATenthOfTheFirstTokensTime) {
  double worst = 0;
  std::string where;
  for (const Duration row :
       {Duration(microseconds(5)), Duration(microseconds(50)), Duration(milliseconds(1))})
    for (const Duration latency :
         {Duration(microseconds(20)), Duration(milliseconds(1)), Duration(milliseconds(20))})
      for (const uint32_t length : {33u, 70u, 500u}) {
        std::vector<double> taken;
        for (const bool archive : {false, true}) {
          SimConfig config = archiving(3);
          config.archive = archive;
          config.row_time = row;
          config.latency = latency;
          Caravan world(config);
          world.start({1, 2, 3});
          // One to measure by; a peer that is new to a ring is asked once in any case.
          world.ask(prompt(500, 1, 1));
          taken.push_back(caravan::seconds(first_token(world.ask(prompt(length, 1, 2)))));
        }
        const double cost = taken[1] / taken[0];
        if (cost > worst)
          where = fmt::format("{} ns a row, {} ns a hop, {} tokens", row.count(), latency.count(), length);
        worst = std::max(worst, cost);
        EXPECT_LE(cost, 1.1) << row.count() << " ns a row, " << latency.count() << " ns a hop, " << length
                             << " tokens: " << taken[0] * 1e3 << " and " << taken[1] * 1e3 << " ms";
      }
  fmt::print("at worst {:.3f} times as long, with {}\n", worst, where);
}

}  // namespace
}  // namespace caravan
