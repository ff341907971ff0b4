#include "daemon/peer_process.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/addresses.h"
#include "daemon/defaults.h"
#include "daemon/head_process.h"
#include "daemon/link_options.h"
#include "peers/endpoint.h"
#include "store/rocks_store.h"

namespace caravan {

PeerProcess::PeerProcess(EventLoop& loop, const Clock& clock, Random& random, const Config& config,
                         Manifest manifest, Ticket ticket, Options options, LoadProgress progress,
                         Ended ended)
    : loop_(loop),
      clock_(clock),
      random_(random),
      ticket_(std::move(ticket)),
      options_(std::move(options)),
      ended_(std::move(ended)),
      engine_(std::make_unique<Engine>(std::move(manifest), engine_options(config, options_.sharers))) {
  const std::string state = state_folder(config);
  pins_ = std::make_unique<Pins>(RocksStore(state, {"pins"}).family("pins"));
  keys_ = load_or_create_keys(state, random);
  make_link(config, keys_);
  thread_ = std::make_unique<ComputeThread>();
  stage_runner_ = std::make_unique<LocalStageRunner>(
      *engine_, *thread_, clock, std::move(progress), [this](LocalStageRunner::Event event) {
        std::visit([this](auto&& done) { driver_->post(std::move(done)); }, std::move(event));
      });
  NodeOptions node;
  node.self = keys_.public_key;
  node.stage.emplace();
  node.stage->self = keys_.public_key;
  node.stage->head = ticket_.head;
  node.stage->head_endpoints = ticket_.endpoints;
  node.stage->hello = make_hello(*engine_, options_.name, random.next(), engine_->measure_layer_ns(),
                                 reachable_endpoints(link_->endpoints()));
  driver_ = std::make_unique<NodeDriver>(loop, clock, std::move(node));
}

PeerProcess::~PeerProcess() {
  driver_->stop();
  link_.reset();
  engine_->leave_disk();
  thread_.reset();
}

void PeerProcess::make_link(const Config& config, const KeyPair& keys) {
  ZmqLinkOptions options =
      link_options(keys, options_.name, to_string(parse_endpoint(options_.listen, true)), config);
  options.allowed = {ticket_.head};
  ZmqLinkCallbacks callbacks;
  callbacks.event = [this](LinkEvent event) {
    loop_.post([this, event = std::move(event)]() mutable { on_link(std::move(event)); });
  };
  callbacks.enrolled = [this](const PeerKey& head, const std::string& reason) {
    loop_.post([this, head, reason] { on_enrolled(head, reason); });
  };
  link_ = std::make_unique<ZmqLink>(std::move(options), clock_, random_, std::move(callbacks));
}

void PeerProcess::start() {
  if (pins_->find(ticket_.head)) return greet();
  link_->enrol(ticket_);
}

void PeerProcess::on_enrolled(const PeerKey& head, const std::string& reason) {
  if (!reason.empty()) {
    if (!std::exchange(told_, true))
      ended_(Error(ErrorCode::kRefused, "the head did not admit this peer: " + reason));
    return;
  }
  pins_->pin(head, "head");
  greet();
}

void PeerProcess::greet() {
  driver_->on_change([this] {
    check_refused();
    tell_part();
  });
  driver_->start({link_.get(), stage_runner_.get(), nullptr});
}

void PeerProcess::on_link(LinkEvent event) {
  // The head names who the neighbours are; they may connect from now on.
  if (const auto* received = std::get_if<Received>(&event); received && received->from == ticket_.head)
    if (const auto* assign = std::get_if<Assign>(&received->message))
      for (const RouteStage& stage : assign->route)
        if (stage.peer != keys_.public_key) link_->allow(stage.peer);
  driver_->post(std::move(event));
}

void PeerProcess::check_refused() {
  const StageHost* stage = driver_->node().stage();
  if (stage->state() == StageHost::State::kRefused && !std::exchange(told_, true))
    ended_(Error(ErrorCode::kRefused, "the head refused this peer: " + stage->reason()));
}

// What this peer does in the ring now, when it is not what was told before.
void PeerProcess::tell_part() {
  if (!options_.tell) return;
  const StageHost& stage = *driver_->node().stage();
  const auto& assign = stage.assignment();
  std::string part;
  switch (stage.state()) {
    case StageHost::State::kAlone:
    case StageHost::State::kGreeting:
      part = part_.empty() ? "" : "the head is out of reach; still trying";
      break;
    case StageHost::State::kIdle:
      part = "in the ring as " + options_.name + ", without layers for now; Ctrl-C ends";
      break;
    case StageHost::State::kReady: {
      const UnitSpan span = assign->route[assign->stage].span;
      part = fmt::format("in the ring as {}, hosts layers {} to {}; Ctrl-C ends", options_.name, span.first,
                         span.last - 1);
      break;
    }
    case StageHost::State::kFailed:
      part = "this stage failed: " + stage.reason();
      break;
    case StageHost::State::kForming:
    case StageHost::State::kRefused:
      return;
  }
  if (part == part_) return;
  part_ = part;
  options_.tell(part);
}

}  // namespace caravan
