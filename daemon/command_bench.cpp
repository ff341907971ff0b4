// bench: the machine's read bandwidth, a model's prefill and decode beside it, and a hop on the loopback.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "bench/hop_bench.h"
#include "bench/median.h"
#include "bench/pages_bench.h"
#include "compute/cpu/thread_pool.h"
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

int bench_pages(const CommandLine& line, const Clock& clock, Random& random) {
  if (line.model.empty()) fail(ErrorCode::kInvalidArgument, "bench --pages needs a MODEL");
  apply_log_level(line.config);
  Interruption interruption;
  const bool terminal = standard_error_is_terminal();
  PagesBenchOptions options;
  options.model = line.model;
  options.config = line.config;
  options.repeats = line.repeats;
  options.lasting = line.seconds;
  options.prompt_tokens = line.prompt_tokens;
  options.tell = [&](const std::string& what) {
    std::fprintf(stderr, terminal ? "\r\033[K%s " : "%s\n", what.c_str());
  };
  options.cancelled = [&] { return interruption.came(); };
  const PagesBench bench = run_pages_bench(options, clock, random);
  if (terminal) std::fprintf(stderr, "\r\033[K");
  std::printf("%s", (line.json ? pages_json(bench) : pages_table(bench)).c_str());
  return 0;
}

}  // namespace

int command_bench(const CommandLine& line) {
  const SystemClock clock;
  SystemRandom random;
  if (line.pages) return bench_pages(line, clock, random);
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
