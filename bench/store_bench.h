#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace caravan {

// Reading a model's groups from the shard store beside reading its file raw, both past the page cache in runs
// of 1 MiB, with as many readers. Medians.
struct StoreRate {
  uint32_t readers = 0;
  double raw_bytes_s = 0;
  double raw_cpu_s_per_gb = 0;  // 1e9 bytes; the process's, all threads
  double store_bytes_s = 0;     // checksums included
  double store_cpu_s_per_gb = 0;
  double share() const { return store_bytes_s / raw_bytes_s; }
};

struct StoreBenchResult {
  uint64_t bytes = 0;  // of the groups, read once in each round
  double import_bytes_s = 0;
  double import_cpu_s_per_gb = 0;  // hashed twice and written
  std::vector<StoreRate> rates;
};

struct StoreBenchOptions {
  std::vector<uint32_t> readers = {1, 2, 4};
  uint32_t rounds = 5;
};

// Copies the model (a .gguf file) into a store under `folder`, measures, and leaves the store there. Throws
// kIo (also where the file system does not read past the page cache), kOutOfMemory when the disk has no room.
StoreBenchResult run_store_bench(const std::string& model, const std::string& folder,
                                 const StoreBenchOptions& options, const Clock& clock);

}  // namespace caravan
