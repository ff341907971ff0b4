#include "daemon/node.h"

#include <algorithm>

#include "base/check.h"

namespace caravan {

Node::Node(NodeOptions options) : self_(options.self) {
  if (options.head) head_.emplace(std::move(*options.head));
  if (options.stage) stage_.emplace(std::move(*options.stage));
}

void Node::start(Time now) {
  if (stage_) stage_->start(now);
  if (head_) head_->tick(now);
  settle(now);
}

void Node::on(const LinkEvent& event, Time now) {
  const auto* received = std::get_if<Received>(&event);
  const bool to_head = head_ && (received == nullptr || is_for_head(received->message));
  const bool to_stage = stage_ && (received == nullptr || !to_head);
  if (to_head) head_->on(event, now);
  if (to_stage) stage_->on(event, now);
  settle(now);
}

void Node::on(const StagePrepared& event, Time now) {
  if (stage_) stage_->on(event, now);
  settle(now);
}

void Node::on(const UnitsFetched& event, Time now) {
  if (stage_) stage_->on(event, now);
  settle(now);
}

void Node::on(StepDone event, Time now) {
  if (stage_) stage_->on(std::move(event), now);
  settle(now);
}

void Node::on(ArchiveFound event, Time now) {
  if (stage_) stage_->on(std::move(event), now);
  settle(now);
}

void Node::on(EmbedDone event, Time now) {
  if (head_) head_->on(std::move(event), now);
  settle(now);
}

void Node::on(OutputDone event, Time now) {
  if (head_) head_->on(std::move(event), now);
  settle(now);
}

void Node::send_failed(const PeerKey& to, const Message& message, Time now) {
  const auto* step = std::get_if<Step>(&message);
  // Steps for stage 0 come from the head; a head's stage sends them on to others.
  const auto& assign = head_ ? head_->ring().assignment() : std::nullopt;
  if (step != nullptr && assign && assign->ring == step->ring && assign->route.front().peer == to)
    head_->on(LinkDown{to, "its queue is full"}, now);
  else if (stage_)
    stage_->send_failed(to, message, now);
  settle(now);
}

void Node::tick(Time now) {
  if (stage_) stage_->tick(now);
  if (head_) head_->tick(now);
  settle(now);
}

Time Node::next_tick() const {
  return std::min(stage_ ? stage_->next_tick() : Time::max(), head_ ? head_->next_tick() : Time::max());
}

RequestId Node::submit(TokenRequest request, Time now) {
  CHECK(head_.has_value());
  const RequestId id = head_->submit(std::move(request), now);
  settle(now);
  return id;
}

void Node::cancel(RequestId request, Time now) {
  CHECK(head_.has_value());
  head_->cancel(request, now);
  settle(now);
}

void Node::settle(Time now) {
  for (collect(); !local_.empty(); collect()) {
    const Local next = std::move(local_.front());
    local_.pop_front();
    if (next.to_head) {
      if (head_) head_->on(next.event, now);
    } else if (stage_) {
      stage_->on(next.event, now);
    }
  }
}

void Node::collect() {
  const auto take = [this](auto actions, bool from_stage) {
    for (auto& action : actions) {
      std::visit(
          [&](auto& what) {
            using What = std::decay_t<decltype(what)>;
            if constexpr (std::is_same_v<What, SendMessage>) {
              if (what.to == self_)
                return local_.push_back(Local{from_stage, Received{self_, std::move(what.message)}});
            } else if constexpr (std::is_same_v<What, ConnectPeer>) {
              if (what.peer == self_) return local_.push_back({false, LinkUp{self_}});
            } else if constexpr (std::is_same_v<What, DisconnectPeer>) {
              if (what.peer == self_) return;
            }
            actions_.emplace_back(std::move(what));
          },
          action);
    }
  };
  if (stage_) take(stage_->take_actions(), true);
  if (head_) take(head_->take_actions(), false);
}

}  // namespace caravan
