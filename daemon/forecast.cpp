#include "daemon/forecast.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/model_plan.h"
#include "offload/planner.h"

namespace caravan {

Forecast::Forecast(PlanInput input) : input_(std::move(input)) {
  input_.sequences = 1;
  const Plan plan = plan_pages(input_);
  first_token_seconds_ = plan.decode_start.seconds_a_token();
  last_token_seconds_ = plan.decode.seconds_a_token();
}

// Attention reads what lies before a token, so the time grows with the position in a straight line.
double Forecast::token_seconds(double position) const {
  const double share = std::clamp(position / std::max(1u, input_.context), 0.0, 1.0);
  return first_token_seconds_ + share * (last_token_seconds_ - first_token_seconds_);
}

double Forecast::prompt_token_seconds(uint32_t rows) const {
  PlanInput input = input_;
  input.prompt_rows = std::clamp(rows, 1u, input_.prompt_rows);
  return plan_pages(input).prompt.seconds_a_token();
}

std::optional<Forecast> forecast_of(const Clock& clock, const Config& config, const Manifest& manifest,
                                    const ModelSpec& spec, const std::string& state_folder,
                                    const CalibrationProgress& progress) {
  try {
    ModelPlan made = plan_model(clock, config, manifest, spec, state_folder, 1, progress);
    return Forecast(std::move(made.pages.input));
  } catch (const Error& error) {
    // Peers may hold what this machine cannot; and a disk that cannot be measured still serves.
    log_info("no_forecast reason=\"{}\"", error.message());
    return std::nullopt;
  }
}

}  // namespace caravan
