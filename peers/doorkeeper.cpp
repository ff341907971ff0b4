#include "peers/doorkeeper.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/limits.h"
#include "base/log.h"

namespace caravan {

namespace {

constexpr std::chrono::milliseconds kLogInterval{200};

}  // namespace

void Doorkeeper::add_ticket(const OpenTicket& ticket) {
  tickets_[ticket.one_time_key] = ticket;
  if (tickets_.size() <= limits::kMaxOpenTickets) return;
  const auto end_of = [](const auto& entry) {
    const int64_t expires = entry.second.expires_unix;
    return expires == 0 ? std::numeric_limits<int64_t>::max() : expires;
  };
  tickets_.erase(std::min_element(tickets_.begin(), tickets_.end(),
                                  [&](const auto& a, const auto& b) { return end_of(a) < end_of(b); }));
}

Doorkeeper::Verdict Doorkeeper::judge(const PeerKey& key, int64_t now_unix) const {
  if (is_allowed(key)) return Verdict::kPeer;
  const auto ticket = tickets_.find(key);
  const bool is_good = ticket != tickets_.end() && !ticket->second.is_expired(now_unix);
  return is_good ? Verdict::kTicket : Verdict::kStranger;
}

std::optional<std::string> Doorkeeper::objection(const EnrolRequest& request, const PeerKey& one_time_key,
                                                 const KeyPair& own, int64_t now_unix) const {
  // A pinned key may not be used as a ticket, so that a one-time key can never be a peer.
  if (judge(one_time_key, now_unix) != Verdict::kTicket) return "the ticket is used or expired";
  if (!is_proven(request, own, one_time_key)) return "the joiner does not hold the key that it names";
  if (request.key == own.public_key) return "the joiner has this head's own key";
  if (tickets_.count(request.key)) return "the joiner names the one-time key of a ticket";
  return std::nullopt;
}

std::optional<uint64_t> Doorkeeper::Rate::take(Time now) {
  if (now < next) {
    ++left_out;
    return std::nullopt;
  }
  next = now + kLogInterval;
  return std::exchange(left_out, 0);
}

void Doorkeeper::tell_broken(const PeerKey& key, const std::string& reason, Time now) {
  if (const auto others = broken_.take(now))
    log_warning("protocol_broken peer={} reason=\"{}\" others_since={}", short_string(key), reason, *others);
}

void Doorkeeper::refuse(const PeerKey& key, const std::string& address, Time now) {
  ++refused_;
  if (const auto others = strangers_.take(now))
    log_warning("stranger_refused key={} address={} others_since={}", to_string(key), address, *others);
}

}  // namespace caravan
