#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/unit_span.h"
#include "proto/messages.h"

namespace caravan {

// What a stage needs to run a span of an epoch.
struct StagePlan {
  RingId ring;
  EpochId epoch;
  uint32_t stage = 0;
  UnitSpan span;
  bool last = false;  // results are the answered rows alone
  CodecId codec = CodecId::kF32;
  uint8_t kv_type = 0;  // KvType of compute/backend.h
  uint32_t context = 0;
  uint32_t max_sequences = 0;
  uint32_t max_rows = 0;  // of one step
  Lineage lineage;        // of what this stage computes: peers/lineage.h
};

// Completions, delivered to the control thread as events.
struct StagePrepared {
  RingId ring;
  EpochId epoch;
  uint64_t kv_blocks = 0;
  std::string error;  // empty: it worked
  StageForecast forecast = {};
  ArchiveRoom archive = {};  // that it has for the plan's layers
};
// Weights to have, for a plan that may follow; a later wish takes the place of an earlier one.
struct FetchUnits {
  RingId ring;
  uint64_t plan = 0;
  UnitSpan span;
};
struct UnitsFetched {
  RingId ring;
  uint64_t plan = 0;
  std::string error;  // empty: they are here
};

struct StepDone {
  RingId ring;
  EpochId epoch;
  StepId step;
  Rows rows;  // encoded: one for each row of the step, or for each answered row when the plan says `last`
  uint64_t compute_ns = 0;
  uint64_t queue_ns = 0;
  uint64_t kv_blocks_free = 0;
  std::vector<SequenceId> lost = {};  // of the step's: their state is gone here, their rows are of no use
  std::string lost_reason = {};       // of the first
  std::string error;                  // empty: it worked; otherwise the stage is unfit until the next prepare
};

// How much of a sequence a stage could load.
struct ArchivedFound {
  uint32_t blocks = 0;   // leading ones of those asked for
  uint64_t load_ns = 0;  // that reading them is expected to take
};

// Runs the layers of a stage: model/stage on a compute thread, or HashModel in tests. Calls return at once
// and never throw; work is done in the order of the calls. Steps of one submit may run as one batch.
class StageRunner {
 public:
  virtual ~StageRunner() = default;
  // Drops what was there before and makes the plan's stage; StagePrepared follows.
  virtual void prepare(const StagePlan& plan) = 0;
  // Makes the weights of units be here, beside the stage that runs. UnitsFetched follows, unless another wish
  // or prepare() comes first (then it may).
  virtual void fetch(const FetchUnits& what) = 0;
  // For the plan last prepared, in order; a StepDone follows for each, in order, unless release() comes first
  // (then it may). Operations of a step are done before its rows. A sequence once lost is told as lost with
  // every step that has rows of it, until it is closed, and nothing of it is archived, nor of those that
  // Step::lost names: their rows are not what their tags say.
  virtual void submit(std::vector<Step> steps) = 0;
  // What an archive has of these blocks with the lineage of the plan last prepared: nothing for another plan.
  // Answered at once from memory, while steps are computed. What it finds may be gone when it is loaded.
  virtual ArchivedFound find_archived(RingId ring, EpochId epoch, std::span<const BlockTag> tags) = 0;
  // Of the plan last prepared no more is archived; does nothing for another plan.
  virtual void limit_archive(const ArchiveLimit& limit) = 0;
  // Frees all state of the epoch and of older ones.
  virtual void release(RingId ring, EpochId epoch) = 0;
};

}  // namespace caravan
