#include "daemon/pipeline.h"

#include <fmt/core.h>

#include <algorithm>

namespace caravan {

void Pipeline::add(StepPlan plan, bool canary, Time now) {
  Flight flight;
  flight.step.ring = ring_;
  flight.step.epoch = epoch_;
  flight.step.step = StepId{++last_step_};
  flight.step.canary = canary;
  flight.step.operations = std::move(plan.operations);
  flight.step.ranges = plan.ranges;  // the plan keeps them: progress is told by them when the step is done
  flight.step.tags = std::move(plan.tags);
  flight.step.load_tags = plan.load_tags;  // kept: what such a step costs says nothing of prompts
  flight.step.rows.codec = codec_;
  flight.embedded = plan.tokens.empty();
  if (!flight.embedded) actions_.emplace_back(EmbedJob{epoch_, flight.step.step, codec_, plan.tokens});
  flight.plan = std::move(plan);
  steps_.push_back(std::move(flight));
  send_in_order(now);
}

Pipeline::Flight* Pipeline::find(StepId step) {
  const auto found = std::find_if(steps_.begin(), steps_.end(),
                                  [&](const Flight& flight) { return flight.step.step == step; });
  return found == steps_.end() ? nullptr : &*found;
}

void Pipeline::on(EmbedDone done, Time now) {
  Flight* flight = done.epoch == epoch_ ? find(done.step) : nullptr;
  if (flight == nullptr || flight->embedded) return;
  if (!done.error.empty() || done.rows.count != flight->plan.tokens.size()) {
    broken_ = fmt::format("embedding failed: {}", done.error.empty() ? "rows are missing" : done.error);
    return;
  }
  flight->step.rows = std::move(done.rows);
  flight->embedded = true;
  send_in_order(now);
}

void Pipeline::send_in_order(Time now) {
  for (Flight& flight : steps_) {
    if (flight.phase != Flight::Phase::kEmbedding) continue;
    if (!flight.embedded) return;
    flight.phase = Flight::Phase::kTravelling;
    flight.sent = now;
    Step header = flight.step;
    header.rows = {};
    actions_.emplace_back(SendMessage{first_stage_, std::exchange(flight.step, std::move(header))});
  }
}

void Pipeline::on(Answer answer, Time now) {
  if (answer.ring != ring_ || answer.epoch != epoch_) return;
  // Stages keep the order, so the answer belongs to the oldest step on the ring.
  const auto oldest = std::find_if(steps_.begin(), steps_.end(), [](const Flight& flight) {
    return flight.phase == Flight::Phase::kTravelling;
  });
  if (oldest == steps_.end() || answer.step < oldest->step.step) return;  // came twice
  Flight& flight = *oldest;
  if (answer.step != flight.step.step) {
    broken_ = fmt::format("step {} was answered before step {}", answer.step.value, flight.step.step.value);
    return;
  }
  if (answer.rows.count != flight.plan.answered.size() ||
      (answer.rows.count > 0 && (answer.rows.codec != codec_ || answer.rows.byte_count() == 0))) {
    broken_ =
        fmt::format("step {}: {} rows were answered as {}, {} were asked for as {}", answer.step.value,
                    answer.rows.count, name(answer.rows.codec), flight.plan.answered.size(), name(codec_));
    return;
  }
  progress_ = now;
  flight.counters = std::move(answer.counters);
  flight.lost = std::move(answer.lost);
  flight.lost_reason = std::move(answer.lost_reason);
  flight.travelled = now - flight.sent;
  if (answer.rows.count == 0) return finish(flight, {}, {});
  flight.phase = Flight::Phase::kOutput;
  actions_.emplace_back(OutputJob{epoch_, answer.step, std::move(answer.rows), flight.plan.asked});
}

void Pipeline::on(OutputDone done) {
  Flight* flight = done.epoch == epoch_ ? find(done.step) : nullptr;
  if (flight == nullptr || flight->phase != Flight::Phase::kOutput) return;
  if (done.error.empty() && done.results.size() != flight->plan.answered.size())
    done.error = "results are missing";
  finish(*flight, std::move(done.results), std::move(done.error));
}

void Pipeline::finish(Flight& flight, std::vector<OutputResult> results, std::string error) {
  const StepId step = flight.step.step;
  finished_.push_back({std::move(flight.plan), flight.step.canary, std::move(results),
                       std::move(flight.counters), flight.travelled, std::move(flight.lost),
                       std::move(flight.lost_reason), std::move(error)});
  steps_.erase(std::find_if(steps_.begin(), steps_.end(),
                            [&](const Flight& other) { return other.step.step == step; }));
}

size_t Pipeline::prompts_in_flight() const {
  return static_cast<size_t>(std::count_if(steps_.begin(), steps_.end(),
                                           [](const Flight& flight) { return flight.plan.prompt_rows > 0; }));
}

std::optional<Pipeline::Overdue> Pipeline::travelling() const {
  for (const Flight& flight : steps_)
    if (flight.phase == Flight::Phase::kTravelling)
      return Overdue{std::max(flight.sent, progress_), flight.step.step};
  return std::nullopt;
}

}  // namespace caravan
