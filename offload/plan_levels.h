#pragma once

#include <cstdint>
#include <vector>

#include "offload/plan.h"

namespace caravan {

// A way to lay the weights in `bytes` of RAM.
struct WeightLevel {
  uint64_t bytes = 0;  // the pager's limit; or of everything mapped
  std::vector<Placement> placements;
  uint64_t resident_bytes = 0;
  uint64_t window_bytes = 0;  // 0 when nothing is streamed
  uint32_t window_pages = 0;  // that it holds at least
  uint64_t demand_bytes = 0;  // of on-demand pages in use or being read
  uint64_t cache_bytes_choice = 0;
  uint32_t cache_pages = 0;  // of each choice
  ChosenRoom decode, scan;
  const ChosenRoom& chosen(uint32_t rows) const { return rows < kScanRows ? decode : scan; }
};

// All that the planner weighs: everything mapped where that can be, and what the pager would do
// (plan_residency) under limits from the least to all. The same for every budget, so that a greater budget
// only adds to what fits.
std::vector<WeightLevel> weight_levels(const PlanInput& input);

}  // namespace caravan
