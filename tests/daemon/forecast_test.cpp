// What is expected of a ring, from what its stages expect.
#include "daemon/forecast.h"

#include <gtest/gtest.h>

#include "base/limits.h"
#include "daemon/api_status.h"

namespace caravan {
namespace {

// A token takes `token` ms at the start and twice that at the end of the context; a step of a prompt `step`
// ms and 1 ms for each row.
RingForecast::Stage stage(const std::string& peer, uint64_t token, uint64_t step) {
  constexpr uint64_t kMillisecond = 1'000'000;
  RingForecast::Stage made{peer, {}};
  for (uint64_t i = 0; i < limits::kForecastTokens; ++i)
    made.forecast.token_ns.push_back(token * kMillisecond * (8 + i) / 8);
  for (uint64_t i = 0; i < limits::kForecastPrompts; ++i)
    made.forecast.prompt_ns.push_back((step + (uint64_t{1} << i)) * kMillisecond);
  return made;
}

TEST(RingForecast, ATokenPassesOneStageAfterTheOther) {
  const RingForecast ring{{stage("a", 10, 0), stage("b", 30, 0)}, 800};
  EXPECT_NEAR(ring.token_seconds(0), 0.040, 1e-9);
  EXPECT_NEAR(ring.token_seconds(800), 0.080, 1e-9);
  EXPECT_NEAR(ring.token_seconds(450), 0.040 + 0.040 * 450 / 800, 1e-9);
  EXPECT_NEAR(ring.token_seconds(9000), 0.080, 1e-9);
}

TEST(RingForecast, TheSlowestStageSetsThePaceOfAPrompt) {
  const RingForecast ring{{stage("a", 1, 36), stage("b", 1, 136)}, 800};
  // One step of 64 rows: 100 ms and 200 ms.
  EXPECT_NEAR(ring.prompt_token_seconds(64, 64), 0.300 / 64, 1e-9);
  // Ten of them: the last one leaves the first stage while the second has nine to do.
  EXPECT_NEAR(ring.prompt_token_seconds(640, 64), (0.300 + 9 * 0.200) / 640, 1e-9);
  EXPECT_NEAR(ring.prompt_token_seconds(40, 64), (36 + 40 + 136 + 40) * 1e-3 / 40, 1e-9);
  EXPECT_NEAR(ring.prompt_token_seconds(512, 512), (36 + 512 + 136 + 512) * 1e-3 / 512, 1e-9);
  EXPECT_NEAR(ring.prompt_token_seconds(1, 64), (36 + 1 + 136 + 1) * 1e-3, 1e-9);
}

TEST(RingForecast, PeersWithoutAForecastAreNamed) {
  RingForecast ring{{stage("a", 1, 1), stage("b", 1, 1)}, 800};
  EXPECT_EQ(ring.lacking(), "");
  ring.stages.push_back({"c", {}});
  ring.stages.insert(ring.stages.begin(), {"head", {}});
  EXPECT_EQ(ring.lacking(), "head, c");
}

TEST(RingForecast, StatusNamesThemWhereItHasNoNumber) {
  ServiceStatus status;
  status.token_ms = 12;
  EXPECT_EQ(status_table(status, 0).find("for want of"), std::string::npos);
  status.no_forecast_of = "head, c";
  EXPECT_NE(status_table(status, 0).find("a token 12 ms measured, - expected"), std::string::npos)
      << status_table(status, 0);
  EXPECT_NE(status_table(status, 0).find("for want of a forecast by head, c: "), std::string::npos)
      << status_table(status, 0);
  EXPECT_EQ(parse_status_json(status_json(status)).no_forecast_of, "head, c");
  status.no_forecast_of.clear();
  status.links_ms = 3;
  status.expected_token_ms = 13;
  EXPECT_NE(status_table(status, 0).find("of the token 3 ms on links"), std::string::npos)
      << status_table(status, 0);
}

}  // namespace
}  // namespace caravan
