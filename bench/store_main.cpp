// The shard store beside the raw disk: build/rel/bin/caravan-store MODEL.gguf FOLDER [--json]
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"
#include "bench/store_bench.h"

namespace {

void print_table(const caravan::StoreBenchResult& result) {
  fmt::print("{} in groups; import {:.0f} MB/s, {:.2f} s of CPU per GB\n",
             caravan::to_string(caravan::Bytes{result.bytes}), result.import_bytes_s / 1e6,
             result.import_cpu_s_per_gb);
  fmt::print("{:>7} {:>9} {:>9} {:>10} {:>10} {:>6}\n", "readers", "raw MB/s", "CPU s/GB", "store MB/s",
             "CPU s/GB", "share");
  for (const caravan::StoreRate& rate : result.rates)
    fmt::print("{:>7} {:>9.0f} {:>9.2f} {:>10.0f} {:>10.2f} {:>6.2f}\n", rate.readers, rate.raw_bytes_s / 1e6,
               rate.raw_cpu_s_per_gb, rate.store_bytes_s / 1e6, rate.store_cpu_s_per_gb, rate.share());
}

void print_json(const caravan::StoreBenchResult& result) {
  fmt::print(R"({{"bytes": {}, "import_bytes_s": {:.0f}, "import_cpu_s_per_gb": {:.3f}, "rates": [)",
             result.bytes, result.import_bytes_s, result.import_cpu_s_per_gb);
  const char* comma = "";
  for (const caravan::StoreRate& rate : result.rates) {
    fmt::print(R"({}{{"readers": {}, "raw_bytes_s": {:.0f}, "raw_cpu_s_per_gb": {:.3f}, )", comma,
               rate.readers, rate.raw_bytes_s, rate.raw_cpu_s_per_gb);
    fmt::print(R"("store_bytes_s": {:.0f}, "store_cpu_s_per_gb": {:.3f}, "share": {:.3f}}})",
               rate.store_bytes_s, rate.store_cpu_s_per_gb, rate.share());
    comma = ", ";
  }
  fmt::print("]}}\n");
}

}  // namespace

int main(int argc, char** argv) {
  const bool json = argc == 4 && std::string_view(argv[3]) == "--json";
  if (argc != 3 && !json) {
    fmt::print(stderr, "usage: caravan-store MODEL.gguf FOLDER [--json]\n");
    return 2;
  }
  try {
    const caravan::SystemClock clock;
    const caravan::StoreBenchResult result = caravan::run_store_bench(argv[1], argv[2], {}, clock);
    if (json)
      print_json(result);
    else
      print_table(result);
  } catch (const caravan::Error& error) {
    fmt::print(stderr, "{}\n", error.message());
    return 1;
  }
}
