#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "peers/enrol.h"
#include "peers/ticket.h"

namespace caravan {

// Who may enter: pinned keys, and one-time keys of open tickets, these for enrolment alone. Strangers are
// counted and logged at a bounded rate. One thread.
class Doorkeeper {
 public:
  enum class Verdict { kPeer, kTicket, kStranger };

  void allow(const PeerKey& key) { allowed_.insert(key); }
  void forbid(const PeerKey& key) { allowed_.erase(key); }
  bool is_allowed(const PeerKey& key) const { return allowed_.count(key) > 0; }
  // At most limits::kMaxOpenTickets are kept: the one that expires first makes room.
  void add_ticket(const OpenTicket& ticket);
  Verdict judge(const PeerKey& key, int64_t now_unix) const;

  // The request of the holder of `one_time_key`: nothing when it is in order, else why not. Spends no ticket.
  std::optional<std::string> objection(const EnrolRequest& request, const PeerKey& one_time_key,
                                       const KeyPair& own, int64_t now_unix) const;
  void spend(const PeerKey& one_time_key) { tickets_.erase(one_time_key); }

  // Logs a refused key, or counts it towards the next line.
  void refuse(const PeerKey& key, const std::string& address, Time now);
  uint64_t refused() const { return refused_; }

 private:
  std::set<PeerKey> allowed_;
  std::map<PeerKey, OpenTicket> tickets_;  // by one-time key
  uint64_t refused_ = 0, unlogged_ = 0;
  Time next_line_{};
};

}  // namespace caravan
