#include "daemon/node_driver.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace caravan {

NodeDriver::NodeDriver(EventLoop& loop, const Clock& clock, NodeOptions options)
    : loop_(loop), clock_(clock), node_(std::move(options)) {}

NodeDriver::~NodeDriver() {
  stop();
}

void NodeDriver::start(Parts parts) {
  parts_ = std::move(parts);
  node_.start(clock_.now());
  settle();
}

void NodeDriver::stop() {
  parts_.reset();
  requests_.clear();
  listener_ = nullptr;
  if (timer_) loop_.cancel(*timer_);
  timer_.reset();
}

RequestId NodeDriver::submit(TokenRequest request, std::function<void(RequestEvent)> on_event) {
  const RequestId id = node_.submit(std::move(request), clock_.now());
  requests_.emplace(id, std::move(on_event));
  // What follows from it is done after the caller has its id.
  loop_.post([this] {
    if (parts_) settle();
  });
  return id;
}

void NodeDriver::cancel(RequestId request) {
  requests_.erase(request);
  if (!parts_) return;
  node_.cancel(request, clock_.now());
  loop_.post([this] {
    if (parts_) settle();
  });
}

// Actions of the node may lead to further actions (a message that the link refused), and events to further
// requests.
void NodeDriver::settle() {
  for (auto actions = node_.take_actions(); !actions.empty(); actions = node_.take_actions())
    for (NodeAction& action : actions) perform(std::move(action));
  if (node_.head()) {
    for (RequestEvent& event : node_.take_events()) {
      const auto found = requests_.find(event.request);
      if (found == requests_.end()) continue;
      const bool last =
          std::holds_alternative<FinishReason>(event.what) || std::holds_alternative<Error>(event.what);
      // A copy, since the callee may cancel the request while it runs.
      const auto callback = found->second;
      if (last) requests_.erase(found);
      callback(std::move(event));
      if (!parts_) return;
    }
  }
  set_timer();
  if (listener_) listener_();
}

void NodeDriver::perform(NodeAction action) {
  std::visit(
      [this](auto&& what) {
        using What = std::decay_t<decltype(what)>;
        if constexpr (std::is_same_v<What, ConnectPeer>) {
          if (parts_->link) parts_->link->connect(what.peer, what.endpoints);
        } else if constexpr (std::is_same_v<What, DisconnectPeer>) {
          if (parts_->link) parts_->link->disconnect(what.peer);
        } else if constexpr (std::is_same_v<What, SendMessage>) {
          if (!parts_->link || !parts_->link->send(what.to, what.message))
            node_.send_failed(what.to, what.message, clock_.now());
        } else if constexpr (std::is_same_v<What, StagePlan>) {
          CHECK(parts_->stage_runner != nullptr);
          parts_->stage_runner->prepare(what);
        } else if constexpr (std::is_same_v<What, RunSteps>) {
          parts_->stage_runner->submit(std::move(what.steps));
        } else if constexpr (std::is_same_v<What, ReleaseStage>) {
          parts_->stage_runner->release(what.ring, what.epoch);
        } else if constexpr (std::is_same_v<What, FetchUnits>) {
          parts_->stage_runner->fetch(what);
        } else if constexpr (std::is_same_v<What, ArchiveLimit>) {
          parts_->stage_runner->limit_archive(what);
        } else if constexpr (std::is_same_v<What, FindArchived>) {
          const ArchivedFound found =
              parts_->stage_runner->find_archived(what.probe.ring, what.probe.epoch, what.probe.tags);
          node_.on(ArchiveFound{std::move(what.probe), found}, clock_.now());
        } else if constexpr (std::is_same_v<What, EmbedJob>) {
          CHECK(parts_->head_runner != nullptr);
          parts_->head_runner->embed(std::move(what));
        } else if constexpr (std::is_same_v<What, OutputJob>) {
          parts_->head_runner->output(std::move(what));
        } else {
          static_assert(std::is_same_v<What, KeepCuts>);
          if (parts_->keep_cuts) parts_->keep_cuts(what);
        }
      },
      std::move(action));
}

void NodeDriver::set_timer() {
  const Time next = node_.next_tick();
  if (timer_ && timer_at_ == next) return;
  if (timer_) loop_.cancel(*timer_);
  timer_.reset();
  timer_at_ = next;
  if (next == Time::max()) return;
  const Duration delay = std::max(Duration::zero(), next - clock_.now());
  timer_ = loop_.after(delay, [this] {
    timer_.reset();
    if (!parts_) return;
    node_.tick(clock_.now());
    settle();
  });
}

}  // namespace caravan
