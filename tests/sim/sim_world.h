#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "daemon/node.h"
#include "tests/sim/hash_model.h"

namespace caravan {

struct SimConfig {
  uint64_t seed = 1;
  uint32_t layers = 6;
  CutMode mode = CutMode::kEven;
  // In each life a process measures row_time up to this share off.
  double measured_off = 0;
  bool keeps_cuts = true;  // the head's state folder outlives it
  uint32_t min_peers = 1;
  bool head_hosts_stage = false;
  uint32_t vocabulary = 50;
  uint64_t kv_blocks = 1000;
  uint64_t peer_memory = 1000;  // a layer takes one
  uint32_t context = 256;
  uint32_t max_sequences = 32;
  uint32_t chunk_rows = 32;
  uint32_t window = 0;
  bool keep = false;  // sequences of ended requests
  CodecId codec = CodecId::kF32;
  bool archive = false;  // of every peer; of the head: tags and questions
  HashArchive::Faults archive_faults;
  std::map<uint32_t, uint64_t> archive_blocks;  // that a process has room for; else any number
  Duration archive_block_time = std::chrono::microseconds(50);  // that a stage needs to load one
  Duration probe_timeout = std::chrono::milliseconds(300);
  Duration latency = std::chrono::milliseconds(1);
  Duration jitter = std::chrono::milliseconds(1);
  Duration step_time = std::chrono::microseconds(500);   // of a stage, beside its rows
  Duration row_time = std::chrono::microseconds(20);     // one row through one layer
  std::set<uint32_t> fetching;                           // processes without the model's file
  Duration fetch_time = std::chrono::milliseconds(100);  // of one unit
  uint32_t fetch_failures = 0;                           // so many fetches beside a ring fail, at once
  Duration peer_timeout = std::chrono::seconds(10);
  Duration step_timeout = std::chrono::seconds(120);
};

// What a client saw of one request.
struct SimRequest {
  TokenRequest asked;
  std::vector<TokenId> tokens;
  std::vector<float> prompt_logits;
  std::optional<FinishReason> finish;
  std::optional<Error> error;
  bool cancelled = false;  // by the client, or its connection broke with the head
  Time submitted{}, ended{};
  Time first_token{};
  std::set<uint32_t> cuts;  // of the ring that gave it: HashModel::reference
  bool over() const { return finish || error || cancelled; }
};

// Processes, links and compute threads in simulated time, in one thread under a seed. It carries what the
// control objects say, late, and breaks things when told to; it decides nothing. Process 0 is the head.
class SimWorld {
 public:
  explicit SimWorld(SimConfig config);

  Time now() const { return now_; }
  void at(Time time, std::function<void()> what);
  void after(Duration delay, std::function<void()> what) { at(now_ + delay, std::move(what)); }
  void run_until(Time time);
  // Whether `done` came true before `time`.
  bool run_until(Time time, const std::function<bool()>& done);

  // Starts a process, or starts it anew.
  void start(uint32_t process);
  // `silent`: nobody is told that its connections are gone.
  void kill(uint32_t process, bool silent);
  void pause(uint32_t process, Duration duration);
  void break_link(uint32_t a, uint32_t b);
  void set_slowness(uint32_t process, double factor) { processes_[process].slowness = factor; }

  // Index of the request; its error is set at once when the head refuses it.
  size_t submit(TokenRequest request);
  void cancel(size_t request);

  const std::vector<SimRequest>& requests() const { return requests_; }
  bool all_over() const;
  bool alive(uint32_t process) const { return processes_.count(process) && processes_.at(process).node; }
  const Node& node(uint32_t process) const { return *processes_.at(process).node; }
  const Head& head() const { return *node(0).head(); }
  const HashStage* stage(uint32_t process) const { return processes_.at(process).stage.get(); }
  Duration busy(uint32_t process) const { return processes_.at(process).busy; }
  const HashModel& model() const { return model_; }
  uint32_t process_count() const { return static_cast<uint32_t>(processes_.size()); }
  uint64_t events() const { return events_; }
  PeerKey key(uint32_t process) const;
  // On the disk of a process: survives it.
  HashArchive& archive(uint32_t process) { return archives_.at(process); }
  // Asked of every message on the way; false loses it, which no real link does. For tests of the tests.
  std::function<bool(uint32_t from, uint32_t to, Message& message)> tamper;

 private:
  struct Process {
    std::unique_ptr<Node> node;
    uint64_t life = 0;
    Time paused_until{};
    std::deque<std::function<void(Node&)>> backlog;  // while paused
    std::set<uint32_t> dials;
    Time tick_at = Time::max();
    double slowness = 1;
    // Compute threads.
    std::unique_ptr<HashStage> stage;
    std::optional<StagePlan> plan;
    std::set<uint32_t> units;  // whose weights are on its disk
    Time stage_free{}, head_free{};
    Duration busy{};
    std::map<RequestId, size_t> requests;
    std::set<uint32_t> cuts;  // of its ring, or the last one
  };
  struct Connection {
    bool up = false;
    uint64_t generation = 0;
    bool told_up[2] = {false, false};  // the lower process, the higher one
    Time last_delivery[2] = {};
  };
  struct Event {
    Time time;
    uint64_t order;
    std::function<void()> what;
    bool operator<(const Event& other) const {
      return std::tie(time, order) > std::tie(other.time, other.order);
    }
  };

  NodeOptions options_of(uint32_t process, uint64_t life) const;
  HeadOptions head_options(uint64_t life) const;
  void deliver(uint32_t process, std::function<void(Node&)> what);
  void deliver_at(Time time, uint32_t process, std::function<void(Node&)> what);
  void drain(uint32_t process);
  void resume(uint32_t process);
  void schedule_tick(uint32_t process);
  void collect_events(Process& head);

  void act(uint32_t process, ConnectPeer& action);
  void act(uint32_t process, DisconnectPeer& action);
  void act(uint32_t process, SendMessage& action);
  void act(uint32_t process, StagePlan& action);
  void act(uint32_t process, RunSteps& action);
  void act(uint32_t process, ReleaseStage& action);
  void act(uint32_t process, FetchUnits& action);
  void act(uint32_t process, FindArchived& action);
  void act(uint32_t process, ArchiveLimit& action);
  // Time to fetch what is missing of a span, which is then there.
  ArchiveRoom archive_room(uint32_t process) const;
  Duration fetch(uint32_t process, UnitSpan span);
  void act(uint32_t process, EmbedJob& action);
  void act(uint32_t process, OutputJob& action);
  void act(uint32_t process, KeepCuts& action);
  void finish_step(uint32_t process, const Step& step, Duration compute, Duration queue);

  void try_connect(uint32_t from, uint32_t to);
  void establish(uint32_t a, uint32_t b);
  void take_down(uint32_t a, uint32_t b, bool tell_a, bool tell_b);
  void tell(uint32_t process, uint32_t other, bool up);
  Connection& connection(uint32_t a, uint32_t b) { return connections_[std::minmax(a, b)]; }
  uint32_t process_of(const PeerKey& key) const { return key.bytes[0] - 1u; }
  Duration delay();
  static size_t side(uint32_t self, uint32_t other) { return self < other ? 0 : 1; }

  const SimConfig config_;
  SeededRandom random_;
  HashModel model_;
  Time now_{};
  uint64_t order_ = 0, events_ = 0;
  uint32_t failed_fetches_ = 0;
  std::priority_queue<Event> queue_;
  std::map<uint32_t, Process> processes_;
  std::map<uint32_t, HashArchive> archives_;
  std::string cuts_;  // as the head keeps them
  std::map<std::pair<uint32_t, uint32_t>, Connection> connections_;
  std::vector<SimRequest> requests_;
};

}  // namespace caravan
