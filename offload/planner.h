#pragma once

#include <span>
#include <vector>

#include "offload/plan.h"

namespace caravan {

// Where every page goes, and what that gives: the fastest decode, at the full context of every sequence, that
// fits the budgets. A pure function; more RAM never predicts a slower decode, at the start or at the full
// context, nor a slower prompt: each is the fastest of what fits, from lists that a greater budget only adds
// to. Where all pages fit they are mapped. Throws kOutOfMemory naming the least that would
// run and what it is made of, kLimit for sizes past counting, kInvalidArgument for no pages.
Plan plan_pages(const PlanInput& input);

// What the plan gives at another point: `rows` rows of `sequences` sequences, each with `position` positions
// before it on average.
Prediction predict(const PlanInput& input, const Plan& plan, uint32_t rows, uint32_t sequences,
                   uint32_t position);

// A pass of one sequence, while KV is that of `context` positions: weights use the rest.
struct PassAlone {
  uint32_t rows = 1;
  uint32_t position = 0;  // before a row, on average
  uint32_t context = 1;
};
// What plan_pages gives for one sequence at each of these contexts, without all else that a plan tells, which
// takes far longer. Throws as plan_pages.
std::vector<Prediction> predict_alone(const PlanInput& input, std::span<const PassAlone> passes);

}  // namespace caravan
