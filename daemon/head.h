#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "daemon/archive_probes.h"
#include "daemon/generation.h"
#include "daemon/pipeline.h"
#include "daemon/rate_meter.h"
#include "daemon/scheduler.h"
#include "peers/membership.h"
#include "peers/probation.h"
#include "peers/provision.h"
#include "peers/ring.h"

namespace caravan {

struct HeadOptions {
  RingOptions ring;
  MembershipOptions members;
  SchedulerOptions scheduler;
  // Steps in flight; 0: as many as the slowest stage does in the time of a way round the ring, measured, and
  // never fewer than one for every stage and two for the head's own units and the way.
  uint32_t window = 0;
  // Rows of prompts in flight: as one step in a ring of one stage, else as one for each stage. So a new
  // request waits at most one such chunk for each running one.
  uint32_t chunk_rows = 256;
  Duration step_timeout = std::chrono::seconds(120);  // without any answer while steps are on the ring
  TokenId canary_token = 0;
  // With one, the stages' archives are used: blocks are tagged under it, and asked for.
  std::optional<ArchiveKey> archive_key = {};
  ArchiveProbes::Options probes = {};
};

// The head of a ring: members, ring, scheduler and the steps on their way, behind one face. A state machine
// without clock, socket or thread: events go in with their time, actions come out in the order in which they
// must be done, and request events for whoever asked.
class Head {
 public:
  explicit Head(HeadOptions options);

  // Throws kUnavailable (no ready ring; says why), and as Scheduler::submit.
  RequestId submit(TokenRequest request, Time now);
  void cancel(RequestId request, Time now);

  void on(const LinkEvent& event, Time now);
  void on(EmbedDone done, Time now);
  void on(OutputDone done, Time now);
  void tick(Time now);
  Time next_tick() const;
  std::vector<HeadAction> take_actions() { return std::exchange(actions_, {}); }
  std::vector<RequestEvent> take_events() { return scheduler_.take_events(); }

  bool ready() const { return ring_.state() == Ring::State::kReady; }
  // Why it is not; names the failing edge or peer.
  std::string not_ready_reason() const { return ring_.reason(); }
  // Peers that are left out because their stages keep failing.
  struct LeftOut {
    std::string name, reason;
  };
  std::vector<LeftOut> left_out(Time now) const;
  // Canaries in a row whose result was none (NaN): of a model that is broken, every one is; and why the last
  // one was.
  uint32_t useless_canaries() const { return useless_canaries_; }
  const std::string& useless_reason() const { return useless_reason_; }
  // Everything but the model's names and the time of the start.
  ServiceStatus status(Time now) const;

  const Ring& ring() const { return ring_; }
  const Scheduler& scheduler() const { return scheduler_; }
  const Membership& members() const { return members_; }
  // Rows of a prompt that go round as one step.
  uint32_t piece_rows() const;
  // Of a lone generated token on its way round the ring: what no stage computed or kept waiting. A moving
  // mean; 0: not measured, or the ring never leaves this process.
  double links_seconds() const { return links_ns_ * 1e-9; }
  size_t steps_in_flight() const { return pipeline_ ? pipeline_->in_flight() : 0; }

 private:
  // What the counters of answers say of a stage.
  struct StageTotals {
    double layer_ns = 0;   // one layer, one row: a moving mean
    double step_ns = 0;    // one step with rows: a moving mean
    double prompt_ns = 0;  // one row of a prompt: a moving mean
    uint64_t bytes_in = 0, bytes_out = 0;
  };

  void receive(const PeerKey& from, Message message, Time now);
  void handle(const PeerKey& from, const Hello& hello, Time now);
  void handle(const PeerKey& from, const NotReady& message, Time now);
  void handle(const PeerKey& from, const StepFailed& message, Time now);
  void lost(const Membership::Lost& lost, Time now);
  void blame(const PeerKey& peer, const std::string& reason, Time now);
  void handle(const PeerKey& from, const Fetched& message, Time now);
  void handle(const PeerKey& from, const ArchiveProbe& answer, Time now);
  void ask_archives(Time now);
  void tell_archives() const;
  uint64_t archived_tokens() const;
  void give_up_probes(Time now);
  // Members that are not left out, in the order of a ring.
  std::vector<const Member*> able(Time now) const;
  // Those that a ring may be made of now: one that would have to fetch weights first is asked to, and left
  // out meanwhile if the others hold the model.
  std::vector<const Member*> candidates(Time now);
  std::vector<PeerStatus> peer_status(Time now) const;
  void fail_ring(std::string reason, Time now, std::optional<PeerKey> lost = std::nullopt);
  void check_overdue(Time now);
  // Whatever has become possible: form a ring, send a canary, send steps.
  void pump(Time now);
  void grow_if_idle(Time now);
  void start_canary(Time now);
  void finish(Pipeline::Finished finished, Time now);
  void count(const Pipeline::Finished& finished, Time now);
  uint32_t window() const;
  uint32_t prompt_rows() const;  // of the next step
  // How long a step may travel.
  Duration step_limit() const { return canaries_ > 0 ? options_.members.timeout : options_.step_timeout; }
  std::string where_it_stopped(StepId step) const;
  void collect_actions();
  StageStatus stage_status(uint32_t stage) const;

  const HeadOptions options_;
  Membership members_;
  Ring ring_;
  Probation probation_;
  Provision provision_;
  bool wishes_stale_ = false;  // members or what they have changed: weights may have to be asked for
  // What could not be fetched, for want of room perhaps, is asked for again then.
  Time fetch_again_ = Time::max();
  Time told_{};  // the newest time that an event brought
  Scheduler scheduler_;
  ArchiveProbes probes_;
  std::optional<Pipeline> pipeline_;  // of the epoch, once the canary goes
  uint32_t canaries_ = 0;             // on their way
  uint32_t useless_canaries_ = 0;
  std::string useless_reason_;
  bool growing_ = false;     // between two rings, on purpose
  uint64_t considered_ = 0;  // how many had joined when growing was last considered
  std::vector<HeadAction> actions_;
  std::vector<StageTotals> totals_;  // by stage
  double way_ns_ = 0;                // round the ring without waiting in queues: a moving mean
  double links_ns_ = 0;
  RateMeter prompt_rate_, token_rate_;
  uint64_t prompt_tokens_ = 0, generated_tokens_ = 0, wire_bytes_ = 0;
};

}  // namespace caravan
