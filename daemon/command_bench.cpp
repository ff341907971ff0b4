// bench: the machine's read bandwidth, a model's prefill and decode beside it, and a hop on the loopback.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "bench/hop_bench.h"
#include "compute/cpu/thread_pool.h"
#include "daemon/bench_pages.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/engine.h"
#include "daemon/interruption.h"
#include "daemon/model_library.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kPrompt = 512;
constexpr uint32_t kDecode = 32;
constexpr int kRepeats = 5;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <class Work>
double timed(const Clock& clock, Work&& work) {
  const Time start = clock.now();
  work();
  return seconds(clock.now() - start);
}

// Bytes a second that `threads` threads read from memory, by plain loads over a buffer far larger than the
// caches.
double read_bandwidth(const Clock& clock, uint32_t threads) {
  constexpr uint64_t kChunk = 1u << 20, kChunks = 512;
  const std::vector<uint64_t> words(kChunk * kChunks / sizeof(uint64_t), 1);
  cpu::ThreadPool pool(threads);
  std::vector<uint64_t> sums(threads);
  std::vector<double> rates;
  for (int i = 0; i < kRepeats; ++i) {
    const double elapsed = timed(clock, [&] {
      pool.parallel_for(kChunks, 1, [&](uint64_t first, uint64_t last, uint32_t worker) {
        const uint64_t* from = words.data() + first * kChunk / sizeof(uint64_t);
        const uint64_t* const end = words.data() + last * kChunk / sizeof(uint64_t);
        uint64_t lanes[32] = {};
        for (; from != end; from += 32)
          for (int k = 0; k < 32; ++k) lanes[k] |= from[k];
        for (uint64_t lane : lanes) sums[worker] += lane;
      });
    });
    rates.push_back(static_cast<double>(kChunk * kChunks) / elapsed);
  }
  // Every word is 1, so that a loop that did not run shows.
  for (uint64_t sum : sums)
    if (sum % 32 != 0) fail(ErrorCode::kIo, "memory reads gave wrong sums");
  return median(rates);
}

struct ModelRates {
  double prefill = 0, decode = 0;  // tokens a second
  double decode_bytes = 0;         // read for one token
};

ModelRates measure_model(const Clock& clock, const CommandLine& line, uint32_t threads) {
  Config config = line.config;
  config.threads = threads;
  Engine engine(open_model(line.model, line.config), engine_options(config, 1));
  const ModelSpec& spec = engine.spec();
  const uint32_t context = std::min(spec.context, kPrompt + kDecode);
  const uint32_t prompt = std::min(kPrompt, context - std::min(context - 1, kDecode));
  const uint32_t blocks = (context + 31) / 32;
  Engine::Hosted layers = engine.host({1, spec.layer_count() + 1}, context, {blocks, blocks}, {});
  Engine::Hosted embed = engine.host({0, 1}, 1, {}, {});
  Engine::Hosted output = engine.host({spec.unit_count() - 1, spec.unit_count()}, 1, {}, {});
  std::vector<TokenId> ids(prompt);
  for (uint32_t i = 0; i < prompt; ++i) ids[i] = (3 + i * 7919) % spec.vocabulary;
  std::vector<float> rows(size_t{prompt} * spec.width), logits(spec.vocabulary);
  const SequenceId sequence{1};
  std::vector<double> prefill, decode;
  uint64_t bytes = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    layers.stage->sequences().open(sequence);
    prefill.push_back(prompt / timed(clock, [&] {
                        embed.stage->embed(ids, rows.data());
                        const StageRange range{sequence, 0, prompt};
                        layers.stage->run({&range, 1}, rows.data());
                      }));
    const uint64_t before = engine.counters().weight_bytes.value() + engine.counters().state_bytes.value();
    const uint32_t steps = context - prompt;
    decode.push_back(steps / timed(clock, [&] {
                       for (uint32_t i = 0; i < steps; ++i) {
                         embed.stage->embed({ids.data() + i % prompt, 1}, rows.data());
                         const StageRange range{sequence, prompt + i, 1};
                         layers.stage->run({&range, 1}, rows.data());
                         output.stage->output(rows.data(), 1, logits.data());
                       }
                     }));
    bytes = (engine.counters().weight_bytes.value() + engine.counters().state_bytes.value() - before) / steps;
    layers.stage->sequences().close(sequence);
  }
  return {median(prefill), median(decode), static_cast<double>(bytes)};
}

Json measure_threads(const Clock& clock, const CommandLine& line, uint32_t threads) {
  const double bandwidth = read_bandwidth(clock, threads);
  Json row = {{"threads", threads}, {"read_bytes_per_second", bandwidth}};
  if (line.model.empty()) return row;
  const ModelRates rates = measure_model(clock, line, threads);
  row["prefill_tokens_per_second"] = rates.prefill;
  row["decode_tokens_per_second"] = rates.decode;
  row["decode_bytes_per_token"] = rates.decode_bytes;
  row["decode_share_of_bandwidth"] = rates.decode * rates.decode_bytes / bandwidth;
  return row;
}

void print_table(const Json& json) {
  std::printf("%7s %12s %14s %13s %13s %9s\n", "threads", "read GB/s", "prefill tok/s", "decode tok/s",
              "MB per token", "of read");
  for (const Json& row : json["machine"]) {
    std::printf("%7d %12.1f", row["threads"].get<int>(), row["read_bytes_per_second"].get<double>() / 1e9);
    if (row.contains("decode_tokens_per_second"))
      std::printf(" %14.1f %13.1f %13.1f %7.0f %%", row["prefill_tokens_per_second"].get<double>(),
                  row["decode_tokens_per_second"].get<double>(),
                  row["decode_bytes_per_token"].get<double>() / 1e6,
                  row["decode_share_of_bandwidth"].get<double>() * 100);
    std::printf("\n");
  }
  std::printf("\n%5s %5s %6s %10s %10s %10s\n", "hop", "rows", "width", "bytes", "wire us", "codec us");
  for (const Json& row : json["hop"])
    std::printf("%5s %5d %6d %10d %10.0f %10.0f\n", row["codec"].get<std::string>().c_str(),
                row["rows"].get<int>(), row["width"].get<int>(), row["bytes"].get<int>(),
                row["wire_us"].get<double>(), row["codec_us"].get<double>());
}

void print_pages(const PagesBench& bench) {
  std::printf("%-6s %7s %9s %12s %12s %13s %10s %7s %7s\n", "from", "x RAM", "ram", "ms a token",
              "predicted ms", "MB a token", "raw GB/s", "of raw", "hidden");
  for (const PagedDecode& row : bench.decodes)
    std::printf("%-6s %7.0f %9s %12.1f %12.1f %13.1f %10.2f %5.0f %% %5.0f %%\n", row.from.c_str(),
                row.times_ram, to_string(Bytes{row.ram}).c_str(), row.seconds_a_token * 1e3,
                row.predicted_seconds * 1e3, row.bytes_a_token / 1e6, row.raw_rate / 1e9, row.share * 100,
                row.hidden * 100);
  std::printf("\n%9s %12s %10s %7s %12s\n", "in flight", "store GB/s", "raw GB/s", "of raw", "CPU s a GB");
  for (const StoredReads& row : bench.reads)
    std::printf("%9u %12.2f %10.2f %5.0f %% %12.2f\n", row.in_flight, row.store_rate / 1e9,
                row.raw_rate / 1e9, row.store_rate / row.raw_rate * 100, row.processor_seconds_gb);
}

Json pages_json(const PagesBench& bench) {
  Json json = {{"decode", Json::array()}, {"store_reads", Json::array()}};
  for (const PagedDecode& row : bench.decodes)
    json["decode"].push_back({{"from", row.from},
                              {"times_ram", row.times_ram},
                              {"ram", row.ram},
                              {"seconds_per_token", row.seconds_a_token},
                              {"predicted_seconds_per_token", row.predicted_seconds},
                              {"disk_bytes_per_token", row.bytes_a_token},
                              {"raw_bytes_per_second", row.raw_rate},
                              {"share_of_raw", row.share},
                              {"hidden", row.hidden}});
  for (const StoredReads& row : bench.reads)
    json["store_reads"].push_back({{"in_flight", row.in_flight},
                                   {"store_bytes_per_second", row.store_rate},
                                   {"raw_bytes_per_second", row.raw_rate},
                                   {"processor_seconds_per_gb", row.processor_seconds_gb}});
  return json;
}

int bench_pages(const CommandLine& line, const Clock& clock) {
  if (line.model.empty()) fail(ErrorCode::kInvalidArgument, "bench --pages needs a MODEL");
  Interruption interruption;
  const bool terminal = standard_error_is_terminal();
  const PagesBench bench = run_pages_bench(clock, line, [&](const std::string& what) {
    if (interruption.came()) fail(ErrorCode::kCancelled, "interrupted");
    std::fprintf(stderr, terminal ? "\r\033[K%s " : "%s\n", what.c_str());
  });
  if (terminal) std::fprintf(stderr, "\r\033[K");
  if (line.json)
    std::printf("%s\n", pages_json(bench).dump(2).c_str());
  else
    print_pages(bench);
  return 0;
}

}  // namespace

int command_bench(const CommandLine& line) {
  const SystemClock clock;
  if (line.pages) return bench_pages(line, clock);
  SystemRandom random;
  Json json = {{"model", line.model}, {"machine", Json::array()}, {"hop", Json::array()}};
  for (const uint32_t threads : {1u, 2u}) json["machine"].push_back(measure_threads(clock, line, threads));
  for (const HopResult& hop : run_hop_bench({}, clock, random))
    json["hop"].push_back({{"codec", name(hop.codec)},
                           {"rows", hop.rows},
                           {"width", hop.width},
                           {"bytes", hop.row_bytes},
                           {"wire_us", hop.wire_us},
                           {"codec_us", hop.codec_us}});
  if (line.json)
    std::printf("%s\n", json.dump(2).c_str());
  else
    print_table(json);
  return 0;
}

}  // namespace caravan
