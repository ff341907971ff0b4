// What a head knows of the times that its ring is expected to take, and of those on links.
#include <gtest/gtest.h>

#include "tests/sim/sim_world.h"

namespace caravan {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(SimForecast, TheTimeOnLinksIsWhatNoStageTakes) {
  SimConfig config;
  config.latency = milliseconds(3);
  config.jitter = Duration{};
  config.min_peers = 2;
  SimWorld world(config);
  const auto links_ms = [&] {
    TokenRequest request;
    request.prompt = {1, 2, 3};
    request.max_tokens = 20;
    world.submit(request);
    world.run_until(Time::max(), [&] { return world.all_over(); });
    return world.head().links_seconds() * 1e3;
  };
  for (uint32_t process = 0; process <= 2; ++process) world.start(process);
  ASSERT_TRUE(world.run_until(Time{} + seconds(10), [&] { return world.head().ready(); }));
  EXPECT_EQ(world.head().links_seconds(), 0) << "nothing was measured yet";
  EXPECT_NEAR(links_ms(), 9, 0.2) << "to the first stage, to the second one, and back";
  // Of another cut it is measured anew.
  world.kill(2, false);
  ASSERT_TRUE(world.run_until(Time{} + seconds(30), [&] {
    return world.head().ready() && world.head().ring().assignment()->route.size() == 1;
  }));
  EXPECT_EQ(world.head().links_seconds(), 0);
  EXPECT_NEAR(links_ms(), 6, 0.2);
}

TEST(SimForecast, InOneProcessThereAreNoLinks) {
  SimConfig config;
  config.head_hosts_stage = true;
  SimWorld world(config);
  world.start(0);
  ASSERT_TRUE(world.run_until(Time{} + seconds(10), [&] { return world.head().ready(); }));
  TokenRequest request;
  request.prompt = {1, 2, 3};
  request.max_tokens = 20;
  world.submit(request);
  world.run_until(Time::max(), [&] { return world.all_over(); });
  EXPECT_EQ(world.head().links_seconds(), 0);
}

TEST(SimForecast, AHeadKnowsWhatEachStageExpectsOfItsPresentLayers) {
  SimConfig config;
  config.min_peers = 3;
  SimWorld world(config);
  for (uint32_t process = 0; process <= 3; ++process) world.start(process);
  for (const size_t stages : {3u, 2u, 1u}) {
    ASSERT_TRUE(world.run_until(world.now() + seconds(30), [&] {
      return world.head().ready() && world.head().ring().assignment()->route.size() == stages;
    }));
    const Ring& ring = world.head().ring();
    for (uint32_t stage = 0; stage < stages; ++stage) {
      const std::vector<uint64_t> layers{ring.assignment()->route[stage].span.count()};
      EXPECT_EQ(ring.stage_forecast(stage).token_ns, layers) << stages << " stages";
    }
    if (stages > 1) world.kill(static_cast<uint32_t>(stages), false);
  }
}

}  // namespace
}  // namespace caravan
