#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "daemon/compute_thread.h"
#include "daemon/end_within.h"
#include "daemon/engine.h"
#include "peers/stage_runner.h"

namespace caravan {

// StageRunner over the engine: decodes a step's rows, runs the stage on the compute thread, encodes what
// comes out. Calls come from the control thread; events are handed to `post` on the compute thread.
class LocalStageRunner final : public StageRunner {
 public:
  using Event = std::variant<StagePrepared, UnitsFetched, StepDone>;
  using Post = std::function<void(Event)>;
  // What is expected of a stage; called on the compute thread.
  using Forecaster = std::function<StageForecast(const StagePlan&)>;
  // All outlive the runner, and the compute thread is joined before it goes.
  LocalStageRunner(Engine& engine, ComputeThread& thread, const Clock& clock, LoadProgress progress,
                   Forecaster forecast, Post post);
  ~LocalStageRunner() override;

  void prepare(const StagePlan& plan) override;
  // They are in the engine's model.
  void fetch(const FetchUnits& what) override { post_(UnitsFetched{what.ring, what.plan, ""}); }
  void submit(std::vector<Step> steps) override;
  ArchivedFound find_archived(RingId ring, EpochId epoch, std::span<const BlockTag> tags) override;
  void limit_archive(const ArchiveLimit& limit) override;
  void release(RingId ring, EpochId epoch) override;
  // For a process that ends, after the steps that were submitted: what is on its way to the archive gets
  // there, within a short time.
  void finish_archiving(Saving saving);

 private:
  // Everything below, plan_ aside, runs on the compute thread.
  struct Prepared {
    StagePlan plan;
    Engine::Hosted hosted;
  };
  void prepare_now(const StagePlan& plan);
  ArchiveRoom archive_room() const;
  void run_now(const Step& step, Time queued);
  void apply(const SequenceOperation& operation, std::span<const BlockTag>& load_tags);
  void add_ranges(const Step& step);
  Rows run_rows(const Step& step, StepDone& done);

  Engine& engine_;
  ComputeThread& thread_;
  const Clock& clock_;
  const LoadProgress progress_;
  const Forecaster forecast_;
  const Post post_;
  std::optional<StagePlan> plan_;  // given last; of the control thread
  std::optional<Prepared> prepared_;
  std::vector<float> rows_;  // [max_rows, width]
  std::vector<StageRange> ranges_;
};

}  // namespace caravan
