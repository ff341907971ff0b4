#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/ids.h"

namespace caravan {

// Peers whose stage failed again and again are left out of rings for a while, which doubles each time, so
// that one broken machine cannot keep the others from working. A value that is told of events and time.
class Probation {
 public:
  static constexpr uint32_t kMostFailures = 3;  // in a row
  static constexpr Duration kFirstPause = std::chrono::seconds(60);
  static constexpr Duration kLongestPause = std::chrono::minutes(16);

  // A stage of this peer said that it cannot go on. True when it is left out from now on.
  bool failed(const PeerKey& peer, std::string reason, Time now);
  // A ring with this peer became ready.
  void worked(const PeerKey& peer) { records_.erase(peer); }
  // It started anew, or is gone.
  void forget(const PeerKey& peer) { records_.erase(peer); }

  bool is_out(const PeerKey& peer, Time now) const;
  // Why it is left out; empty when it is not.
  std::string reason(const PeerKey& peer, Time now) const;
  // When the next of those that are out may try again; Time::max() when none is.
  Time next_return(Time now) const;

 private:
  struct Record {
    uint32_t failures = 0;
    Duration pause{};
    Time out_until{};
    std::string reason;
  };
  std::map<PeerKey, Record> records_;
};

}  // namespace caravan
