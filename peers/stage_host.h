#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "peers/contract.h"
#include "peers/link.h"
#include "peers/sequence_table.h"
#include "peers/stage_runner.h"
#include "proto/messages.h"

namespace caravan {

// What control objects ask of their driver.
struct ConnectPeer {
  PeerKey peer;
  std::vector<std::string> endpoints;
};
struct DisconnectPeer {
  PeerKey peer;
};
struct SendMessage {
  PeerKey to;
  Message message;
};
struct RunSteps {
  std::vector<Step> steps;
};
struct ReleaseStage {
  RingId ring;
  EpochId epoch;
};
// A question to StageRunner::find_archived, which an ArchiveFound answers.
struct FindArchived {
  ArchiveProbe probe;
};
struct ArchiveFound {
  ArchiveProbe probe;
  ArchivedFound found;
};
using StageAction = std::variant<ConnectPeer, DisconnectPeer, SendMessage, StagePlan, RunSteps, ReleaseStage,
                                 FetchUnits, FindArchived, ArchiveLimit>;

struct StageHostOptions {
  PeerKey self;
  PeerKey head;  // pinned; may be `self`
  std::vector<std::string> head_endpoints;
  Hello hello;  // its incarnation is the first one, counted up with every connection
  Duration hello_retry = std::chrono::seconds(1);
  Duration contract_retry = std::chrono::milliseconds(100);
  // As RingOptions::awaited, of the head in this process.
  bool awaited = false;
};

// A peer's side of a ring: greets the head, takes its assignment, compares contracts with its neighbours,
// checks every step and passes results on. A state machine without clock, socket or thread: events go in with
// their time, actions come out in the order in which they must be done.
class StageHost {
 public:
  enum class State {
    kAlone,     // no connection to the head
    kGreeting,  // hello sent
    kIdle,      // welcome, without a ring
    kForming,   // assigned: weights load, neighbours compare contracts
    kReady,
    kFailed,  // this epoch cannot go on here; the head was told and will release it
    kRefused,
  };

  explicit StageHost(StageHostOptions options) : options_(std::move(options)) {}

  void start(Time now);
  void on(const LinkEvent& event, Time now);
  void on(const StagePrepared& event, Time now);
  void on(const UnitsFetched& event, Time now);
  void on(StepDone event, Time now);
  void on(ArchiveFound event, Time now);
  // What the heartbeats tell: so many bytes of weights are here of those that are being fetched. 0 of 0:
  // none.
  void tell_fetching(uint64_t bytes, uint64_t of) {
    fetched_bytes_ = bytes;
    fetch_bytes_ = of;
  }
  // The link did not take a message.
  void send_failed(const PeerKey& to, const Message& message, Time now);
  void tick(Time now);
  // When tick() has something to do; Time::max() when never.
  Time next_tick() const;
  std::vector<StageAction> take_actions() { return std::exchange(actions_, {}); }

  State state() const { return state_; }
  // Why it is refused, failed or alone; else empty.
  const std::string& reason() const { return reason_; }
  const std::optional<Assign>& assignment() const { return assign_; }
  size_t open_sequences() const { return sequences_ ? sequences_->size() : 0; }
  size_t queued_steps() const { return in_flight_.size(); }
  uint64_t kv_blocks_free() const { return kv_blocks_free_; }
  // Steps of another ring or epoch, or from a peer that is not the one before: dropped.
  uint64_t refused_steps() const { return refused_steps_; }

 private:
  // One end of the stage.
  struct Edge {
    uint32_t edge = 0;
    PeerKey peer;
    bool to_head = false;
    bool agreed = false;  // the other's hash came and is equal
    bool known = false;   // the other has seen ours equal
  };

  void receive(const PeerKey& from, const Message& message, Time now);
  void handle(const Welcome& welcome, Time now);
  void handle(const Refuse& refuse);
  void handle(const Heartbeat& heartbeat, Time now);
  void handle(const Assign& assign, Time now);
  void handle(const PeerKey& from, const Contract& contract);
  void handle(const Release& release);
  void handle(const Fetch& fetch);
  void handle(const PeerKey& from, const Step& step);
  void handle(const PeerKey& from, const ArchiveProbe& probe);
  void handle(const ArchiveLimit& limit);
  void link_down(const LinkDown& event, Time now);
  void greet(Time now);
  void reconnect(std::string reason, Time now);
  void leave_ring();
  std::optional<std::string> check(const Assign& assign) const;
  std::optional<std::string> check(const Step& step) const;
  void send_contract(const Edge& edge);
  void become_ready_if_agreed();
  // Tells the head that the epoch cannot go on, and waits for its release.
  void give_up(uint32_t edge, std::string reason);
  void fail_step(StepId step, std::string reason);
  void send_heartbeat(uint64_t echo_ns, Time now);
  void send(const PeerKey& to, Message message) {
    actions_.emplace_back(SendMessage{to, std::move(message)});
  }
  bool is_current(const RingId& ring, EpochId epoch) const {
    return assign_ && assign_->ring == ring && assign_->epoch == epoch;
  }
  OwnFacts own_facts() const {
    return {options_.self, options_.hello.model, options_.hello.numerics_class, options_.hello.weights};
  }
  bool serves() const { return state_ == State::kForming || state_ == State::kReady; }
  bool is_last() const { return assign_->stage + 1 == assign_->route.size(); }

  const StageHostOptions options_;
  State state_ = State::kAlone;
  std::string reason_;
  std::vector<StageAction> actions_;
  uint64_t connections_ = 0;
  bool was_ready_ = false;  // in any epoch

  // Of the head's welcome.
  RingId ring_;
  Duration heartbeat_{}, timeout_{};
  Time heard_{}, next_heartbeat_{}, next_hello_{}, ticked_{};

  // Of the epoch.
  std::optional<Assign> assign_;
  Hash256 contract_;
  Edge upstream_, downstream_;
  Time next_contract_{}, contract_deadline_{};
  bool prepared_ = false;
  uint64_t kv_blocks_ = 0, kv_blocks_free_ = 0;
  StageForecast forecast_;
  ArchiveRoom archive_;
  std::optional<SequenceTable> sequences_;
  std::deque<Step> in_flight_;  // given to the runner, without their rows
  StepId last_accepted_, last_finished_;

  uint64_t fetched_bytes_ = 0, fetch_bytes_ = 0;
  uint64_t refused_steps_ = 0;
};

}  // namespace caravan
