#pragma once

#include <cstdint>
#include <vector>

#include "offload/plan.h"

namespace caravan {

// A way to lay the weights, whatever the budget is: how far the window reaches is still open.
struct WeightLevel {
  std::vector<Placement> placements;
  uint64_t resident_bytes = 0;  // caches not included
  uint64_t demand_bytes = 0;
  uint64_t cache_bytes_choice = 0;
  uint64_t cache_bytes = 0;  // of all choices
  uint32_t cache_pages = 0;
  struct Window {
    uint32_t pages = 0;
    uint64_t bytes = 0;
  };
  std::vector<Window> windows;  // one of no bytes when nothing is streamed
};

// All that the planner weighs: everything mapped; pages kept in ever greater number, evenly over the cycle
// (for a cyclic order of use a fixed set is the best that any eviction can do, and even spacing lets reads
// and compute overlap), once with and once without keeping pages far larger than the others first; then
// caches of chosen pages in ever greater size. The same for every budget, so that a greater budget only adds
// to what fits.
std::vector<WeightLevel> weight_levels(const PlanInput& input);

}  // namespace caravan
