#pragma once

#include <cstdint>
#include <string>

#include "base/config.h"
#include "daemon/engine.h"
#include "model/spec.h"
#include "shards/manifest.h"

namespace caravan {

// Whom budgets are asked about: a process that hosts a whole model, or `peers` that share its layers evenly,
// and their head.
struct BudgetQuestion {
  const Config& config;
  const Manifest& manifest;
  const ModelSpec& spec;
  const EngineOptions& options;  // of this process
  uint32_t context = 0;
  uint32_t peers = 0;
};

// Names the flags that are too small, each with the least that does; empty when all are large enough.
std::string small_budgets(const BudgetQuestion& question);
// The same for an engine that could not be made: of the model's file again, before anything is hosted.
std::string small_budgets(const Config& config, const std::string& model, uint32_t peers);
// For a peer that does not know yet what it is to host: nothing as long as it can begin; then the least with
// which it can host anything.
std::string too_small_to_join(const Config& config, const Manifest& manifest, const EngineOptions& options,
                              bool measured);

}  // namespace caravan
