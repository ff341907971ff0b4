#include "daemon/metrics.h"

#include <gtest/gtest.h>

#include "tests/daemon/api_fixture.h"

namespace caravan {
namespace {

struct MetricsTest : ApiFixture {
  // The value of a line, by its name and labels as written.
  std::string value(const std::string& name) {
    const std::string page = "\n" + ask("GET", "/metrics")->body;
    const size_t at = page.find("\n" + name + " ");
    if (at == std::string::npos) return "absent";
    const size_t from = at + name.size() + 2;
    return page.substr(from, page.find('\n', from) - from);
  }
};

TEST_F(MetricsTest, CountsRequestsByRouteAndStatus) {
  complete(R"({"prompt":"a"})");
  complete(R"({"prompt":"a","stream":true})");
  complete("{");
  ask("GET", "/v1/models/one");
  ask("GET", "/v1/models/two");
  ask("GET", "/somewhere/else");
  EXPECT_EQ(value(R"(caravan_http_requests_total{route="/v1/completions",status="200"})"), "2");
  EXPECT_EQ(value(R"(caravan_http_requests_total{route="/v1/completions",status="400"})"), "1");
  EXPECT_EQ(value(R"(caravan_http_requests_total{route="/v1/models/{id}",status="404"})"), "2");
  EXPECT_EQ(value(R"(caravan_http_requests_total{route="unknown",status="404"})"), "1");
}

TEST_F(MetricsTest, ObservesTheFirstTokenAndTheOthers) {
  complete(R"({"prompt":"a","max_tokens":11,"temperature":0})");
  EXPECT_EQ(value("caravan_first_token_seconds_count"), "1");
  EXPECT_EQ(value("caravan_token_seconds_count"), "10");
  EXPECT_EQ(value(R"(caravan_token_seconds_bucket{le="0.002"})"), "0");
  EXPECT_EQ(value(R"(caravan_token_seconds_bucket{le="0.005"})"), "10");
}

TEST_F(MetricsTest, ReadsTheServicesOwnCounts) {
  complete(R"({"prompt":"a","max_tokens":11,"temperature":0})");
  EXPECT_EQ(value("caravan_generated_tokens_total"), "11");
  EXPECT_EQ(value("caravan_ready"), "1");
  EXPECT_EQ(value(R"(caravan_kv_blocks_free{stage="0",peer="head"})"), "40");
  EXPECT_EQ(value("caravan_kv_disk_written_bytes_total"), "1500");
  EXPECT_EQ(value("caravan_kv_disk_read_bytes_total"), "2500");
  EXPECT_EQ(value("caravan_kv_disk_wait_seconds_total"), "0.5");
  EXPECT_EQ(value("caravan_kv_archive_limit_bytes"), "9000");
  EXPECT_EQ(value("caravan_kv_archive_bytes"), "7000");
  EXPECT_EQ(value("caravan_kv_archive_blocks"), "70");
  EXPECT_EQ(value("caravan_memory_bytes{use=\"state\"}"), "200");
  EXPECT_EQ(value("caravan_memory_limit_bytes"), "1000");
  EXPECT_EQ(value("caravan_weights_read_bytes_total"), "7000");
  EXPECT_EQ(value("caravan_kv_archive_off"), "0");
  EXPECT_EQ(value("caravan_kv_archive_written_bytes_total"), "8000");
  EXPECT_EQ(value("caravan_kv_archive_read_bytes_total"), "600");
  EXPECT_EQ(value("caravan_kv_archive_evicted_blocks_total"), "5");
  EXPECT_EQ(value("caravan_kv_archive_refused_blocks_total"), "4");
  EXPECT_EQ(value("caravan_kv_archive_quarantined_blocks_total"), "3");
  EXPECT_EQ(value("caravan_kv_archive_failures_total"), "2");
  uint64_t count = 11;
  for (const char* name : {"hits", "misses", "timeouts", "loads", "loaded_tokens", "dearer", "failed"})
    EXPECT_EQ(value("caravan_archive_" + std::string(name) + "_total"), std::to_string(count++)) << name;
  EXPECT_EQ(value(R"(caravan_build_info{version="1.2.3"})"), "1");
  service.ready = false;
  EXPECT_EQ(value("caravan_ready"), "0");
  EXPECT_EQ(value(R"(caravan_stage_ready{stage="0",peer="head"})"), "0");
}

TEST_F(MetricsTest, APeersNameCannotBreakThePage) {
  Metrics hostile(
      [] {
        ServiceStatus status;
        status.stages.resize(1);
        status.stages[0].peer = "a\"} 1\nforged 2";
        return status;
      },
      "0");
  EXPECT_EQ(hostile.text().find("\nforged"), std::string::npos);
}

}  // namespace
}  // namespace caravan
