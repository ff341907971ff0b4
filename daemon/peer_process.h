#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/config.h"
#include "base/random.h"
#include "daemon/child_process.h"
#include "daemon/compute_thread.h"
#include "daemon/engine.h"
#include "daemon/event_loop.h"
#include "daemon/fetching_stage_runner.h"
#include "daemon/local_stage_runner.h"
#include "daemon/node_driver.h"
#include "daemon/shard_fetch.h"
#include "peers/pins.h"
#include "peers/ticket.h"
#include "peers/zmq_link.h"

namespace caravan {

// A peer that lends its machine to a head's ring: enrols with a ticket at first, greets the head, and hosts
// what it is assigned. Without a model of its own it first asks the head for the manifest, and fetches the
// weights of the units that it is to host. Control thread.
class PeerProcess {
 public:
  struct Options {
    std::string name;
    std::string listen;  // HOST:PORT
    uint32_t sharers = 1;
    std::string archive_folder;                         // empty: in the state folder
    std::string account_file;                           // empty: nobody asks
    std::function<void(const std::string& what)> tell;  // for people, whenever its part changes; may be empty
    LoadProgress fetch_progress;                        // may be empty
  };
  // Called once when the peer cannot go on (refused, the ticket is no good).
  using Ended = std::function<void(const Error& reason)>;

  // Throws as Engine and ZmqLink; kIo naming --state.
  PeerProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
              std::optional<Manifest> manifest, Ticket ticket, Options options, LoadProgress progress,
              Ended ended);
  ~PeerProcess();
  void start();
  const Saving& saving() const { return saving_; }

 private:
  void make_link(const Config& config, const KeyPair& keys);
  void on_link(LinkEvent event);
  void on_enrolled(const PeerKey& head, const std::string& reason);
  // Makes engine, runners and control objects. `model`: its fingerprint.
  void host(Manifest manifest, const Hash256& model);
  void refuse_small_disk(const Manifest& manifest) const;
  void fetch_manifest();
  void measure();
  void await_measurements();
  void greet();
  void tell_hashing();
  void check_refused();
  void tell_part();

  EventLoop& loop_;
  const Clock& clock_;
  Random& random_;
  const Config config_;
  const Ticket ticket_;
  const Options options_;
  const LoadProgress progress_;
  const Ended ended_;
  const Saving saving_ = std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Pins> pins_;
  KeyPair keys_;
  std::unique_ptr<ZmqLink> link_;
  std::shared_ptr<ShardStore> store_;  // of a peer without a model
  std::unique_ptr<ShardFetch> fetch_;
  std::unique_ptr<LocalStageRunner> stage_runner_;
  std::unique_ptr<FetchingStageRunner> fetching_runner_;
  std::unique_ptr<ComputeThread> thread_;
  std::unique_ptr<NodeDriver> driver_;
  std::optional<ChildProcess> calibration_;
  std::optional<TimerId> calibration_timer_;
  std::string small_offer_;  // for people, when the disk is what bounds it
  bool head_is_up_ = false;
  bool told_ = false;
  std::string part_;  // as it was told last
};

}  // namespace caravan
