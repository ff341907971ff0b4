#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "daemon/shard_fetch.h"
#include "peers/stage_runner.h"

namespace caravan {

// A StageRunner whose weights come over the link: preparing a stage first fetches what it lacks. After a
// stage failed, what is in the store is looked at before the next one, so that damaged weights are fetched
// again. Control thread.
class FetchingStageRunner final : public StageRunner {
 public:
  // Both outlive it. `prepared` gets the news of stages that could not be prepared for want of weights.
  FetchingStageRunner(StageRunner& inner, ShardFetch& fetch, std::function<void(StagePrepared)> prepared)
      : inner_(inner), fetch_(fetch), prepared_(std::move(prepared)) {}

  void prepare(const StagePlan& plan) override;
  void submit(std::vector<Step> steps) override { inner_.submit(std::move(steps)); }
  void release(RingId ring, EpochId epoch) override;
  // A stage could not be prepared, or failed.
  void failed() { has_failed_ = true; }

 private:
  StageRunner& inner_;
  ShardFetch& fetch_;
  const std::function<void(StagePrepared)> prepared_;
  std::optional<StagePlan> waiting_;
  bool has_failed_ = false;
};

}  // namespace caravan
