#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "bench/pages_options.h"
#include "shards/manifest.h"

namespace caravan {

// All figures are medians of the options' repeats; a GB is 1e9 bytes.

// A model's way into a store, once: hashed twice and written.
struct StoreImport {
  uint64_t bytes = 0;
  double rate = 0;                  // bytes a second
  double processor_seconds_gb = 0;  // of all threads
};

// Decode of a model that its RAM budget does not hold, beside the disk in the same minutes.
struct PagedDecode {
  std::string from;              // "file" or "store"
  double times_ram = 0;          // the model's bytes over the budget's
  uint64_t ram = 0;              // bytes
  double seconds_a_token = 0;    // measured
  double predicted_seconds = 0;  // by the planner, from a calibration just before
  double bytes_a_token = 0;      // read
  double raw_rate = 0;           // of the pager's reader over the same bytes of the file, bytes a second
  double share = 0;              // of the tokens that the raw rate would allow
  double hidden = 0;             // of the shorter of reading and computing, what ran beside the other
  std::string not_possible;      // why there are no figures: the model cannot do with so little RAM
};

// Groups read from the store beside the same reads of the file, both past the page cache in pieces of 1 MiB.
struct StoredReads {
  uint32_t readers = 0;
  double store_rate = 0, raw_rate = 0;  // bytes a second
  double share = 0;                     // of the raw rate just before
  double processor_seconds_gb = 0;      // of the store's reads, checksums included
  double raw_processor_seconds_gb = 0;
};

struct WeightsBench {
  StoreImport import;
  std::vector<PagedDecode> decodes;
  std::vector<StoredReads> reads;
};

// `file`: the model, of which a copy goes into a store in the folder. Throws as import_model and Engine.
WeightsBench run_weights_bench(const PagesBenchOptions& options, const Manifest& file,
                               const std::string& folder, const Clock& clock);

}  // namespace caravan
