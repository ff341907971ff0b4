#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/codec_id.h"
#include "base/random.h"

namespace caravan {

// One hop: rows from a peer's control thread to its neighbour's, over the loopback with CURVE.
struct HopResult {
  CodecId codec = CodecId::kF32;
  uint32_t rows = 0;
  uint32_t width = 0;
  uint64_t row_bytes = 0;  // of all rows, encoded
  double wire_us = 0;      // median, one way: half of there and back
  double codec_us = 0;     // median: the rows encoded once and decoded once, on one thread
  double megabytes_s = 0;  // row_bytes in wire_us
};

struct HopBenchOptions {
  std::vector<uint32_t> rows = {1, 8, 64};
  uint32_t width = 4096;
  uint32_t rounds = 60;  // of each row count and codec; the median is taken
};

// Two real links in this process, each with its threads, exchange steps one at a time; about a second. Throws
// kUnavailable when they do not find each other within ten seconds.
std::vector<HopResult> run_hop_bench(const HopBenchOptions& options, const Clock& clock, Random& random);

}  // namespace caravan
