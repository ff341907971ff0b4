#include "daemon/forecast.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <utility>

#include "base/caught_error.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "daemon/calibrate.h"
#include "daemon/defaults.h"
#include "daemon/model_plan.h"
#include "offload/planner.h"

namespace caravan {

namespace {

// Between two of them the border between weights and KV moves little.
constexpr uint32_t kParts = limits::kForecastTokens - 1;

uint64_t nanoseconds(double seconds) {
  return static_cast<uint64_t>(std::max(seconds, 0.0) * 1e9 + 0.5);
}

double between(uint64_t before, uint64_t after, double part) {
  return static_cast<double>(before) + part * (static_cast<double>(after) - static_cast<double>(before));
}

// What each row does besides, a pass does once: between two numbers of rows time grows in a straight line.
double step_seconds(const StageForecast& stage, uint32_t rows) {
  const auto before =
      std::min<uint32_t>(std::bit_width(std::max(rows, 1u)) - 1, limits::kForecastPrompts - 2);
  const double part = static_cast<double>(std::max(rows, 1u)) / (1u << before) - 1;
  return between(stage.prompt_ns[before], stage.prompt_ns[before + 1], part) * 1e-9;
}

}  // namespace

StageForecast forecast_pages(const PlanInput& input) {
  const uint32_t context = std::max(input.context, 1u);
  const uint32_t first = std::min(context, input.block_positions);
  std::vector<PassAlone> passes = {{1, first, first}};
  for (uint32_t i = 1; i <= kParts; ++i) {
    const auto position = std::max(1u, static_cast<uint32_t>(uint64_t{context} * i / kParts));
    passes.push_back({1, position, position});
  }
  for (uint32_t i = 0; i < limits::kForecastPrompts; ++i) {
    const uint32_t rows = std::min(1u << i, context);
    passes.push_back({rows, rows / 2, rows});
  }
  const std::vector<Prediction> expected = predict_alone(input, passes);
  StageForecast forecast;
  for (const Prediction& one : expected)
    (forecast.token_ns.size() <= kParts ? forecast.token_ns : forecast.prompt_ns)
        .push_back(nanoseconds(one.seconds));
  return forecast;
}

StageForecast forecast_part(const Config& config, const Engine& engine, const ForecastPart& part) {
  try {
    const auto kept = kept_calibration(state_folder_to_read(config), calibration_key(config.isa));
    if (!kept) fail(ErrorCode::kNotFound, "this machine was not measured: caravan calibrate");
    ModelPlanOptions options;
    options.engine = engine.options();
    options.engine.kv_type = part.kv_type;
    options.budgets.ram = options.engine.memory.count;
    if (const auto kv = options.engine.kv_memory) options.budgets.kv_ram = kv->count;
    options.budgets.headroom_divisor = kHeadroomShare;
    options.context = part.context;
    options.wire_bytes = engine.wire().count;
    options.ends = part.ends;
    return forecast_pages(
        model_pages(engine.manifest(), engine.spec(), part.layers, kept->measurements, options).input);
  } catch (const std::exception&) {
    log_info("no_forecast reason=\"{}\"", caught_error().message());
    return {};
  }
}

std::string RingForecast::lacking() const {
  std::string peers;
  for (const Stage& stage : stages)
    if (!stage.forecast.known()) peers += (peers.empty() ? "" : ", ") + stage.peer;
  return peers;
}

// Attention reads what lies before a token, and weights give way to it: between two places the time grows in
// a straight line.
double RingForecast::token_seconds(double position) const {
  const double at = std::clamp(position * kParts / std::max(1u, context), 0.0, double{kParts});
  const auto before = std::min(static_cast<size_t>(at), size_t{kParts - 1});
  double sum_ns = 0;
  for (const auto& [peer, forecast] : stages)
    sum_ns +=
        between(forecast.token_ns[before], forecast.token_ns[before + 1], at - static_cast<double>(before));
  return sum_ns * 1e-9;
}

double RingForecast::prompt_token_seconds(uint32_t tokens, uint32_t rows) const {
  rows = std::clamp(rows, 1u, std::max(tokens, 1u));
  double once = 0, slowest = 0;
  for (const auto& [peer, forecast] : stages) {
    const double seconds = step_seconds(forecast, rows);
    once += seconds;
    slowest = std::max(slowest, seconds);
  }
  const double steps = static_cast<double>(std::max(tokens, 1u)) / rows;
  return (once + (steps - 1) * slowest) / (steps * rows);
}

}  // namespace caravan
