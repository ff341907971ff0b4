#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/config.h"
#include "base/unit_span.h"
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
// For a peer that knows neither what it is to host nor the ring's context: empty as long as it can begin, and
// could host one layer with the shortest context.
std::string too_small_to_join(const Manifest& manifest, const EngineOptions& options, bool measured);
// For a peer that fetches, whose disk has `room` for weights: empty when that holds some layer. With a limit
// (--disk), that is what bounds the room.
std::string too_little_disk(const Manifest& manifest, uint64_t room, std::optional<uint64_t> limit);
// For a peer that is to host these layers, before it fetches them.
std::string too_small_to_host(const Manifest& manifest, const EngineOptions& options, UnitSpan span,
                              uint32_t context);

}  // namespace caravan
