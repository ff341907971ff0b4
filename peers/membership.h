#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "proto/messages.h"

namespace caravan {

struct Member {
  PeerKey key;
  Hello hello;
  uint64_t order = 0;  // of joining
  Time heard{};
  std::optional<Duration> round_trip;
  Heartbeat last;  // the newest one
};

struct MembershipOptions {
  PeerKey self;  // a stage in the head's own process is never silent
  RingId ring;
  std::string name;  // of the head
  Hash256 model;
  uint32_t layers = 0;
  Duration heartbeat = std::chrono::seconds(1);
  Duration timeout = std::chrono::seconds(10);
};

// Which peers a head may count on: they joined, are heard of, and have not left. Keys were admitted by the
// link before. A value that is told of events and time; the head draws the consequences.
class Membership {
 public:
  struct Greeting {
    Message reply;            // Welcome or Refuse
    bool is_new = false;      // joined now: whatever it held for a ring is gone
    bool was_member = false;  // under another incarnation: that one is lost
  };
  struct Lost {
    PeerKey key;
    std::string name, reason;
  };

  explicit Membership(MembershipOptions options) : options_(std::move(options)) {}

  Greeting greet(const PeerKey& from, const Hello& hello, Time now);
  // Any message of a member shows that it lives. False for a stranger.
  bool heard(const PeerKey& from, Time now);
  // The answer to send, if one is due.
  std::optional<Heartbeat> on(const PeerKey& from, const Heartbeat& heartbeat, Time now);
  std::optional<Lost> leave(const PeerKey& key, const std::string& reason);
  // Members that were silent for too long: removed.
  std::vector<Lost> tick(Time now);
  Time next_tick() const;

  const Member* find(const PeerKey& key) const;
  // In order of joining.
  std::vector<const Member*> members() const;
  size_t size() const { return members_.size(); }
  uint64_t joined() const { return joined_; }  // ever

 private:
  std::optional<std::string> objection(const Hello& hello) const;

  const MembershipOptions options_;
  std::map<PeerKey, Member> members_;
  uint64_t joined_ = 0;
  Time ticked_{};
};

}  // namespace caravan
