#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "proto/messages.h"

namespace caravan {

// A way to other peers. While a connection lasts, messages from one peer to another arrive whole and in
// order; when it ends, what was under way may be lost. Either side may have made the connection; both send on
// it. The control thread calls; events come to it as LinkEvent. Real: ZeroMQ; simulated: tests/sim.
class Link {
 public:
  virtual ~Link() = default;
  // Connects, and connects again after a loss, until disconnect(). The endpoints are tried in turn.
  virtual void connect(const PeerKey& peer, const std::vector<std::string>& endpoints) = 0;
  // Gives up what connect() made, without an event; a connection that the other side made stays.
  virtual void disconnect(const PeerKey& peer) = 0;
  // False when there is no connection or its queue holds limits::kMaxQueuedMessages; the message is dropped.
  virtual bool send(const PeerKey& peer, Message message) = 0;
};

// The first connection with a peer stands, and the last one is gone.
struct LinkUp {
  PeerKey peer;
};
struct LinkDown {
  PeerKey peer;
  std::string reason;
};
struct Received {
  PeerKey from;  // the key that the link has proven
  Message message;
};
using LinkEvent = std::variant<LinkUp, LinkDown, Received>;

}  // namespace caravan
