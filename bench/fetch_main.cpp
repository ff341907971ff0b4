// Fetching a model's weights over the loopback: build/rel/bin/caravan-fetch MODEL FOLDER [--memory] [--json]
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "base/allocator.h"
#include "base/bytes.h"
#include "base/error.h"
#include "bench/fetch_bench.h"

namespace {

void print_table(const caravan::FetchBenchResult& result, const caravan::FetchBenchOptions& options) {
  fmt::print("{} in groups over the loopback with CURVE, each hashed, into a store {}\n",
             caravan::to_string(caravan::Bytes{result.bytes}), options.in_memory ? "in memory" : "on disk");
  fmt::print("the head's first hashing: {:.0f} MB/s\n", result.hash_bytes_s / 1e6);
  for (const caravan::FetchRound& round : result.rounds)
    fmt::print("{:>8.0f} MB/s {:>6.2f} s of CPU per GB\n", round.bytes_s / 1e6, round.cpu_s_per_gb);
  fmt::print("{:>8.0f} MB/s {:>6.2f} s of CPU per GB: medians of {}\n", result.median().bytes_s / 1e6,
             result.median().cpu_s_per_gb, result.rounds.size());
}

void print_json(const caravan::FetchBenchResult& result, const caravan::FetchBenchOptions& options) {
  fmt::print(R"({{"bytes": {}, "in_memory": {}, "hash_bytes_s": {:.0f}, "bytes_s": {:.0f}, )", result.bytes,
             options.in_memory, result.hash_bytes_s, result.median().bytes_s);
  fmt::print(R"("cpu_s_per_gb": {:.3f}, "rounds": {}}})"
             "\n",
             result.median().cpu_s_per_gb, result.rounds.size());
}

}  // namespace

int main(int argc, char** argv) {
  caravan::keep_freed_memory();
  bool json = false;
  caravan::FetchBenchOptions options;
  for (int i = 3; i < argc; ++i) {
    json |= std::string_view(argv[i]) == "--json";
    options.in_memory |= std::string_view(argv[i]) == "--memory";
  }
  if (argc < 3) {
    fmt::print(stderr, "usage: caravan-fetch MODEL FOLDER [--memory] [--json]\n");
    return 2;
  }
  try {
    const caravan::SystemClock clock;
    caravan::SystemRandom random;
    const auto result = caravan::run_fetch_bench(argv[1], argv[2], options, clock, random);
    json ? print_json(result, options) : print_table(result, options);
  } catch (const caravan::Error& error) {
    fmt::print(stderr, "{}\n", error.message());
    return 1;
  }
}
