#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"

namespace caravan {

// A peer fetches all groups of a model from a head over the loopback, as `serve` and `join` do it: CURVE,
// both ends' threads, every group's SHA-256, the way into a store. Both ends are in this process.
struct FetchRound {
  double bytes_s = 0;
  double cpu_s_per_gb = 0;  // 1e9 bytes; both ends, all threads
};

struct FetchBenchResult {
  uint64_t bytes = 0;       // of the groups; each round fetches all of them
  double hash_bytes_s = 0;  // the head's first hashing of its file
  std::vector<FetchRound> rounds;
  FetchRound median() const;  // each figure by itself
};

struct FetchBenchOptions {
  uint32_t rounds = 5;
  bool in_memory = false;  // the peer's store is one in memory; what is not whole yet lies in the folder
};

// `model`: a file or folder; `folder`: of the peer's state. Throws what its parts throw.
FetchBenchResult run_fetch_bench(const std::string& model, const std::string& folder,
                                 const FetchBenchOptions& options, const Clock& clock, Random& random);

}  // namespace caravan
