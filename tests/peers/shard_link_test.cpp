// Weights on real links: they arrive whole through losses of the connection, and never hold a step up.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "base/hash.h"
#include "base/limits.h"
#include "peers/session.h"
#include "peers/shard_fetcher.h"
#include "peers/shard_server.h"
#include "tests/support/link_peer.h"

namespace caravan {
namespace {

using test::LinkPeer;
using test::step_of;
using namespace std::chrono_literals;
using Content = std::vector<std::byte>;

SharedBytes part_of(uint64_t seed, size_t bytes) {
  std::vector<uint8_t> drawn(bytes);
  SeededRandom random(seed);
  random.fill(drawn);
  const auto* data = reinterpret_cast<const std::byte*>(drawn.data());
  return std::make_shared<const Content>(data, data + bytes);
}

TEST(Session, PartsOfGroupsWaitForAllElseAndTakeHalfOfTheWindow) {
  Session session(1, {encoded_row_bytes});
  session.set_window(limits::kLinkWindowBytes);
  const SharedBytes bytes = part_of(1, limits::kFragmentBytes);
  const auto send = [&](const Message& message) {
    session.send(encode(message), Session::turn_of(message), queue_bytes(message));
  };
  for (uint64_t i = 0; i < 200; ++i) send(ShardBytes{{}, i * limits::kFragmentBytes, bytes});
  send(step_of(1, 1, 64));
  auto frame = session.next_frame();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->lane, Lane::kDecode) << "the step goes first";
  size_t under_way = 0, frames = 0;
  while ((frame = session.next_frame())) {
    EXPECT_EQ(frame->lane, Lane::kBulk);
    under_way += frame->first.size() + frame->bytes;
    ++frames;
  }
  EXPECT_LE(under_way, limits::kLinkWindowBytes / 2);
  EXPECT_GT(frames, 50u);
  EXPECT_EQ(session.waiting_messages(), 200 - frames);
  // The other half is there for steps, a long prompt's included.
  send(step_of(2, 64, 4096));
  while ((frame = session.next_frame())) frames += frame->ends_message;
  EXPECT_EQ(session.waiting_messages(), 200 + 1 - frames);
}

TEST(ShardLink, AStepDoesNotWaitBehindWeights) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  const SharedBytes bytes = part_of(1, limits::kFragmentBytes);
  constexpr size_t kParts = 900;
  for (uint64_t i = 0; i < kParts; ++i)
    ASSERT_TRUE(a.link->send(b.key(), ShardBytes{{}, i * limits::kFragmentBytes, bytes}));
  ASSERT_TRUE(a.link->send(b.key(), step_of(1, 1, 4096)));
  ASSERT_TRUE(b.log.wait_for<Received>(a.key(), kParts + 1));
  const auto received = b.log.received(a.key());
  const auto step = std::find_if(received.begin(), received.end(), [](const Received& one) {
    return std::holds_alternative<Step>(one.message);
  });
  EXPECT_LT(step - received.begin(), static_cast<std::ptrdiff_t>(kParts) - 200);
  uint64_t expected = 0;
  for (const Received& one : received)
    if (const auto* shard = std::get_if<ShardBytes>(&one.message)) {
      EXPECT_EQ(shard->offset, std::exchange(expected, expected + limits::kFragmentBytes))
          << "in their order";
    }
}

// Both ends of a fetch, fed by hand from what their links told.
class Fetching {
 public:
  Fetching(LinkPeer& head, LinkPeer& peer, const std::vector<SharedBytes>& contents)
      : head_(head), peer_(peer), fetcher_(options(head)) {
    ShardContents offered;
    for (const SharedBytes& content : contents) {
      const Hash256 hash = sha256(*content);
      contents_[hash] = content;
      offered.bytes[hash] = content->size();
      offered.record = hash;
      wanted_.push_back({hash, content->size(), "group", 0});
    }
    server_.hashed(std::move(offered));
  }
  static ShardFetcherOptions options(const LinkPeer& head) {
    ShardFetcherOptions options;
    options.from = head.key();
    options.patience = 300ms;
    return options;
  }

  bool run(std::chrono::seconds longest, const std::function<void()>& between) {
    const SystemClock clock;
    const Time end = clock.now() + longest;
    fetcher_.want(wanted_, clock.now());
    size_t seen_by_head = 0, seen_by_peer = 0;
    while (!fetcher_.is_done() && fetcher_.error().empty() && clock.now() < end) {
      for (const auto events = head_.log.events(); seen_by_head < events.size(); ++seen_by_head) {
        if (const auto* received = std::get_if<Received>(&events[seen_by_head]))
          server_.on(received->from, received->message);
        if (std::holds_alternative<LinkDown>(events[seen_by_head])) server_.lost(peer_.key());
      }
      serve();
      for (const auto events = peer_.log.events(); seen_by_peer < events.size(); ++seen_by_peer)
        fetcher_.on(events[seen_by_peer], clock.now());
      fetcher_.tick(clock.now());
      keep(clock.now());
      between();
      std::this_thread::sleep_for(1ms);
    }
    return fetcher_.is_done();
  }
  const ShardFetcher& fetcher() const { return fetcher_; }
  const std::map<Hash256, Content>& kept() const { return kept_; }

 private:
  void serve() {
    for (auto actions = server_.take_actions(); !actions.empty(); actions = server_.take_actions())
      for (auto& action : actions) {
        if (auto* send = std::get_if<SendMessage>(&action)) {
          head_.link->send(send->to, send->message);
          if (const auto* part = std::get_if<ShardBytes>(&send->message))
            server_.gone(send->to, part->byte_count());
        }
        const auto* read = std::get_if<ReadShard>(&action);
        if (!read) continue;
        ShardRead event{*read, {}, ""};
        const std::span<const std::byte> content = *contents_.at(read->group);
        for (uint64_t at = read->offset; at < read->offset + read->length;) {
          const auto count = std::min<uint64_t>(limits::kShardPartBytes, read->offset + read->length - at);
          const auto first = content.begin() + static_cast<std::ptrdiff_t>(at);
          event.parts.push_back(
              std::make_shared<const Content>(first, first + static_cast<std::ptrdiff_t>(count)));
          at += count;
        }
        server_.on(std::move(event));
      }
  }
  void keep(Time now) {
    for (auto actions = fetcher_.take_actions(); !actions.empty(); actions = fetcher_.take_actions())
      for (auto& action : actions) {
        if (auto* send = std::get_if<SendMessage>(&action)) peer_.link->send(send->to, send->message);
        auto* store = std::get_if<StoreShard>(&action);
        if (!store) continue;
        Content& content = kept_[store->group];
        ASSERT_EQ(content.size(), store->offset);
        for (const SharedBytes& part : store->parts)
          content.insert(content.end(), part->begin(), part->end());
        const bool is_whole = content.size() == store->total;
        ASSERT_TRUE(!is_whole || sha256(content) == store->group);
        fetcher_.on(ShardStored{store->group, content.size(), is_whole, false, ""}, now);
      }
  }

  LinkPeer& head_;
  LinkPeer& peer_;
  ShardFetcher fetcher_;
  ShardServer server_;
  std::map<Hash256, SharedBytes> contents_;
  std::vector<WantedShard> wanted_;
  std::map<Hash256, Content> kept_;
};

TEST(ShardLink, FetchesOverARealLinkThatBreaks) {
  const std::vector<SharedBytes> contents = {part_of(1, 100), part_of(2, 9'000'000), part_of(3, 70'000),
                                             part_of(4, 14'000'001)};
  LinkPeer head(1), peer(2);
  head.allow(peer);
  peer.connect(head);
  Fetching fetching(head, peer, contents);
  uint64_t breaks = 0;
  ASSERT_TRUE(fetching.run(60s, [&] {
    // Three times on the way the connection goes, each time once it is there again; connect() makes it anew.
    const FetchProgress now = fetching.fetcher().progress();
    const bool connected = peer.log.count<LinkUp>(head.key()) > breaks;
    if (connected && breaks < 3 && now.done_bytes > (breaks + 1) * 5'000'000) {
      ++breaks;
      head.link->forbid(peer.key());
      head.link->allow(peer.key());
    }
  })) << fetching.fetcher().error();
  EXPECT_EQ(breaks, 3u);
  // The last bytes may be here before the last end is noticed.
  const auto patience = std::chrono::steady_clock::now() + 20s;
  while (peer.log.count<LinkDown>(head.key()) < 3 && std::chrono::steady_clock::now() < patience)
    std::this_thread::sleep_for(10ms);
  EXPECT_GE(peer.log.count<LinkDown>(head.key()), 3u);
  uint64_t total = 0;
  for (const SharedBytes& content : contents) {
    total += content->size();
    EXPECT_TRUE(fetching.kept().at(sha256(*content)) == Content(content->begin(), content->end()));
  }
  // What was under way is fetched again, and no more.
  EXPECT_LE(fetching.fetcher().progress().received_bytes, total + breaks * limits::kShardWindowBytes);
}

// A neighbour that asks for nonsense, and for everything at once, on a real link.
TEST(ShardLink, NonsenseHarmsItsSenderAlone) {
  const std::vector<SharedBytes> contents = {part_of(1, 100), part_of(2, 6'000'000)};
  LinkPeer head(1), peer(2), hostile(3);
  head.allow(peer);
  head.allow(hostile);
  peer.connect(head);
  hostile.connect(head);
  ASSERT_TRUE(hostile.log.wait_for<LinkUp>(head.key()));
  ASSERT_TRUE(peer.log.wait_for<LinkUp>(head.key()));
  const Hash256 known = sha256(*contents[1]);
  for (int i = 0; i < 200; ++i) {
    hostile.link->send(head.key(), ShardRequest{known, 0, limits::kMaxShardRangeBytes});
    hostile.link->send(head.key(), ShardRequest{sha256(*contents[0]), 90, 11});
    hostile.link->send(head.key(), ShardRequest{{}, 0, 1});
    hostile.link->send(head.key(), ShardBytes{known, 0, contents[0]});
    hostile.link->send(head.key(), ManifestInfo{});
  }
  Fetching fetching(head, peer, contents);
  ASSERT_TRUE(fetching.run(60s, [] {})) << fetching.fetcher().error();
  EXPECT_EQ(head.log.count<LinkDown>(peer.key()), 0u);
  bool refused = false;
  for (const Received& one : hostile.log.received(head.key()))
    refused |= std::holds_alternative<ShardRefused>(one.message);
  EXPECT_TRUE(refused);
  // What the codec itself forbids ends the session of whoever sends it.
  hostile.link->send(head.key(), ShardRequest{known, 0, limits::kMaxShardRangeBytes + 1});
  EXPECT_TRUE(hostile.log.wait_for<LinkDown>(head.key()));
  EXPECT_EQ(head.log.count<LinkDown>(peer.key()), 0u);
}

}  // namespace
}  // namespace caravan
