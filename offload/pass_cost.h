#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "offload/pass.h"
#include "offload/plan.h"

namespace caravan {

// What a pass asks of the machine: the rows it carries, and where they stand.
struct PassShape {
  uint32_t rows = 0;
  uint32_t sequences = 0;  // that the rows belong to
  uint32_t position = 0;   // positions before a row, on average
  uint32_t kept = 0;       // positions of each sequence that KV is kept for
};

// One step: a page, or all pages of one choice.
struct PassStep {
  uint32_t first = 0;  // page
  uint32_t count = 1;
  PageUse use{};
  double memory_seconds = 0;      // that wait for memory
  double arithmetic_seconds = 0;  // that wait for arithmetic
  double state_bytes = 0;         // of KV that the step reads
  double kept_bytes = 0;          // of KV that its unit keeps
  double chosen = 1;              // kChosen: pages that the rows are expected to use
  double compute() const { return memory_seconds + arithmetic_seconds; }
};

// The steps of a pass and their cost in compute, which does not depend on where the pages lie. The time of a
// product is that of its first row, and of every further one at the rate of many.
std::vector<PassStep> pass_steps(const PlanInput& input, const PassShape& shape);

// Where the bytes of a pass lie.
struct PassPlacement {
  std::span<const Placement> placements;  // of every page
  ChosenRoom chosen;
  uint64_t window_bytes = 0;
  uint64_t kv_bytes = 0;  // of state in RAM; more is read back
};

// The pass over these steps.
Prediction predict_pass(const PlanInput& input, const PassShape& shape, std::span<const PassStep> steps,
                        const PassPlacement& placement);

// The disk's part of it alone: of the weights, and of the state beyond `kv_bytes`.
double pass_read_seconds(const PlanInput& input, const PassShape& shape, std::span<const PassStep> steps,
                         std::span<const Placement> placements, const ChosenRoom& chosen);
double state_read_seconds(const PlanInput& input, std::span<const PassStep> steps, uint64_t kv_bytes);

}  // namespace caravan
