#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "daemon/command_line.h"

namespace caravan {

// Decode of a model that its RAM budget does not hold, beside the disk in the same minutes. Medians of five.
struct PagedDecode {
  std::string from;              // "file" or "store"
  double times_ram = 0;          // the model's bytes over the budget's
  uint64_t ram = 0;              // bytes
  double seconds_a_token = 0;    // measured
  double predicted_seconds = 0;  // by the planner, from this machine's calibration
  double bytes_a_token = 0;      // read
  double raw_rate = 0;           // of the pager's reader over the same bytes of the file, bytes a second
  double share = 0;              // of the tokens that the raw rate would allow
  double hidden = 0;             // of the shorter of reading and computing, what ran beside the other
};

// Groups read from the store beside the same reads of the file, with 1, 2, 4 and 8 pieces in flight.
struct StoredReads {
  uint32_t in_flight = 0;
  double store_rate = 0, raw_rate = 0;  // bytes a second, medians of five
  double processor_seconds_gb = 0;      // of the store's reads, checksums included
};

struct PagesBench {
  std::vector<PagedDecode> decodes;
  std::vector<StoredReads> reads;
};

// Copies the model into a store of its own in the state folder, which is gone afterwards. `step` hears what
// is measured next. Throws as open_model, import_model and Engine.
PagesBench run_pages_bench(const Clock& clock, const CommandLine& line,
                           const std::function<void(const std::string&)>& step);

}  // namespace caravan
