#include "peers/zmq_link.h"

#include <utility>

#include "base/limits.h"
#include "peers/wire_thread.h"

namespace caravan {

struct ZmqLink::State {
  WireThread wire;
};

ZmqLink::ZmqLink(ZmqLinkOptions options, const Clock& clock, Random& random, ZmqLinkCallbacks callbacks)
    : state_(new State{{std::move(options), clock, random, std::move(callbacks)}}) {}

ZmqLink::~ZmqLink() = default;

const std::vector<std::string>& ZmqLink::endpoints() const {
  return state_->wire.endpoints();
}

void ZmqLink::connect(const PeerKey& peer, const std::vector<std::string>& endpoints) {
  state_->wire.post(ConnectCommand{peer, endpoints});
}

void ZmqLink::disconnect(const PeerKey& peer) {
  state_->wire.post(DisconnectCommand{peer});
}

bool ZmqLink::send(const PeerKey& peer, Message message) {
  const auto outbox = state_->wire.outbox(peer);
  const size_t bytes = queue_bytes(message);
  const uint64_t queued = outbox->bytes;
  // One message of any size always fits an empty queue.
  if (!outbox->is_up || outbox->messages >= limits::kMaxQueuedMessages ||
      (queued > 0 && queued + bytes > limits::kMaxQueuedBytes))
    return false;
  outbox->messages += 1;
  outbox->bytes += bytes;
  if (state_->wire.try_post(SendCommand{peer, std::move(message)})) return true;
  outbox->messages -= 1;
  outbox->bytes -= bytes;
  return false;
}

void ZmqLink::allow(const PeerKey& peer) {
  state_->wire.post(AllowCommand{peer, true});
}

void ZmqLink::forbid(const PeerKey& peer) {
  state_->wire.post(AllowCommand{peer, false});
}

void ZmqLink::add_ticket(const OpenTicket& ticket) {
  state_->wire.post(ticket);
}

void ZmqLink::enrol(const Ticket& ticket) {
  state_->wire.post(ticket);
}

LinkTraffic ZmqLink::traffic(const PeerKey& peer) const {
  const auto outbox = state_->wire.outbox(peer);
  return {outbox->bytes_in.value(), outbox->bytes_out.value(), outbox->messages_in.value(),
          outbox->messages_out.value()};
}

uint64_t ZmqLink::refused_strangers() const {
  return state_->wire.refused_strangers();
}

}  // namespace caravan
