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
// counted; they, and peers that break the protocol, are logged at a bounded rate each. One thread.
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

  // Logs what a peer did, such as one of another version, which tries again and again; or counts it towards
  // the next line.
  void tell_broken(const PeerKey& key, const std::string& reason, Time now);
  // The same for a refused key.
  void refuse(const PeerKey& key, const std::string& address, Time now);
  uint64_t refused() const { return refused_; }

 private:
  // Of one kind of line.
  struct Rate {
    uint64_t left_out = 0;  // since the last line
    Time next{};
    // How many were left out before it; nothing when it is to be left out itself.
    std::optional<uint64_t> take(Time now);
  };

  std::set<PeerKey> allowed_;
  std::map<PeerKey, OpenTicket> tickets_;  // by one-time key
  uint64_t refused_ = 0;
  Rate strangers_, broken_;
};

}  // namespace caravan
