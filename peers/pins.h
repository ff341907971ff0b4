#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/key_value.h"
#include "peers/ticket.h"

namespace caravan {

struct Pin {
  PeerKey key;
  std::string name;  // for people
};

// The peers that may connect, and the tickets that are still good for one more. Kept in a KeyValue, so both
// outlive the process. Any thread, one at a time for writes; throws what the store throws, and kMalformed for
// records that are none of ours.
class Pins {
 public:
  explicit Pins(std::shared_ptr<KeyValue> store) : store_(std::move(store)) {}

  void pin(const PeerKey& key, const std::string& name);
  void unpin(const PeerKey& key);
  std::optional<Pin> find(const PeerKey& key) const;
  std::vector<Pin> all() const;

  void add_ticket(const OpenTicket& ticket);
  void spend_ticket(const PeerKey& one_time_key);
  // Without the expired ones, which are forgotten by this.
  std::vector<OpenTicket> open_tickets(int64_t now_unix);

 private:
  std::shared_ptr<KeyValue> store_;
};

}  // namespace caravan
