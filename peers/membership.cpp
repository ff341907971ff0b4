#include "peers/membership.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/limits.h"

namespace caravan {

std::optional<std::string> Membership::objection(const Hello& hello) const {
  if (hello.protocol != kProtocolVersion)
    return fmt::format("the head speaks protocol {}, the peer {}", kProtocolVersion, hello.protocol);
  if (hello.model != options_.model)
    return fmt::format("the head runs model {}, the peer has {}", short_string(options_.model),
                       short_string(hello.model));
  if (hello.layers != options_.layers)
    return fmt::format("the model has {} layers, the peer says {}", options_.layers, hello.layers);
  return std::nullopt;
}

Membership::Greeting Membership::greet(const PeerKey& from, const Hello& hello, Time now) {
  Greeting greeting;
  const auto known = members_.find(from);
  auto refusal = objection(hello);
  if (!refusal && known == members_.end() && members_.size() >= limits::kMaxPeers)
    refusal = fmt::format("{} peers are here already", members_.size());
  const bool same = known != members_.end() && known->second.hello.incarnation == hello.incarnation;
  greeting.was_member = known != members_.end() && (!same || refusal);
  if (greeting.was_member) members_.erase(known);
  if (refusal) {
    greeting.reply = Refuse{*refusal};
    return greeting;
  }
  Welcome welcome;
  welcome.ring = options_.ring;
  welcome.name = options_.name;
  const Duration heartbeat = std::min(options_.heartbeat, options_.timeout / 4);
  welcome.heartbeat_ms = static_cast<uint32_t>(heartbeat / std::chrono::milliseconds(1));
  welcome.peer_timeout_ms = static_cast<uint32_t>(options_.timeout / std::chrono::milliseconds(1));
  greeting.reply = welcome;
  greeting.is_new = !same;
  if (!same) members_[from] = Member{from, hello, ++joined_, now, std::nullopt, {}};
  members_[from].heard = now;
  return greeting;
}

bool Membership::heard(const PeerKey& from, Time now) {
  const auto found = members_.find(from);
  if (found == members_.end()) return false;
  found->second.heard = now;
  return true;
}

std::optional<Heartbeat> Membership::on(const PeerKey& from, const Heartbeat& heartbeat, Time now) {
  const auto found = members_.find(from);
  if (found == members_.end()) return std::nullopt;
  found->second.last = heartbeat;
  // Never 0, which means that nothing is echoed.
  const auto now_ns = std::max<uint64_t>(1, static_cast<uint64_t>(now.time_since_epoch().count()));
  if (heartbeat.echo_ns != 0) {
    if (heartbeat.echo_ns <= now_ns) found->second.round_trip = Duration(now_ns - heartbeat.echo_ns);
    return std::nullopt;
  }
  // The head's own time goes with the echo: the peer sends it back with a heartbeat of its own.
  Heartbeat answer;
  answer.sent_ns = now_ns;
  answer.echo_ns = heartbeat.sent_ns;
  return answer;
}

std::optional<Membership::Lost> Membership::leave(const PeerKey& key, const std::string& reason) {
  const auto found = members_.find(key);
  if (found == members_.end()) return std::nullopt;
  Lost lost{key, found->second.hello.name, reason};
  members_.erase(found);
  return lost;
}

std::vector<Membership::Lost> Membership::tick(Time now) {
  const Duration slept = now - std::exchange(ticked_, now);
  std::vector<Lost> lost;
  for (auto it = members_.begin(); it != members_.end();) {
    Member& member = it->second;
    // After a pause of the head itself, what peers said meanwhile still waits to be read.
    if (slept > options_.timeout / 2) member.heard = std::max(member.heard, now - options_.timeout / 2);
    if (member.key != options_.self && now - member.heard >= options_.timeout) {
      lost.push_back({member.key, member.hello.name,
                      fmt::format("nothing heard for {:.1f} s", seconds(options_.timeout))});
      it = members_.erase(it);
    } else {
      ++it;
    }
  }
  return lost;
}

Time Membership::next_tick() const {
  if (members_.empty()) return Time::max();
  // Ticks are regular, so that a long gap between two shows a pause of the head itself.
  Time next = ticked_ + options_.timeout / 4;
  for (const auto& [key, member] : members_)
    if (key != options_.self) next = std::min(next, member.heard + options_.timeout);
  return next;
}

const Member* Membership::find(const PeerKey& key) const {
  const auto found = members_.find(key);
  return found == members_.end() ? nullptr : &found->second;
}

std::vector<const Member*> Membership::members() const {
  std::vector<const Member*> members;
  for (const auto& [key, member] : members_) members.push_back(&member);
  std::sort(members.begin(), members.end(),
            [](const Member* a, const Member* b) { return a->order < b->order; });
  return members;
}

}  // namespace caravan
