#include "daemon/fetching_stage_runner.h"

namespace caravan {

void FetchingStageRunner::prepare(const StagePlan& plan) {
  waiting_ = plan;
  fetch_.fetch(plan.span, std::exchange(has_failed_, false), [this](const std::string& reason) {
    const StagePlan now = *std::exchange(waiting_, std::nullopt);
    if (reason.empty()) return inner_.prepare(now);
    prepared_(StagePrepared{now.ring, now.epoch, 0, reason});
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
