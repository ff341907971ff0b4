#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "daemon/shard_fetch.h"
#include "peers/stage_runner.h"

namespace caravan {

// A StageRunner whose weights come over the link: preparing a stage first fetches what it lacks. After a
// stage failed, what is in the store is looked at before the next one, so that damaged weights are fetched
// again. Control thread.
class FetchingStageRunner final : public StageRunner {
 public:
  using Event = std::variant<StagePrepared, UnitsFetched>;
  // Why a span cannot be hosted, whatever is fetched; empty when it can. `plan`: null while nobody knows it.
  using Refuse = std::function<std::string(UnitSpan span, const StagePlan* plan)>;
  // Both outlive it. `post` gets what was fetched, and stages that could not be prepared for want of weights.
  FetchingStageRunner(StageRunner& inner, ShardFetch& fetch, Refuse refuse, std::function<void(Event)> post)
      : inner_(inner), fetch_(fetch), refuse_(std::move(refuse)), post_(std::move(post)) {}

  void prepare(const StagePlan& plan) override;
  void fetch(const FetchUnits& what) override;
  void submit(std::vector<Step> steps) override { inner_.submit(std::move(steps)); }
  ArchivedFound find_archived(RingId ring, EpochId epoch, std::span<const BlockTag> tags) override {
    return inner_.find_archived(ring, epoch, tags);
  }
  void limit_archive(const ArchiveLimit& limit) override { inner_.limit_archive(limit); }
  void release(RingId ring, EpochId epoch) override;
  // A stage could not be prepared, or failed.
  void failed() { has_failed_ = true; }

 private:
  StageRunner& inner_;
  ShardFetch& fetch_;
  const Refuse refuse_;
  const std::function<void(Event)> post_;
  std::optional<StagePlan> waiting_;
  bool has_failed_ = false;
};

}  // namespace caravan
