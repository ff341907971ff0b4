// What a head has in memory of the weights that it gives away, over all peers that fetch at once.
#include "peers/shard_server.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "base/limits.h"

namespace caravan {
namespace {

constexpr uint64_t kContentBytes = 100u << 20;
constexpr uint32_t kRange = limits::kMaxShardRangeBytes;

PeerKey key_of(size_t number) {
  PeerKey key;
  key.bytes[0] = static_cast<uint8_t>(number + 1);
  return key;
}

// A server, a disk that reads one range at a time, and the links that what was read waits in. Counts bytes by
// itself.
class Giving {
 public:
  Giving() {
    ShardContents contents;
    contents.record = hash_;
    contents.bytes[hash_] = kContentBytes;
    server_.hashed(std::move(contents));
  }

  // Asks for as much as a peer may have asked for.
  void ask(size_t peer, uint32_t length = kRange) {
    while (server_.owed_bytes(key_of(peer)) + length <= limits::kMaxShardBytesOwed)
      server_.on(key_of(peer), ShardRequest{hash_, 0, length});
    settle();
  }
  void read_one() {
    if (reads_.empty()) return;
    const ReadShard what = reads_.front();
    reads_.pop_front();
    ShardRead done{what, {}, ""};
    for (uint32_t at = 0; at < what.length; at += limits::kShardPartBytes)
      done.parts.push_back(std::make_shared<const std::vector<std::byte>>(
          std::min<size_t>(limits::kShardPartBytes, what.length - at)));
    server_.on(std::move(done));
    settle();
  }
  void read_all() {
    while (!reads_.empty()) read_one();
  }
  // A part leaves the peer's link.
  bool take(size_t peer) {
    auto& link = links_[key_of(peer)];
    if (link.empty()) return false;
    const uint64_t bytes = link.front();
    link.pop_front();
    if (left_.count(key_of(peer)) == 0) held_ -= bytes;
    taken_[key_of(peer)] += bytes;
    server_.gone(key_of(peer), bytes);
    settle();
    return true;
  }
  // What its link has stays there for now.
  void lose(size_t peer) {
    for (const uint64_t bytes : links_[key_of(peer)]) held_ -= bytes;
    left_.insert(key_of(peer));
    server_.lost(key_of(peer));
    settle();
  }
  ShardServer& server() { return server_; }
  uint64_t held() const { return held_; }
  uint64_t most_held() const { return most_held_; }
  uint64_t taken(size_t peer) { return taken_[key_of(peer)]; }
  void settle() {
    for (auto& action : server_.take_actions()) {
      if (auto* read = std::get_if<ReadShard>(&action)) {
        reads_.push_back(*read);
        held_ += read->length;
      } else if (auto* send = std::get_if<SendMessage>(&action)) {
        links_[send->to].push_back(std::get<ShardBytes>(send->message).byte_count());
      }
    }
    most_held_ = std::max(most_held_, held_);
    EXPECT_EQ(server_.held_bytes(), held_);
  }

 private:
  const Hash256 hash_{};
  ShardServer server_;
  std::deque<ReadShard> reads_;
  std::map<PeerKey, std::deque<uint64_t>> links_;  // of parts
  std::map<PeerKey, uint64_t> taken_;
  std::set<PeerKey> left_;
  uint64_t held_ = 0, most_held_ = 0;
};

TEST(ShardServer, WhatManyPeersAreOwedIsBoundedAndTheyAreServedAlike) {
  for (const size_t peers : {1u, 3u, 12u, 40u}) {
    Giving giving;
    for (int round = 0; round < 200; ++round) {
      for (size_t peer = 0; peer < peers; ++peer) giving.ask(peer);
      giving.read_all();
      for (size_t peer = 0; peer < peers; ++peer) giving.take(peer);
    }
    EXPECT_LE(giving.most_held(), limits::kMostShardBytesHeld) << peers;
    EXPECT_GE(giving.most_held(), limits::kMostShardBytesHeld / 2) << peers << ": little would be slow";
    uint64_t least = UINT64_MAX, most = 0;
    for (size_t peer = 0; peer < peers; ++peer) {
      least = std::min(least, giving.taken(peer));
      most = std::max(most, giving.taken(peer));
    }
    EXPECT_GE(least * 3, most * 2) << peers;
    EXPECT_GT(least, 5 * uint64_t{kRange}) << peers;
  }
}

TEST(ShardServer, PeersThatDoNotReadLeaveRoomForTheOthers) {
  Giving giving;
  constexpr size_t kStuck = 3;
  for (size_t peer = 0; peer < kStuck; ++peer) {
    giving.ask(peer);
    giving.read_all();
  }
  const uint64_t stuck = giving.held();
  EXPECT_LT(stuck + kRange, limits::kMostShardBytesHeld);
  for (int round = 0; round < 100; ++round) {
    giving.ask(kStuck);
    giving.read_all();
    ASSERT_TRUE(giving.take(kStuck)) << round;
  }
  EXPECT_LE(giving.most_held(), limits::kMostShardBytesHeld);
  // The room of one that is lost is the others' at once: its link may keep what it has for as long as it
  // likes.
  const uint64_t before = giving.server().held_bytes(key_of(kStuck));
  giving.lose(0);
  giving.read_all();
  EXPECT_EQ(giving.server().held_bytes(key_of(0)), 0u);
  EXPECT_GT(giving.server().held_bytes(key_of(kStuck)), before);
  while (giving.take(0)) giving.read_all();
}

// Small ranges fit where a large one does not; it has its turn all the same.
TEST(ShardServer, ALargeRangeIsNotStarvedBySmallOnes) {
  Giving giving;
  constexpr size_t kSmall = 60;
  for (int round = 0; round < 400; ++round) {
    for (size_t peer = 0; peer < kSmall; ++peer) giving.ask(peer, limits::kFragmentBytes * 5);
    if (round > 20) giving.ask(kSmall);
    giving.read_one();
    for (size_t peer = 0; peer <= kSmall; ++peer)
      giving.take((peer + static_cast<size_t>(round)) % (kSmall + 1));
  }
  EXPECT_GT(giving.taken(kSmall), 3 * uint64_t{kRange});
  EXPECT_LE(giving.most_held(), limits::kMostShardBytesHeld);
}

TEST(ShardServer, HoldsNoMoreThanItsRoomAndAlwaysSome) {
  Giving giving;
  giving.server().set_room(0);
  for (size_t peer = 0; peer < 8; ++peer) giving.ask(peer);
  giving.read_all();
  EXPECT_LE(giving.most_held(), limits::kLeastShardBytesHeld);
  EXPECT_TRUE(giving.take(0)) << "somebody is served";
  giving.server().set_room(UINT64_MAX);
  giving.settle();
  giving.read_all();
  EXPECT_GT(giving.most_held(), limits::kLeastShardBytesHeld);
  EXPECT_LE(giving.most_held(), limits::kMostShardBytesHeld);
}

TEST(ShardServer, KnowsWhoAskedWhatThereIsUntilTheyAreLost) {
  ShardServer server;
  EXPECT_EQ(server.takers(), 0u);
  server.on(key_of(1), ManifestRequest{});
  server.on(key_of(1), ManifestRequest{});
  server.on(key_of(2), ManifestRequest{});
  EXPECT_EQ(server.takers(), 2u);
  server.lost(key_of(1));
  server.lost(key_of(3));
  EXPECT_EQ(server.takers(), 1u);
}

}  // namespace
}  // namespace caravan
