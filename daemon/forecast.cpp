#include "daemon/forecast.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/model_plan.h"
#include "offload/planner.h"

namespace caravan {

namespace {

// Between which the border between weights and KV moves little.
constexpr uint32_t kParts = 8;

}  // namespace

Forecast::Forecast(PlanInput input) : input_(std::move(input)) {
  input_.sequences = 1;
  first_ = std::min(input_.context, kLeastKvBlocks * input_.block_positions);
  start_seconds_ = plan_pages(input_).decode_start.seconds_a_token();
  for (uint32_t i = 0; i <= kParts; ++i)
    token_.push_back(
        seconds_at(first_ + static_cast<uint32_t>(uint64_t{input_.context - first_} * i / kParts)));
}

double Forecast::seconds_at(uint32_t context) const {
  PlanInput input = input_;
  input.context = context;
  return plan_pages(input).decode.seconds_a_token();
}

// Attention reads what lies before a token, and weights give way to it: between two points the time grows in
// a straight line.
double Forecast::token_seconds(double position) const {
  if (position < first_) return start_seconds_ + position / first_ * (token_[0] - start_seconds_);
  const double part = std::max(1.0, (input_.context - first_) / double{kParts});
  const double at = std::clamp((position - first_) / part, 0.0, double{kParts});
  const auto before = std::min(static_cast<size_t>(at), token_.size() - 2);
  return token_[before] + (at - static_cast<double>(before)) * (token_[before + 1] - token_[before]);
}

double Forecast::prompt_token_seconds(uint32_t rows) const {
  PlanInput input = input_;
  input.prompt_rows = std::clamp(rows, 1u, input_.prompt_rows);
  input.context = std::min(input_.context, std::max(first_, input.prompt_rows));
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
