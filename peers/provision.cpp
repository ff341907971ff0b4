#include "peers/provision.h"

namespace caravan {

bool Provision::has(const Member& member, UnitSpan span) const {
  if (!member.hello.fetches) return true;
  const auto found = units_.find(member.key);
  for (uint32_t unit = span.first; unit < span.last; ++unit)
    if (found == units_.end() || !found->second.count(unit)) return false;
  return true;
}

std::optional<Fetch> Provision::ask(const PeerKey& peer, const RingId& ring, UnitSpan span) {
  const auto known = asked_.find(peer);
  if (known != asked_.end() && known->second.span.first == span.first && known->second.span.last == span.last)
    return std::nullopt;
  const Fetch fetch{ring, ++plans_, span};
  asked_.insert_or_assign(peer, fetch);
  return fetch;
}

bool Provision::on(const PeerKey& from, const Fetched& fetched) {
  const auto asked = asked_.find(from);
  if (asked == asked_.end() || asked->second.plan != fetched.plan || asked->second.ring != fetched.ring)
    return false;
  const UnitSpan span = asked->second.span;
  asked_.erase(asked);
  if (fetched.reason.empty())
    for (uint32_t unit = span.first; unit < span.last; ++unit) units_[from].insert(unit);
  return true;
}

void Provision::hosts(const PeerKey& peer, UnitSpan span) {
  asked_.erase(peer);
  for (uint32_t unit = span.first; unit < span.last; ++unit) units_[peer].insert(unit);
}

void Provision::forget(const PeerKey& peer) {
  asked_.erase(peer);
  units_.erase(peer);
}

}  // namespace caravan
