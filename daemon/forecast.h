#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/config.h"
#include "daemon/calibrate.h"
#include "model/spec.h"
#include "offload/plan.h"
#include "shards/manifest.h"

namespace caravan {

// What the planner expects of one sequence that runs alone on this machine, with every layer in this process.
class Forecast {
 public:
  // Throws as plan_pages.
  explicit Forecast(PlanInput input);

  // Of a generated token behind so many positions.
  double token_seconds(double position) const;
  // Of each token of a prompt that is computed in steps of `rows`.
  double prompt_token_seconds(uint32_t rows) const;

 private:
  double seconds_at(uint32_t context) const;
  PlanInput input_;
  uint32_t first_ = 0;         // positions that KV always has room for
  std::vector<double> token_;  // seconds, at even distances from first_ to the whole context
  double start_seconds_ = 0;   // of the first token
};

// For a model under a configuration. Measures the machine where that has not been done yet and `measure`
// allows it. Nothing when there are no measurements, or no plan of all layers here; a log line says why.
std::optional<Forecast> forecast_of(const Clock& clock, const Config& config, const Manifest& manifest,
                                    const ModelSpec& spec, const std::string& state_folder,
                                    const CalibrationProgress& progress);

}  // namespace caravan
