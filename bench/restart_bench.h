#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "bench/pages_options.h"
#include "shards/manifest.h"

namespace caravan {

// A prompt seen before, after kill -9 of the server and a restart. Seconds; medians of the restarts, but for
// `cold`, which happens once.
struct RestartBench {
  uint32_t prompt_tokens = 0;
  double cold = 0;        // from the request to its first token, when nothing of the prompt is known
  double load = 0;        // from the start of the new process until it answers
  double warm = 0;        // the same as cold for the prompt seen before
  double in_memory = 0;   // and once more: what computing the token costs when its KV is there
  uint64_t kv_bytes = 0;  // of the prompt's blocks in the archive
  double raw_rate = 0;    // of the archive's files by the pager's reader, bytes a second
  uint32_t restarts = 0;
  // After so many of them the prompt came from the archive; after the others computing was the cheaper.
  uint32_t loads = 0;
  double raw_read() const { return static_cast<double>(kv_bytes) / raw_rate; }
};

// Starts servers of this program's own file, with their state in `folder`, one after another, and kills them.
// Throws kUnavailable when one ends by itself, archives nothing or answers otherwise than before its
// predecessor was killed; kCancelled.
RestartBench run_restart_bench(const PagesBenchOptions& options, const Manifest& model,
                               const std::string& folder, const Clock& clock);

}  // namespace caravan
