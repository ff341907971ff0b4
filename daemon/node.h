#pragma once

#include <deque>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "daemon/head.h"
#include "peers/stage_host.h"

namespace caravan {

using NodeAction = std::variant<ConnectPeer, DisconnectPeer, SendMessage, StagePlan, RunSteps, ReleaseStage,
                                FetchUnits, FindArchived, ArchiveLimit, EmbedJob, OutputJob, KeepCuts>;

struct NodeOptions {
  PeerKey self;
  std::optional<HeadOptions> head;        // heads a ring
  std::optional<StageHostOptions> stage;  // hosts stages; of its own head or of another's
};

// The control objects of one process, a head, a stage host or both, and the way between them: what one says
// to the other never leaves the process. The driver hands events in and does the actions in order, as told
// here:
//   ConnectPeer, DisconnectPeer, SendMessage  -> Link (a send that returns false: send_failed)
//   StagePlan, RunSteps, ReleaseStage, FetchUnits -> StageRunner prepare, submit, release, fetch
//   ArchiveLimit                              -> StageRunner limit_archive
//   FindArchived                              -> StageRunner find_archived, and its answer to on() at once
//   EmbedJob, OutputJob                       -> HeadRunner
//   KeepCuts                                  -> what outlives the process, for RingOptions::earlier of the
//   next
// and calls tick() no later than next_tick().
class Node {
 public:
  explicit Node(NodeOptions options);

  void start(Time now);
  void on(const LinkEvent& event, Time now);
  void on(const StagePrepared& event, Time now);
  void on(const UnitsFetched& event, Time now);
  void on(StepDone event, Time now);
  void on(ArchiveFound event, Time now);
  void on(EmbedDone event, Time now);
  void on(OutputDone event, Time now);
  void send_failed(const PeerKey& to, const Message& message, Time now);
  void tick(Time now);
  Time next_tick() const;
  std::vector<NodeAction> take_actions() { return std::exchange(actions_, {}); }

  // As Head's. Only with a head.
  RequestId submit(TokenRequest request, Time now);
  void cancel(RequestId request, Time now);
  std::vector<RequestEvent> take_events() { return head_->take_events(); }

  const Head* head() const { return head_ ? &*head_ : nullptr; }
  void tell_fetching(uint64_t bytes, uint64_t of) {
    if (stage_) stage_->tell_fetching(bytes, of);
  }
  const StageHost* stage() const { return stage_ ? &*stage_ : nullptr; }

 private:
  struct Local {
    bool to_head;
    LinkEvent event;
  };
  // Carries messages between the two until both are quiet.
  void settle(Time now);
  void collect();

  const PeerKey self_;
  std::optional<Head> head_;
  std::optional<StageHost> stage_;
  std::deque<Local> local_;
  std::vector<NodeAction> actions_;
};

}  // namespace caravan
