#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "daemon/event_loop.h"
#include "daemon/head_runner.h"
#include "daemon/node.h"
#include "peers/link.h"
#include "peers/stage_runner.h"

namespace caravan {

// Feeds a process's control objects from the event loop and does what they ask: messages to the link, steps
// to the runners, timers for their ticks. All on the control thread; post() is for the others.
class NodeDriver {
 public:
  struct Parts {
    Link* link = nullptr;                                      // none: a process alone
    StageRunner* stage_runner = nullptr;                       // when the node hosts stages
    HeadRunner* head_runner = nullptr;                         // when it heads a ring
    std::function<void(const KeepCuts&)> keep_cuts = nullptr;  // none: they go with the process
  };
  NodeDriver(EventLoop& loop, const Clock& clock, NodeOptions options);
  ~NodeDriver();
  NodeDriver(const NodeDriver&) = delete;
  NodeDriver& operator=(const NodeDriver&) = delete;

  // The parts outlive the driver's use of them: stop() comes before they go.
  void start(Parts parts);
  void stop();

  // An event for the node, from any thread.
  template <class Event>
  void post(Event event) {
    loop_.post([this, event = std::move(event)]() mutable { deliver(std::move(event)); });
  }

  RequestId submit(TokenRequest request, std::function<void(RequestEvent)> on_event);
  void cancel(RequestId request);
  const Node& node() const { return node_; }
  // As StageHost's.
  void tell_fetching(uint64_t bytes, uint64_t of) { node_.tell_fetching(bytes, of); }
  // Called after every event, once everything that followed from it was done.
  void on_change(std::function<void()> listener) { listener_ = std::move(listener); }

 private:
  template <class Event>
  void deliver(Event event) {
    if (!parts_) return;
    node_.on(std::move(event), clock_.now());
    settle();
  }
  void settle();
  void perform(NodeAction action);
  void set_timer();

  EventLoop& loop_;
  const Clock& clock_;
  Node node_;
  std::optional<Parts> parts_;
  std::map<RequestId, std::function<void(RequestEvent)>> requests_;
  std::function<void()> listener_;
  std::optional<TimerId> timer_;
  Time timer_at_ = Time::max();
};

}  // namespace caravan
