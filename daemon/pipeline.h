#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "daemon/head_runner.h"
#include "daemon/scheduler.h"
#include "peers/earlier_cuts.h"
#include "peers/stage_host.h"
#include "proto/messages.h"

namespace caravan {

using HeadAction = std::variant<ConnectPeer, DisconnectPeer, SendMessage, EmbedJob, OutputJob, KeepCuts>;

// The steps of one epoch on their way: tokens are embedded, the step travels the ring, answered rows become
// results. Steps leave in the order of their numbers, whatever takes longer in between.
class Pipeline {
 public:
  struct Finished {
    StepPlan plan;
    bool canary = false;
    std::vector<OutputResult> results;
    std::vector<StageCounters> counters;
    Duration travelled{};          // from leaving the head to the answer
    std::vector<SequenceId> lost;  // of the step's: they lost state at a stage
    std::string lost_reason;
    std::string error;  // of the output job: the step's results are lost
  };

  Pipeline(RingId ring, EpochId epoch, PeerKey first_stage, CodecId codec)
      : ring_(ring), epoch_(epoch), first_stage_(first_stage), codec_(codec) {}

  void add(StepPlan plan, bool canary, Time now);

  // Messages and completions of other epochs are ignored. What makes the epoch unfit is told by broken().
  void on(EmbedDone done, Time now);
  void on(Answer answer, Time now);
  void on(OutputDone done);

  std::vector<Finished> take_finished() { return std::exchange(finished_, {}); }
  std::vector<HeadAction> take_actions() { return std::exchange(actions_, {}); }
  size_t in_flight() const { return steps_.size(); }
  size_t prompts_in_flight() const;  // of them those with rows of prompts
  const std::string& broken() const { return broken_; }
  // Since when the oldest step on the ring waits without any answer coming back, and its number.
  struct Overdue {
    Time since;
    StepId step;
  };
  std::optional<Overdue> travelling() const;

 private:
  struct Flight {
    enum class Phase { kEmbedding, kTravelling, kOutput };
    Phase phase = Phase::kEmbedding;
    bool embedded = false;
    Step step;
    StepPlan plan;
    std::vector<StageCounters> counters;
    std::vector<SequenceId> lost;
    std::string lost_reason;
    Time sent{};
    Duration travelled{};
  };
  Flight* find(StepId step);
  void send_in_order(Time now);
  void finish(Flight& flight, std::vector<OutputResult> results, std::string error);

  const RingId ring_;
  const EpochId epoch_;
  const PeerKey first_stage_;
  const CodecId codec_;
  std::deque<Flight> steps_;  // by number
  std::vector<Finished> finished_;
  std::vector<HeadAction> actions_;
  std::string broken_;
  uint64_t last_step_ = 0;
  Time progress_{};  // of the last answer
};

}  // namespace caravan
