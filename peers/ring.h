#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "peers/contract.h"
#include "peers/cut.h"
#include "peers/earlier_cuts.h"
#include "peers/membership.h"
#include "peers/stage_host.h"
#include "proto/messages.h"

namespace caravan {

enum class CutMode : uint8_t {
  kByCost,  // by what peers announce
  kEven,
};

struct RingOptions {
  PeerKey self;  // the head
  RingId id;
  Hash256 model;
  std::string numerics_class;     // of the head
  Hash256 weights;                // of the head, as Hello has it
  std::vector<LayerCost> layers;  // units 1 to L
  CutMode mode = CutMode::kByCost;
  std::vector<EarlierCut> earlier = {};  // of this model, the newest first: whole, as decode_cuts gives them
  uint32_t min_peers = 1;                // that must be there before the first ring
  CodecId codec = CodecId::kBf16;
  uint8_t kv_type = 0;
  uint32_t context = 0;
  uint32_t max_sequences = 0;
  uint32_t max_rows = 0;
  Duration timeout = std::chrono::seconds(10);  // until the head's neighbours must agree
  Duration contract_retry = std::chrono::milliseconds(100);
  Duration first_backoff = std::chrono::milliseconds(200);  // after a failure, doubled up to the last
  Duration last_backoff = std::chrono::seconds(5);
  // Someone waits for the first ring, and tells why it does not come: until then failures are no warnings.
  bool awaited = false;
};

// The head's side of a ring: chooses the route of an epoch from the members, hands out assignments, compares
// contracts with its two neighbours and knows which stages are ready. A state machine like StageHost.
class Ring {
 public:
  enum class State {
    kNone,     // no route
    kForming,  // assigned; stages load and compare contracts
    kAgreed,   // every stage is ready and the head's neighbours agree: a canary may go
    kReady,    // the canary came back
  };

  explicit Ring(RingOptions options) : options_(std::move(options)), earlier_(options_.earlier) {}

  // Makes an epoch if there is none and the members can cover the layers; else keeps the reason.
  void form(const std::vector<const Member*>& members, Time now);
  // The stages that these members would make; none when they do not hold the layers.
  std::vector<RouteStage> route(const std::vector<const Member*>& members) const;
  // Whether other members than the route's would make a better ring: more even, or the slowest stage 10 %
  // faster, or merely faster if it was the ring of just these members before.
  bool could_grow(const std::vector<const Member*>& members) const;

  // What stages say. True when it counted (a message of another epoch does not).
  bool on(const PeerKey& from, const Ready& ready);
  bool on(const PeerKey& from, const Contract& contract);
  void tick(Time now);
  Time next_tick() const;

  // Whether earlier_cuts() changed by that, and should be kept.
  bool canary_returned();
  const std::vector<EarlierCut>& earlier_cuts() const { return earlier_; }
  // Releases every stage, `lost` excepted; the next form() waits for the backoff.
  void fail(std::string reason, Time now, std::optional<PeerKey> lost = std::nullopt);
  // Ends the epoch without blame, to form another one at once.
  void dissolve(const std::string& reason);

  State state() const { return state_; }
  // How a failure is logged.
  LogLevel failure_level() const {
    return options_.awaited && !formed_ ? LogLevel::kInfo : LogLevel::kWarning;
  }
  // All the members that were asked for are here, and their memory is not enough.
  bool too_large() const { return too_large_; }
  // Why there is no ready ring; empty when it is ready.
  const std::string& reason() const { return reason_; }
  // Something the head's own edges found: the epoch must fail. Empty when all is well.
  const std::string& broken() const { return broken_; }
  const std::optional<Assign>& assignment() const { return assign_; }  // `stage` means nothing here
  bool is_current(const RingId& ring, EpochId epoch) const {
    return assign_ && assign_->ring == ring && assign_->epoch == epoch;
  }
  std::optional<uint32_t> stage_of(const PeerKey& peer) const;
  // The stage in the head's own process.
  std::optional<uint32_t> own_stage() const { return stage_of(options_.self); }
  bool stage_ready(uint32_t stage) const { return stages_[stage].ready; }
  const StageForecast& stage_forecast(uint32_t stage) const { return stages_[stage].forecast; }
  // Of the stage that has the fewest.
  uint64_t kv_blocks() const;
  // That every stage has.
  ArchiveRoom archive_room() const;
  // Whose archive has the least room; nothing while nobody said.
  std::optional<std::string> least_archive() const;
  // "edge 1, from a to b".
  std::string describe_edge(uint32_t edge) const;
  bool exact() const;  // every cut is lossless and every peer of one numerics class
  std::vector<StageAction> take_actions() { return std::exchange(actions_, {}); }

 private:
  struct Stage {
    bool ready = false;
    uint64_t kv_blocks = 0;
    StageForecast forecast;
    ArchiveRoom archive;
  };
  struct Edge {
    bool agreed = false;  // the stage's hash came and is equal
    bool known = false;   // the stage has seen ours equal
  };
  struct Choice {
    std::vector<const Member*> members;  // in the ring's order
    std::vector<UnitSpan> spans;         // theirs, some of them empty; none when the layers do not fit
    double slowest_ns = 0;               // of one row
    bool is_earlier = false;             // the ring of just these members had this cut before
  };
  Choice choose(const std::vector<const Member*>& members) const;
  Choice choose_best(const std::vector<const Member*>& members) const;
  std::optional<Choice> choose_earlier(const std::vector<const Member*>& members) const;
  static std::vector<RouteStage> stages_of(const Choice& choice);
  void send_contract(uint32_t edge);
  void agree_if_complete();
  void release(const std::string& reason, std::optional<PeerKey> lost);
  Edge& edge(uint32_t index) { return index == 0 ? first_ : last_; }
  uint32_t last_edge() const { return static_cast<uint32_t>(assign_->route.size()); }
  void send(const PeerKey& to, Message message) {
    actions_.emplace_back(SendMessage{to, std::move(message)});
  }

  const RingOptions options_;
  State state_ = State::kNone;
  bool too_large_ = false;
  std::string reason_ = "no peers yet", broken_;
  std::vector<StageAction> actions_;
  EpochId epoch_;
  bool formed_ = false;  // once ready: fewer than min_peers may then go on
  std::optional<Time> retry_at_;
  Duration backoff_{};
  std::vector<EarlierCut> earlier_;  // the newest first

  std::optional<Assign> assign_;
  EarlierCut cut_;         // of assign_
  double slowest_ns_ = 0;  // that it was chosen for
  Hash256 contract_;
  std::vector<Stage> stages_;
  Edge first_, last_;
  Time next_contract_{}, contract_deadline_{};
};

}  // namespace caravan
