#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/random.h"
#include "bench/pages_options.h"
#include "shards/manifest.h"

namespace caravan {

// A peer fetches a model's groups from a head over the loopback, as `serve` and `join` do it: CURVE, both
// ends' threads, every group's SHA-256, the way into a store on disk. Both ends are in this process. Medians
// of the options' repeats.
struct FetchBench {
  uint64_t bytes = 0;               // each time: of the first units that have 1e9 bytes, or of all
  double rate = 0;                  // bytes a second
  double processor_seconds_gb = 0;  // both ends, all threads; 1e9 bytes
  double hash_rate = 0;             // of the head's first hashing of its file
};

// `folder`: of the peer's state, empty again afterwards. Throws what its parts throw; kCancelled.
FetchBench run_fetch_bench(const PagesBenchOptions& options, const Manifest& model, const std::string& folder,
                           const Clock& clock, Random& random);

}  // namespace caravan
