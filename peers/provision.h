#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "base/ids.h"
#include "peers/membership.h"
#include "proto/messages.h"

namespace caravan {

// Which weights the members without a model file have, and which they were asked to fetch for a ring to come.
// A value that is told of events.
class Provision {
 public:
  bool has(const Member& member, UnitSpan span) const;
  // What to ask of the member; nothing when that was asked already.
  std::optional<Fetch> ask(const PeerKey& peer, const RingId& ring, UnitSpan span);
  bool is_asked(const PeerKey& peer) const { return asked_.count(peer) > 0; }
  // True when it is the answer to what was asked last; if it has a reason, the member may be asked anew.
  bool on(const PeerKey& from, const Fetched& fetched);
  // The member hosts these units: it has their weights. What it was asked for may have been dropped for them.
  void hosts(const PeerKey& peer, UnitSpan span);
  // What it was asked for may not come: it may be asked for the same again.
  void unask(const PeerKey& peer) { asked_.erase(peer); }
  void forget(const PeerKey& peer);

 private:
  std::map<PeerKey, Fetch> asked_;
  std::map<PeerKey, std::set<uint32_t>> units_;
  uint64_t plans_ = 0;
};

}  // namespace caravan
