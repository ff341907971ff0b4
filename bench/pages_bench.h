#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "bench/fetch_bench.h"
#include "bench/pages_options.h"
#include "bench/restart_bench.h"
#include "bench/weights_bench.h"

namespace caravan {

// Weights and KV that memory does not hold, beside what the disk, the wire and the processor allow.
struct PagesBench {
  std::string model;
  WeightsBench weights;
  RestartBench restart;
  FetchBench fetch;
};

// Works in a folder of its own inside the state folder, which is gone afterwards; it needs room for the model
// once. Throws as its parts and open_model; kCancelled.
PagesBench run_pages_bench(const PagesBenchOptions& options, const Clock& clock, Random& random);

// A figure beside what the project asks of a machine of two cores.
struct PagesAim {
  std::string name;
  double value = 0;
  double aim = 0;
  bool at_least = true;  // else at most
  bool is_met() const { return at_least ? value >= aim : value <= aim; }
};
std::vector<PagesAim> pages_aims(const PagesBench& bench);

std::string pages_table(const PagesBench& bench);
std::string pages_json(const PagesBench& bench);

}  // namespace caravan
