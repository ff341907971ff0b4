#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/unit_span.h"
#include "compute/backend.h"
#include "daemon/engine.h"
#include "offload/plan.h"
#include "proto/messages.h"

namespace caravan {

// What the planner expects of these pages. Throws as plan_pages.
StageForecast forecast_pages(const PlanInput& input);

// Some layers in a process, and with `ends` the head's two units.
struct ForecastPart {
  UnitSpan layers;
  bool ends = false;
  uint32_t context = 0;
  KvType kv_type = KvType::kF32;
};
// By the measurements that are kept of this machine. Nothing without any, or without a plan; a log line says
// why.
StageForecast forecast_part(const Config& config, const Engine& engine, const ForecastPart& part);

// What is expected of a whole ring, the head's two units among its stages. Links are not in it.
struct RingForecast {
  struct Stage {
    std::string peer;
    StageForecast forecast;
  };
  std::vector<Stage> stages;
  uint32_t context = 0;

  // Peers without a forecast, separated by commas. With any there is none of the ring, and what follows is
  // not to be asked.
  std::string lacking() const;
  // Of a generated token behind so many positions: it passes one stage after the other.
  double token_seconds(double position) const;
  // Of each token of a prompt that comes in steps of `rows`, one behind the other: the slowest stage sets
  // the pace, as if no two stages shared a machine.
  double prompt_token_seconds(uint32_t tokens, uint32_t rows) const;
};

}  // namespace caravan
