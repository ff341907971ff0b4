// What a hop costs, by itself: build/rel/bin/caravan-hop
#include <fmt/core.h>

#include <cstdio>

#include "base/error.h"
#include "bench/hop_bench.h"

int main() {
  try {
    const caravan::SystemClock clock;
    caravan::SystemRandom random;
    fmt::print("{:>5} {:>5} {:>9} {:>10} {:>10} {:>8}\n", "codec", "rows", "bytes", "wire us", "codec us",
               "MB/s");
    for (const caravan::HopResult& one : caravan::run_hop_bench({}, clock, random))
      fmt::print("{:>5} {:>5} {:>9} {:>10.0f} {:>10.1f} {:>8.0f}\n", caravan::name(one.codec), one.rows,
                 one.row_bytes, one.wire_us, one.codec_us, one.megabytes_s);
  } catch (const caravan::Error& error) {
    fmt::print(stderr, "{}\n", error.message());
    return 1;
  }
}
