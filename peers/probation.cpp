#include "peers/probation.h"

#include <algorithm>
#include <utility>

namespace caravan {

bool Probation::failed(const PeerKey& peer, std::string reason, Time now) {
  Record& record = records_[peer];
  record.reason = std::move(reason);
  if (++record.failures < kMostFailures) return false;
  record.pause = record.pause == Duration{} ? kFirstPause : std::min(2 * record.pause, kLongestPause);
  record.out_until = now + record.pause;
  // After the pause one more failure is enough.
  record.failures = kMostFailures - 1;
  return true;
}

bool Probation::is_out(const PeerKey& peer, Time now) const {
  const auto found = records_.find(peer);
  return found != records_.end() && now < found->second.out_until;
}

std::string Probation::reason(const PeerKey& peer, Time now) const {
  return is_out(peer, now) ? records_.at(peer).reason : "";
}

Time Probation::next_return(Time now) const {
  Time next = Time::max();
  for (const auto& [peer, record] : records_)
    if (now < record.out_until) next = std::min(next, record.out_until);
  return next;
}

}  // namespace caravan
