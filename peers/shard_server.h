#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/limits.h"
#include "peers/stage_host.h"
#include "proto/messages.h"

namespace caravan {

// What a head gives away: the content of a model's groups and of its manifest's record, by hash.
struct ShardContents {
  Hash256 model;   // fingerprint
  Hash256 record;  // the manifest's; its bytes are among `bytes`
  std::map<Hash256, uint64_t> bytes;
};

// What the server asks of its driver, beside SendMessage.
struct HashModel {};  // find the contents out; hashing(), then hashed() or unavailable() follow
struct ReadShard {    // ShardRead follows
  PeerKey to;
  Hash256 group;
  uint64_t offset = 0;
  uint32_t length = 0;
};
using ShardServerAction = std::variant<SendMessage, HashModel, ReadShard>;

struct ShardRead {
  ReadShard what;
  std::vector<SharedBytes> parts;  // limits::kShardPartBytes each, the last one perhaps less
  std::string error;               // why there are none; else empty
};

// A head's side of fetching: tells peers what there is, checks what they ask for, and reads for all of them
// in turn, a few ranges at a time. A peer that asks for more than limits::kMaxShardBytesOwed, or for what is
// not there, harms nobody else. What was read and has not left memory is bounded over all peers together, and
// a peer has no more of it than is free: one alone half of it, n of them one part in n + 1 each, so that one
// whose link is slow leaves room for the others. A state machine without clock, socket, file or thread.
class ShardServer {
 public:
  // ManifestRequest and ShardRequest; others are ignored.
  void on(const PeerKey& from, const Message& message);
  void on(ShardRead event);
  // Bytes that were sent to a peer have left this process's memory, or were dropped.
  void gone(const PeerKey& to, uint64_t bytes);
  // The connection is gone, and with it what the peer asked for.
  void lost(const PeerKey& peer);

  void hashing(uint64_t bytes, uint64_t total);
  void hashed(ShardContents contents);
  void unavailable(std::string reason);
  // How much of what was read may be in memory; kept within limits::kLeast- and kMostShardBytesHeld.
  void set_room(uint64_t bytes);

  std::vector<ShardServerAction> take_actions() { return std::exchange(actions_, {}); }
  // Ranges that were asked for and not served, by reason of what the asker did.
  uint64_t refused() const { return refused_; }
  uint64_t owed_bytes(const PeerKey& peer) const;
  // Being read, or read and not gone.
  uint64_t held_bytes() const { return held_bytes_; }
  uint64_t held_bytes(const PeerKey& peer) const;
  // Peers that asked what there is and are still connected.
  size_t takers() const { return takers_.size(); }

 private:
  struct Client {
    std::deque<ShardRequest> waiting;
    uint64_t owed_bytes = 0;  // of what waits and what is being read
    uint64_t held_bytes = 0;  // of what is being read, or was and is not gone
    uint64_t left_bytes = 0;  // the same, of a connection that is lost: nobody waits for it to go
  };
  using Clients = std::map<PeerKey, Client>;
  void handle(const PeerKey& from, const ShardRequest& request);
  void tell_manifest(const PeerKey& to);
  void refuse(const PeerKey& to, const ShardRequest& request, std::string reason);
  void read_next();
  Clients::iterator next_in_turn();
  void forget_if_done(Clients::iterator client);

  std::optional<ShardContents> contents_;
  bool asked_ = false;  // for the contents
  std::string unavailable_;
  uint64_t hashed_bytes_ = 0, total_bytes_ = 0;
  Clients clients_;
  std::set<PeerKey> takers_;
  PeerKey served_;  // whose turn it was last
  uint32_t reading_ = 0;
  uint64_t room_bytes_ = limits::kMostShardBytesHeld;
  uint64_t held_bytes_ = 0;  // of all clients
  uint64_t refused_ = 0;
  std::vector<ShardServerAction> actions_;
};

}  // namespace caravan
