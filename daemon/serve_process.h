#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "base/random.h"
#include "daemon/event_loop.h"
#include "daemon/head_process.h"
#include "daemon/invitations.h"
#include "daemon/model_library.h"
#include "daemon/running.h"
#include "daemon/serving.h"
#include "daemon/shard_service.h"
#include "peers/pins.h"
#include "peers/zmq_link.h"

namespace caravan {

// What `serve` runs: a head that hosts layers itself, lets peers with tickets join, and serves the API.
// Control thread.
class ServeProcess {
 public:
  // Throws as HeadProcess, ZmqLink, Serving and RunningFile.
  // `reopen` opens the model once more, for peers that fetch it.
  ServeProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config, Manifest manifest,
               ShardService::Reopen reopen, StateStores stores, LoadProgress progress);
  ~ServeProcess();
  void start();
  HeadProcess& head() { return *head_; }
  std::string api_address() const { return serving_->address(); }
  // Where peers reach this head, separated by spaces.
  std::string wire_addresses() const;

 private:
  void make_link(const Config& config, const Clock& clock, Random& random);

  EventLoop& loop_;
  std::unique_ptr<Pins> pins_;
  KeyPair keys_;
  std::unique_ptr<HeadProcess> head_;
  std::unique_ptr<ZmqLink> link_;
  std::unique_ptr<ShardService> shards_;
  std::unique_ptr<Serving> serving_;
  std::unique_ptr<RunningFile> running_;
  std::unique_ptr<Invitations> invitations_;
};

}  // namespace caravan
