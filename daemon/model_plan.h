#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/config.h"
#include "daemon/calibrate.h"
#include "daemon/engine.h"
#include "offload/plan.h"
#include "shards/manifest.h"

namespace caravan {

// A model as the planner sees it: which page is which group.
struct ModelPages {
  std::vector<GroupId> groups;  // of every page, in the order of a pass
  std::vector<uint64_t> bytes;  // of every group
  PlanInput input;
};

// What of a model is planned for, on what.
struct ModelPlanOptions {
  EngineOptions engine;
  Budgets budgets;
  uint32_t context = 0;
  uint32_t sequences = 1;
  uint64_t wire_bytes = 0;
  uint32_t prompt_rows = 0;  // of a prompt's step; 0: of the widest
  bool ends = false;         // the head's two units as well, whatever the span
};

// The pages of a span of units. The tables of ids are no burden: their rows are read as tokens come. Throws
// kMalformed for a group that is missing.
ModelPages model_pages(const Manifest& manifest, const ModelSpec& spec, UnitSpan span,
                       const Measurements& measurements, const ModelPlanOptions& options);

// A plan of a whole model, with what it came from.
struct ModelPlan {
  ModelPlanOptions options;
  Calibration calibration;
  ModelPages pages;
  Plan plan;
};

// What is kept of the machine, or is measured now: load_or_measure.
using Calibrate = std::function<Calibration(const CalibrationOptions&)>;

// Plans a model as a configuration asks for, with the budgets that a process would have here and now. Throws
// kOutOfMemory as such a process would (small_budgets), before it calibrates. Throws as plan_pages,
// model_pages and `calibrate`.
ModelPlan plan_model(const Config& config, const Manifest& manifest, const ModelSpec& spec,
                     uint32_t sequences, const Calibrate& calibrate);

// What two peers of this kind would give, each with half of the layers; no time for the links between them.
// Nothing for a model of one layer, or when a half has no plan.
std::optional<Prediction> with_another_peer(const Manifest& manifest, const ModelSpec& spec,
                                            const Measurements& measurements,
                                            const ModelPlanOptions& options);

// A plan as one JSON object's text.
std::string plan_json(const ModelPages& pages, const Plan& plan,
                      const std::optional<Prediction>& another_peer = std::nullopt);
// And as a picture, in lines of at most 100 columns.
std::string plan_picture(const Manifest& manifest, const ModelPages& pages, const Plan& plan,
                         const std::optional<Prediction>& another_peer);

}  // namespace caravan
