#include "daemon/fetching_stage_runner.h"

namespace caravan {

void FetchingStageRunner::prepare(const StagePlan& plan) {
  if (const std::string refusal = refuse_(plan.span, &plan); !refusal.empty())
    return post_(StagePrepared{plan.ring, plan.epoch, 0, refusal});
  waiting_ = plan;
  fetch_.fetch(plan.span, std::exchange(has_failed_, false), [this](const std::string& reason) {
    const StagePlan now = *std::exchange(waiting_, std::nullopt);
    if (reason.empty()) return inner_.prepare(now);
    post_(StagePrepared{now.ring, now.epoch, 0, reason});
  });
}

void FetchingStageRunner::fetch(const FetchUnits& what) {
  // A stage that is being prepared comes first; the head asks again once it stands.
  if (waiting_) return;
  if (const std::string refusal = refuse_(what.span, nullptr); !refusal.empty())
    return post_(UnitsFetched{what.ring, what.plan, refusal});
  fetch_.fetch(what.span, false, [this, what](const std::string& reason) {
    post_(UnitsFetched{what.ring, what.plan, reason});
  });
}

void FetchingStageRunner::release(RingId ring, EpochId epoch) {
  if (waiting_ && waiting_->ring == ring && waiting_->epoch <= epoch) {
    waiting_.reset();
    fetch_.cancel();
  }
  inner_.release(ring, epoch);
}

}  // namespace caravan
