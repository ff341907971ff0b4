#include "daemon/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <utility>
#include <vector>

namespace caravan {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Seconds; about four to a decade.
const prometheus::Histogram::BucketBoundaries kFirstTokenSeconds{0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                                 1,    2.5,   5,    10,  25,   60};
const prometheus::Histogram::BucketBoundaries kNextTokenSeconds{0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075,
                                                                0.1,   0.15,  0.25, 0.5,  1,     2.5};

ClientMetric sample(MetricType type, double value, std::vector<ClientMetric::Label> labels) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  return metric;
}

MetricFamily family(std::string name, std::string help, MetricType type, double value) {
  return {std::move(name), std::move(help), type, {sample(type, value, {})}};
}

void add_stages(const ServiceStatus& status, std::vector<MetricFamily>& families) {
  MetricFamily blocks{"caravan_kv_blocks", "KV blocks of a stage", MetricType::Gauge, {}};
  MetricFamily free{"caravan_kv_blocks_free", "KV blocks of a stage that are free", MetricType::Gauge, {}};
  MetricFamily ready{"caravan_stage_ready", "1 when the stage is ready", MetricType::Gauge, {}};
  MetricFamily bytes{
      "caravan_link_bytes_total", "Bytes of steps on the wire by peer", MetricType::Counter, {}};
  for (size_t i = 0; i < status.stages.size(); ++i) {
    const StageStatus& stage = status.stages[i];
    std::vector<ClientMetric::Label> labels{{"stage", std::to_string(i)}, {"peer", stage.peer}};
    const auto add = [&](MetricFamily& to, double value) {
      to.metric.push_back(sample(to.type, value, labels));
    };
    add(blocks, static_cast<double>(stage.kv_blocks));
    add(free, static_cast<double>(stage.kv_blocks_free));
    add(ready, stage.state == "ready" ? 1 : 0);
    labels.push_back({"direction", "in"});
    add(bytes, static_cast<double>(stage.bytes_in));
    labels.back().value = "out";
    add(bytes, static_cast<double>(stage.bytes_out));
  }
  for (MetricFamily* one : {&blocks, &free, &ready, &bytes})
    if (!one->metric.empty()) families.push_back(std::move(*one));
}

void add_archive(const ArchiveStatus& archive, std::vector<MetricFamily>& families) {
  const auto gauge = [&](const char* name, const char* help, double value) {
    families.push_back(family(name, help, MetricType::Gauge, value));
  };
  const auto counter = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(family(name, help, MetricType::Counter, static_cast<double>(value)));
  };
  if (!archive.on) return;
  gauge("caravan_kv_archive_bytes", "KV archive of this process, on disk",
        static_cast<double>(archive.bytes));
  gauge("caravan_kv_archive_limit_bytes", "What it may take", static_cast<double>(archive.limit_bytes));
  gauge("caravan_kv_archive_blocks", "KV blocks in it", static_cast<double>(archive.blocks));
  gauge("caravan_kv_archive_off", "1 while it is off after a failure of its disk",
        archive.off_for_now ? 1 : 0);
  counter("caravan_kv_archive_written_bytes_total", "Written to it", archive.bytes_written);
  counter("caravan_kv_archive_read_bytes_total", "Read from it", archive.bytes_read);
  counter("caravan_kv_archive_evicted_blocks_total", "Blocks that made room", archive.blocks_evicted);
  counter("caravan_kv_archive_refused_blocks_total",
          "Blocks without room or budget, or while it was off, each once", archive.blocks_refused);
  counter("caravan_kv_archive_quarantined_blocks_total", "Blocks that could not be read",
          archive.blocks_quarantined);
  counter("caravan_kv_archive_failures_total", "Failures that switched it off for a while", archive.failures);
}

void add_memory(const MemoryStatus& memory, std::vector<MetricFamily>& families) {
  if (memory.limit_bytes == 0) return;
  MetricFamily bytes{
      "caravan_memory_bytes", "Memory of this process that is reserved", MetricType::Gauge, {}};
  const std::pair<const char*, uint64_t> uses[] = {{"weights", memory.weights_bytes},
                                                   {"state", memory.state_bytes},
                                                   {"scratch", memory.scratch_bytes},
                                                   {"wire", memory.wire_bytes}};
  for (const auto& [use, amount] : uses)
    bytes.metric.push_back(sample(bytes.type, static_cast<double>(amount), {{"use", use}}));
  families.push_back(std::move(bytes));
  families.push_back(family("caravan_memory_limit_bytes", "What all of it may take", MetricType::Gauge,
                            static_cast<double>(memory.limit_bytes)));
  families.push_back(family("caravan_weights_read_bytes_total", "Weights of this process that were streamed",
                            MetricType::Counter, static_cast<double>(memory.weights_read_bytes)));
  families.push_back(family("caravan_weights_wait_seconds_total",
                            "Time in which computing waited for weights", MetricType::Counter,
                            memory.weights_wait_seconds));
}

std::vector<MetricFamily> service_families(const ServiceStatus& status) {
  const auto gauge = [](std::string name, std::string help, double value) {
    return family(std::move(name), std::move(help), MetricType::Gauge, value);
  };
  const auto counter = [](std::string name, std::string help, uint64_t value) {
    return family(std::move(name), std::move(help), MetricType::Counter, static_cast<double>(value));
  };
  std::vector<MetricFamily> families{
      gauge("caravan_ready", "1 when the ring is ready", status.ready ? 1 : 0),
      gauge("caravan_epoch", "Epoch of the ring's route", static_cast<double>(status.epoch)),
      gauge("caravan_requests_running", "Requests that generate", status.requests_running),
      gauge("caravan_requests_waiting", "Requests that wait", status.requests_waiting),
      gauge("caravan_prefill_tokens_per_second", "Over the last minute", status.prefill_tokens_per_second),
      gauge("caravan_decode_tokens_per_second", "Over the last minute", status.decode_tokens_per_second),
      gauge("caravan_start_time_seconds", "Unix time of the start", static_cast<double>(status.started_unix)),
      counter("caravan_prompt_tokens_total", "Tokens of prompts", status.prompt_tokens),
      counter("caravan_generated_tokens_total", "Tokens generated", status.generated_tokens),
      counter("caravan_reused_tokens_total", "Tokens of prompts that were not computed again",
              status.reused_tokens),
      counter("caravan_wire_bytes_total", "Bytes of steps on the wire", status.wire_bytes),
      counter("caravan_kv_disk_written_bytes_total", "KV of this process that went to disk",
              status.kv_bytes_written),
      counter("caravan_kv_disk_read_bytes_total", "Spilled KV of this process that came back",
              status.kv_bytes_read),
      family("caravan_kv_disk_wait_seconds_total", "Time in which computing waited for KV",
             MetricType::Counter, status.kv_wait_seconds),
      gauge("caravan_archive_tokens", "Tokens of KV that the archive of every stage has room for",
            static_cast<double>(status.archive_tokens)),
      counter("caravan_archive_hits_total", "Prompts of which all stages had archived blocks",
              status.archive_hits),
      counter("caravan_archive_misses_total", "Prompts of which they had none", status.archive_misses),
      counter("caravan_archive_timeouts_total", "Questions to archives that were not answered in time",
              status.archive_timeouts),
      counter("caravan_archive_loads_total", "Sequences that began from archives", status.archive_loads),
      counter("caravan_archive_loaded_tokens_total", "Tokens of prompts that came from archives",
              status.archive_loaded_tokens),
      counter("caravan_archive_dearer_total", "Hits where computing was the cheaper", status.archive_dearer),
      counter("caravan_archive_failed_total", "Loads whose state could not be read after all",
              status.archive_failed),
  };
  add_memory(status.memory, families);
  add_archive(status.kv_archive, families);
  add_stages(status, families);
  return families;
}

}  // namespace

struct Metrics::State {
  std::function<ServiceStatus()> status;
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests = prometheus::BuildCounter()
                                                          .Name("caravan_http_requests_total")
                                                          .Help("HTTP requests by route and status")
                                                          .Register(registry);
  prometheus::Histogram& first_token = prometheus::BuildHistogram()
                                           .Name("caravan_first_token_seconds")
                                           .Help("From acceptance to the first token")
                                           .Register(registry)
                                           .Add({}, kFirstTokenSeconds);
  prometheus::Histogram& next_token = prometheus::BuildHistogram()
                                          .Name("caravan_token_seconds")
                                          .Help("Between two tokens of a request")
                                          .Register(registry)
                                          .Add({}, kNextTokenSeconds);
};

Metrics::Metrics(std::function<ServiceStatus()> status, std::string version)
    : state_(std::make_unique<State>()) {
  state_->status = std::move(status);
  prometheus::BuildGauge()
      .Name("caravan_build_info")
      .Help("Always 1; the version is a label")
      .Register(state_->registry)
      .Add({{"version", std::move(version)}})
      .Set(1);
}

Metrics::~Metrics() = default;

void Metrics::request(std::string_view route, int status) {
  state_->requests.Add({{"route", std::string(route)}, {"status", std::to_string(status)}}).Increment();
}
void Metrics::first_token(double seconds) {
  state_->first_token.Observe(seconds);
}
void Metrics::next_token(double seconds) {
  state_->next_token.Observe(seconds);
}

std::string Metrics::text() const {
  std::vector<MetricFamily> families = state_->registry.Collect();
  for (MetricFamily& one : service_families(state_->status())) families.push_back(std::move(one));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace caravan
