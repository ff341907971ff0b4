#include "daemon/serve_process.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "daemon/addresses.h"
#include "daemon/defaults.h"
#include "daemon/link_options.h"
#include "peers/endpoint.h"

namespace caravan {

namespace {

// Peers on other machines are the point of serving; strangers get nothing on this port.
constexpr const char* kDefaultListen = "0.0.0.0:7420";

}  // namespace

ServeProcess::ServeProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
                           Manifest manifest, ShardService::Reopen reopen, StateStores stores,
                           LoadProgress progress)
    : loop_(loop) {
  const std::string state = state_folder(config);
  pins_ = std::make_unique<Pins>(stores.pins);
  keys_ = load_or_create_keys(state, random);
  make_link(config, clock, random);
  HeadProcessOptions options;
  options.self = keys_.public_key;
  options.link = link_.get();
  options.kept = std::move(stores.pins);
  head_ = std::make_unique<HeadProcess>(loop, clock, random, config, std::move(manifest), options,
                                        std::move(progress));
  shards_ = std::make_unique<ShardService>(loop, clock, std::move(stores.shards), head_->engine().manifest(),
                                           std::move(reopen), *link_);
  shards_->take_memory(
      {[this](Bytes bytes) { head_->want_wire(bytes); }, [this] { return head_->engine().wire(); }});
  serving_ = std::make_unique<Serving>(loop, clock, random, config, *head_);
  running_ = std::make_unique<RunningFile>(
      state, RunningHead{::getpid(), serving_->address(), wire_addresses(), head_->name()});
  invitations_ = std::make_unique<Invitations>(loop, state, [this](const OpenTicket& ticket) {
    pins_->add_ticket(ticket);
    link_->add_ticket(ticket);
  });
}

ServeProcess::~ServeProcess() {
  invitations_.reset();
  running_.reset();
  serving_.reset();
  if (head_) head_->driver().stop();
  shards_.reset();
  link_.reset();
}

void ServeProcess::start() {
  head_->start();
}

std::string ServeProcess::wire_addresses() const {
  std::string text;
  for (const std::string& endpoint : reachable_endpoints(link_->endpoints()))
    text += (text.empty() ? "" : " ") + endpoint;
  return text;
}

void ServeProcess::make_link(const Config& config, const Clock& clock, Random& random) {
  ZmqLinkOptions options = link_options(
      keys_, "head", to_string(parse_endpoint(config.listen.empty() ? kDefaultListen : config.listen, true)),
      config);
  for (const Pin& pin : pins_->all()) options.allowed.push_back(pin.key);
  options.tickets = pins_->open_tickets(clock.unix_seconds());
  ZmqLinkCallbacks callbacks;
  callbacks.event = [this](LinkEvent event) {
    loop_.post([this, event = std::move(event)]() mutable {
      if (shards_ && shards_->on(event)) return;
      if (head_) head_->on_link(std::move(event));
    });
  };
  callbacks.admit = [this](const PeerKey& key, const std::string& name, const PeerKey& one_time_key) {
    pins_->pin(key, name);
    pins_->spend_ticket(one_time_key);
    log_info("admitted peer={} key={}", name, short_string(key));
  };
  link_ = std::make_unique<ZmqLink>(std::move(options), clock, random, std::move(callbacks));
}

}  // namespace caravan
