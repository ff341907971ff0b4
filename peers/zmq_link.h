#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/random.h"
#include "peers/keys.h"
#include "peers/link.h"
#include "peers/ticket.h"
#include "proto/encode.h"

namespace caravan {

struct ZmqLinkOptions {
  KeyPair keys;
  std::string name;                 // told to a head at enrolment
  std::vector<std::string> listen;  // endpoints; port 0 takes any free one
  std::vector<PeerKey> allowed;     // pinned peers
  std::vector<OpenTicket> tickets;
  DecodeOptions decode;
  int io_threads = 1;
  Duration heartbeat = std::chrono::milliseconds(500);  // between signs of life on a silent connection
  Duration timeout = std::chrono::seconds(3);           // without one the connection is lost
  Duration handshake = std::chrono::seconds(5);         // for a connection to be made
  Duration first_retry = std::chrono::milliseconds(20);
  Duration longest_retry = std::chrono::seconds(1);
};

// Called on the wire thread: they must return soon (post to a loop) and not throw, `admit` excepted.
struct ZmqLinkCallbacks {
  std::function<void(LinkEvent)> event;
  // A ticket's holder proved `key`: keep the pin and forget the ticket, durably, before the joiner is told.
  // An Error refuses the joiner and leaves the ticket good.
  std::function<void(const PeerKey& key, const std::string& name, const PeerKey& one_time_key)> admit;
  // The end of enrol(): an empty reason means that the head pinned this key, and connect() will be let in.
  std::function<void(const PeerKey& head, const std::string& reason)> enrolled;
};

// Of one neighbour, since the start; ZeroMQ's parts without its own framing.
struct LinkTraffic {
  uint64_t bytes_in = 0, bytes_out = 0;
  uint64_t messages_in = 0, messages_out = 0;
};

// Link over ZeroMQ with CURVE. A thread of its own owns every socket; the control thread's calls go to it
// through a bounded mailbox and never wait for the network. Only allowed keys get in; the sender of a message
// is the key that the handshake has proven. docs/PROTOCOL.md, "Transport".
class ZmqLink final : public Link {
 public:
  // Listens when it returns. Throws kIo naming the endpoint. The clock and the random source are used by the
  // wire thread, too, and outlive the link.
  ZmqLink(ZmqLinkOptions options, const Clock& clock, Random& random, ZmqLinkCallbacks callbacks);
  // Says goodbye to the neighbours and ends within half a second. No event comes after it.
  ~ZmqLink() override;
  ZmqLink(const ZmqLink&) = delete;
  ZmqLink& operator=(const ZmqLink&) = delete;

  // As bound, with their ports.
  const std::vector<std::string>& endpoints() const;

  void connect(const PeerKey& peer, const std::vector<std::string>& endpoints) override;
  void disconnect(const PeerKey& peer) override;
  bool send(const PeerKey& peer, Message message) override;

  // Lets the peer connect to us. connect() does not need it.
  void allow(const PeerKey& peer);
  // Ends its connections, too (LinkDown follows if there was one).
  void forbid(const PeerKey& peer);
  void add_ticket(const OpenTicket& ticket);
  // Shows the ticket to its head with the one-time key; callbacks.enrolled follows within `handshake` for
  // each address of the ticket. A peer that is pinned already needs none: a used ticket is refused.
  void enrol(const Ticket& ticket);

  LinkTraffic traffic(const PeerKey& peer) const;
  // Connections of unknown keys, since the start.
  uint64_t refused_strangers() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan
