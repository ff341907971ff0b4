// Fetching by hash without sockets: the fetcher and the server as the program has them, between them a way
// that loses, delays and breaks, and a disk that is a map.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/hash.h"
#include "base/limits.h"
#include "base/random.h"
#include "peers/shard_fetcher.h"
#include "peers/shard_server.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using namespace std::chrono_literals;
using Content = std::vector<std::byte>;

PeerKey key_of(uint8_t number) {
  PeerKey key;
  key.bytes[0] = number;
  return key;
}
const PeerKey kHead = key_of(1), kPeer = key_of(2);

Content content_of(uint64_t seed, size_t bytes) {
  std::vector<uint8_t> drawn(bytes);
  SeededRandom random(seed);
  random.fill(drawn);
  const auto* data = reinterpret_cast<const std::byte*>(drawn.data());
  return {data, data + bytes};
}

// A model whose manifest is content 0.
struct Model {
  explicit Model(const std::vector<size_t>& sizes) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      contents.push_back(content_of(i + 1, sizes[i]));
      hashes.push_back(sha256(contents.back()));
    }
  }
  ShardContents offered() const {
    ShardContents out;
    out.model = sha256(contents.back());
    out.record = hashes[0];
    for (size_t i = 0; i < contents.size(); ++i) out.bytes[hashes[i]] = contents[i].size();
    return out;
  }
  std::vector<WantedShard> wanted(const std::map<Hash256, Content>& kept = {}) const {
    std::vector<WantedShard> out;
    for (size_t i = 1; i < contents.size(); ++i) {
      const auto found = kept.find(hashes[i]);
      out.push_back({hashes[i], contents[i].size(), "group " + std::to_string(i),
                     found == kept.end() ? 0 : found->second.size()});
    }
    return out;
  }
  const Content& of(const Hash256& hash) const {
    return contents[std::find(hashes.begin(), hashes.end(), hash) - hashes.begin()];
  }
  std::vector<Content> contents;
  std::vector<Hash256> hashes;
};

struct Way {
  double loses = 0, repeats = 0, breaks = 0, restarts = 0;  // chance of each, for one message
  Duration delay = 1ms, jitter = 0ms;                       // more than the delay: messages overtake
  double flips = 0;                                         // a bit of a part
  Duration part = 0ms;                                      // that one takes of the link
};

// Both ends and what lies between them, in one thread and one time.
class World {
 public:
  World(const Model& model, Way way, uint64_t seed, ShardFetcherOptions options = {})
      : model_(model), way_(way), random_(seed), options_(options) {
    options_.from = kHead;
    fetcher_.emplace(options_);
    server_.hashed(model_.offered());
    connect();
  }

  // Until everything is here, an error, or the time is over.
  bool run(Duration longest) {
    const Time end = now_ + longest;
    settle();
    while (now_ < end && !fetcher_->is_done() && fetcher_->error().empty()) {
      const Time next = std::min(queue_.empty() ? Time::max() : queue_.begin()->first, fetcher_->next_tick());
      if (next == Time::max()) return false;
      now_ = std::max(now_, next);
      if (!queue_.empty() && queue_.begin()->first <= now_) {
        auto what = std::move(queue_.begin()->second);
        queue_.erase(queue_.begin());
        what();
      } else {
        fetcher_->tick(now_);
      }
      settle();
    }
    return fetcher_->is_done();
  }

  ShardFetcher& fetcher() { return *fetcher_; }
  ShardServer& server() { return server_; }
  const std::map<Hash256, Content>& kept() const { return kept_; }
  uint64_t sent_parts() const { return sent_parts_; }
  uint64_t most_owed() const { return most_owed_; }
  uint64_t breaks() const { return breaks_; }
  uint64_t restarts() const { return restarts_; }
  uint64_t received() const { return received_ + fetcher_->progress().received_bytes; }
  Time now() const { return now_; }
  void lose(const Hash256& group) { kept_.erase(group); }
  void flip_every_part_of(const Hash256& group, uint32_t times) { flipped_[group] = times; }
  void settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (auto& action : fetcher_->take_actions()) {
        busy = true;
        if (auto* message = std::get_if<SendMessage>(&action))
          carry(std::move(message->message), true);
        else
          store(std::get<StoreShard>(std::move(action)));
      }
      for (auto& action : server_.take_actions()) {
        busy = true;
        if (auto* message = std::get_if<SendMessage>(&action)) {
          Duration behind{};  // the parts before it
          if (const auto* part = std::get_if<ShardBytes>(&message->message)) {
            link_free_ = std::max(link_free_, now_) + way_.part;
            behind = link_free_ - now_;
            queue(way_.delay + behind, [this, bytes = part->byte_count()] { server_.gone(kPeer, bytes); });
          }
          carry(std::move(message->message), false, behind);
        }
        if (auto* read = std::get_if<ReadShard>(&action))
          queue(2ms, [this, read = *read] { this->read(read); });
      }
      most_owed_ = std::max(most_owed_, server_.owed_bytes(kPeer));
    }
  }

 private:
  void queue(Duration after, std::function<void()> what) { queue_.emplace(now_ + after, std::move(what)); }

  void connect() {
    ++connection_;
    fetcher_->on(LinkUp{kHead}, now_);
  }

  void carry(Message message, bool to_head, Duration behind = {}) {
    if (std::holds_alternative<ShardBytes>(message)) ++sent_parts_;
    if (random_.unit() < way_.breaks) return break_link();
    if (random_.unit() < way_.restarts) return restart();
    if (random_.unit() < way_.loses) return;
    const int copies = random_.unit() < way_.repeats ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      const Duration delay = way_.delay + behind + from_seconds(random_.unit() * seconds(way_.jitter));
      queue(delay, [this, message, to_head, connection = connection_] {
        if (connection != connection_) return;
        if (to_head)
          server_.on(kPeer, message);
        else
          fetcher_->on(Received{kHead, damaged(message)}, now_);
      });
    }
  }

  Message damaged(Message message) {
    auto* part = std::get_if<ShardBytes>(&message);
    if (!part) return message;
    bool flips = random_.unit() < way_.flips;
    if (const auto found = flipped_.find(part->group); found != flipped_.end() && found->second > 0) {
      flips = true;
      if (part->offset + part->byte_count() == model_.of(part->group).size()) --found->second;
    }
    if (!flips) return message;
    Content bytes(part->bytes->begin(), part->bytes->end());
    bytes[random_.below(bytes.size())] ^= std::byte{1};
    part->bytes = std::make_shared<const Content>(std::move(bytes));
    return message;
  }

  void break_link() {
    ++breaks_;
    ++connection_;
    queue(0ms, [this] {
      fetcher_->on(LinkDown{kHead, "it broke"}, now_);
      server_.lost(kPeer);
    });
    queue(50ms, [this] { connect(); });
  }

  // The peer's process ends: what was not yet kept is lost.
  void restart() {
    ++restarts_;
    ++connection_;
    ++life_;
    queue(0ms, [this] {
      server_.lost(kPeer);
      received_ += fetcher_->progress().received_bytes;
      fetcher_.emplace(options_);
      fetcher_->want(model_.wanted(kept_), now_);
      connect();
    });
  }

  void read(const ReadShard& what) {
    ShardRead event{what, {}, ""};
    const Content& content = model_.of(what.group);
    for (uint64_t at = what.offset; at < what.offset + what.length; at += limits::kShardPartBytes) {
      const auto count = std::min<uint64_t>(limits::kShardPartBytes, what.offset + what.length - at);
      event.parts.push_back(
          std::make_shared<const Content>(content.begin() + static_cast<std::ptrdiff_t>(at),
                                          content.begin() + static_cast<std::ptrdiff_t>(at + count)));
    }
    server_.on(std::move(event));
  }

  void store(StoreShard what) {
    queue(1ms, [this, what = std::move(what), life = life_] {
      if (life != life_) return;
      Content& content = kept_[what.group];
      ASSERT_EQ(content.size(), what.offset);
      for (const SharedBytes& part : what.parts) content.insert(content.end(), part->begin(), part->end());
      ShardStored event{what.group, content.size(), content.size() == what.total, false, ""};
      if (event.is_whole && sha256(content) != what.group) {
        event.is_whole = false;
        event.is_wrong = true;
        kept_.erase(what.group);
      }
      fetcher_->on(event, now_);
    });
  }

  const Model& model_;
  const Way way_;
  SeededRandom random_;
  ShardFetcherOptions options_;
  std::optional<ShardFetcher> fetcher_;
  ShardServer server_;
  Time now_ = Time{} + 1s, link_free_{};
  std::multimap<Time, std::function<void()>> queue_;
  std::map<Hash256, Content> kept_;
  std::map<Hash256, uint32_t> flipped_;
  uint64_t connection_ = 0, life_ = 0;
  uint64_t sent_parts_ = 0, most_owed_ = 0, breaks_ = 0, restarts_ = 0, received_ = 0;
};

const std::vector<size_t> kSizes = {3000, 5'000'000, 1, 65536, 65537, 1u << 20, 2'345'678, 700'001};

void expect_all(const World& world, const Model& model) {
  for (size_t i = 1; i < model.contents.size(); ++i) {
    const auto found = world.kept().find(model.hashes[i]);
    ASSERT_NE(found, world.kept().end()) << i;
    ASSERT_TRUE(found->second == model.contents[i]) << i;
  }
}

uint64_t total_bytes(const Model& model) {
  uint64_t sum = 0;
  for (size_t i = 1; i < model.contents.size(); ++i) sum += model.contents[i].size();
  return sum;
}

TEST(ShardFetch, FetchesEveryByteOnceWhenNothingGoesWrong) {
  const Model model(kSizes);
  World world(model, {}, 1);
  world.fetcher().want(model.wanted(), world.now());
  ASSERT_TRUE(world.run(60s)) << world.fetcher().error();
  expect_all(world, model);
  EXPECT_EQ(world.fetcher().progress().received_bytes, total_bytes(model));
  EXPECT_EQ(world.fetcher().progress().done_bytes, total_bytes(model));
  EXPECT_EQ(world.fetcher().ignored_parts(), 0u);
  EXPECT_LE(world.most_owed(), limits::kShardWindowBytes);
  ASSERT_TRUE(world.fetcher().manifest());
  EXPECT_EQ(world.fetcher().manifest()->record, model.hashes[0]);
}

TEST(ShardFetch, KeepsSeveralRangesUnderWay) {
  const Model model(kSizes);
  World world(model, {}, 1);
  world.fetcher().want(model.wanted(), world.now());
  ASSERT_TRUE(world.run(60s));
  EXPECT_GE(world.most_owed(), limits::kFragmentBytes * 4);
}

TEST(ShardFetch, GetsThereThroughLossesRepeatsReordersBreaksAndRestarts) {
  const Model model(kSizes);
  uint64_t breaks = 0, restarts = 0, ignored = 0;
  for (uint64_t seed = 1; seed <= test::fewer(30); ++seed) {
    Way way;
    way.loses = 0.03;
    way.repeats = 0.02;
    way.breaks = seed % 3 == 0 ? 0.03 : 0;
    way.restarts = seed % 5 == 0 ? 0.012 : 0;
    way.jitter = seed % 2 == 0 ? 5ms : 0ms;
    World world(model, way, seed);
    world.fetcher().want(model.wanted(), world.now());
    ASSERT_TRUE(world.run(3600s)) << "seed " << seed << ": " << world.fetcher().error();
    expect_all(world, model);
    breaks += world.breaks();
    restarts += world.restarts();
    ignored += world.fetcher().ignored_parts();
  }
  EXPECT_GT(breaks, test::fewer(5));
  EXPECT_GT(restarts, test::fewer(2));
  EXPECT_GT(ignored, test::fewer(10));
}

TEST(ShardFetch, TheSameSeedReplays) {
  const Model model(kSizes);
  const Way way{0.02, 0.02, 0.01, 0.002, 1ms, 4ms, 0};
  for (const uint64_t seed : {3u, 4u}) {
    World one(model, way, seed), two(model, way, seed);
    for (World* world : {&one, &two}) {
      world->fetcher().want(model.wanted(), world->now());
      ASSERT_TRUE(world->run(3600s)) << world->fetcher().error();
    }
    EXPECT_EQ(one.now(), two.now());
    EXPECT_EQ(one.sent_parts(), two.sent_parts());
  }
}

TEST(ShardFetch, AfterABreakOrARestartItGoesOnWhereItWas) {
  const Model model({100, 20'000'000});
  for (const bool restarts : {false, true}) {
    Way way;
    (restarts ? way.restarts : way.breaks) = 0.02;
    World world(model, way, 7);
    world.fetcher().want(model.wanted(), world.now());
    ASSERT_TRUE(world.run(3600s)) << world.fetcher().error();
    expect_all(world, model);
    EXPECT_GT(world.breaks() + world.restarts(), 2u);
    // Only what was under way is fetched again, and after a mere break not even the parts that had come of
    // the first range.
    const uint64_t again = world.received() - total_bytes(model);
    EXPECT_LE(again, (world.breaks() + world.restarts()) * limits::kShardWindowBytes);
    EXPECT_LT(again, total_bytes(model));
  }
}

TEST(ShardFetch, WhatIsHereAlreadyIsNotFetched) {
  const Model model(kSizes);
  World world(model, {}, 1);
  std::map<Hash256, Content> kept = {{model.hashes[1], model.contents[1]}, {model.hashes[4], Content(65000)}};
  auto wanted = model.wanted(kept);
  world.fetcher().want({wanted[0]}, world.now());
  EXPECT_TRUE(world.fetcher().is_done());
  EXPECT_TRUE(world.run(1s));
  EXPECT_EQ(world.sent_parts(), 0u);
}

TEST(ShardFetch, AnotherWishKeepsWhatIsOnItsWay) {
  const Model model(kSizes);
  World world(model, {}, 1);
  world.fetcher().want(model.wanted(), world.now());
  world.run(20ms);
  auto fewer = model.wanted();
  fewer.erase(fewer.begin() + 1, fewer.begin() + 4);
  world.fetcher().want(fewer, world.now());
  ASSERT_TRUE(world.run(60s)) << world.fetcher().error();
  EXPECT_LE(world.fetcher().progress().received_bytes, total_bytes(model));
  for (const WantedShard& shard : fewer) EXPECT_TRUE(world.kept().at(shard.hash) == model.of(shard.hash));
}

// What was asked for and is not wanted any more comes all the same: it counts against the window, or the head
// would take the rest for a flood, and what it does not answer is waited for in vain.
TEST(ShardFetch, OtherWishesNeverAskForTooMuch) {
  const Model model({3000, 24'000'000, 24'000'000, 24'000'000});
  World world(model, {.part = 2ms}, 1);
  const auto all = model.wanted();
  const Time begun = world.now();
  for (size_t wish = 0; wish < 9; ++wish) {
    const WantedShard& one = all[wish % 3];
    const auto kept = world.kept().find(one.hash);
    world.fetcher().want(
        {{one.hash, one.bytes, one.name, kept == world.kept().end() ? 0 : kept->second.size()}}, world.now());
    world.run(wish == 0 ? 300ms : 15ms);  // until the window is wide
  }
  world.fetcher().want(model.wanted(world.kept()), world.now());
  ASSERT_TRUE(world.run(60s)) << world.fetcher().error();
  expect_all(world, model);
  EXPECT_GT(world.fetcher().ignored_parts(), 0u);
  EXPECT_GT(world.most_owed(), limits::kMaxShardBytesOwed / 2);
  EXPECT_EQ(world.server().refused(), 0u);
  EXPECT_LT(world.now() - begun, 5s) << "nothing was waited for in vain";
}

TEST(ShardFetch, WhatIsNotHereAnyMoreIsFetchedAgain) {
  const Model model(kSizes);
  World world(model, {}, 1);
  world.fetcher().want(model.wanted(), world.now());
  ASSERT_TRUE(world.run(60s));
  world.lose(model.hashes[1]);
  world.fetcher().want(model.wanted(world.kept()), world.now());
  EXPECT_FALSE(world.fetcher().is_done());
  ASSERT_TRUE(world.run(60s)) << world.fetcher().error();
  expect_all(world, model);
  EXPECT_EQ(world.fetcher().progress().received_bytes, total_bytes(model) + model.contents[1].size());
}

TEST(ShardFetch, AWrongHashIsFetchedAgainOnceAndThenNamed) {
  const Model model(kSizes);
  World once(model, {}, 1);
  once.flip_every_part_of(model.hashes[6], 1);
  once.fetcher().want(model.wanted(), once.now());
  ASSERT_TRUE(once.run(60s)) << once.fetcher().error();
  expect_all(once, model);
  EXPECT_EQ(once.fetcher().progress().received_bytes, total_bytes(model) + model.contents[6].size());

  World always(model, {}, 1);
  always.flip_every_part_of(model.hashes[6], 2);
  always.fetcher().want(model.wanted(), always.now());
  EXPECT_FALSE(always.run(60s));
  EXPECT_NE(always.fetcher().error().find("group 6"), std::string::npos) << always.fetcher().error();
  EXPECT_NE(always.fetcher().error().find(short_string(kHead)), std::string::npos);
  EXPECT_EQ(always.kept().count(model.hashes[6]), 0u);
}

TEST(ShardFetch, KeepsToItsLimit) {
  const Model model({100, 3'000'000});
  ShardFetcherOptions options;
  options.bytes_per_second = 1'000'000;
  World world(model, {}, 1, options);
  world.fetcher().want(model.wanted(), world.now());
  const Time before = world.now();
  ASSERT_TRUE(world.run(60s));
  EXPECT_NEAR(seconds(world.now() - before), 3.0, 0.4);
}

TEST(ShardFetch, WaitsForTheHashesAndSaysSo) {
  const Model model(kSizes);
  ShardServer server;
  ShardFetcherOptions options;
  options.from = kHead;
  ShardFetcher fetcher(options);
  Time now = Time{} + 1s;
  fetcher.on(LinkUp{kHead}, now);
  size_t asked = 0, hash_actions = 0;
  const auto pass = [&] {
    for (auto& action : fetcher.take_actions())
      if (auto* message = std::get_if<SendMessage>(&action)) {
        asked += std::holds_alternative<ManifestRequest>(message->message);
        server.on(kPeer, message->message);
      }
    for (auto& action : server.take_actions()) {
      hash_actions += std::holds_alternative<HashModel>(action);
      if (auto* message = std::get_if<SendMessage>(&action))
        fetcher.on(Received{kHead, message->message}, now);
    }
  };
  pass();
  EXPECT_EQ(hash_actions, 1u);
  server.hashing(10, 40);
  for (int i = 0; i < 5; ++i) {
    now = fetcher.next_tick();
    fetcher.tick(now);
    pass();
  }
  EXPECT_EQ(hash_actions, 1u) << "it is hashed once, however many ask";
  EXPECT_GE(asked, 5u);
  EXPECT_FALSE(fetcher.manifest());
  EXPECT_EQ(fetcher.hashing().hashed_bytes, 10u);
  EXPECT_EQ(fetcher.hashing().total_bytes, 40u);
  server.hashed(model.offered());
  now = fetcher.next_tick();
  fetcher.tick(now);
  pass();
  ASSERT_TRUE(fetcher.manifest());
  EXPECT_EQ(fetcher.manifest()->record_bytes, model.contents[0].size());
}

TEST(ShardFetch, ARefusalASilenceAndAnotherModelEndWithAReason) {
  const Model model({100, 3000});
  World refused(model, {}, 1);
  WantedShard unknown{sha256(content_of(99, 10)), 10, "layer.3.attn", 0};
  refused.fetcher().want({unknown}, refused.now());
  EXPECT_FALSE(refused.run(60s));
  EXPECT_EQ(refused.fetcher().error(), "layer.3.attn: the head says: it has no content of that hash");

  Way silent;
  World mute(model, silent, 1);
  mute.run(1s);
  mute.fetcher().want(model.wanted(), mute.now());
  Time now = mute.now();
  for (int i = 0; i < 20 && mute.fetcher().error().empty(); ++i) {
    mute.fetcher().take_actions();
    now = mute.fetcher().next_tick();
    mute.fetcher().tick(now);
  }
  EXPECT_NE(mute.fetcher().error().find("group 1"), std::string::npos) << mute.fetcher().error();
  EXPECT_GT(now - mute.now(), 100s);

  World changed(model, {}, 1);
  changed.run(1s);
  ASSERT_TRUE(changed.fetcher().manifest());
  changed.server().hashed(Model({200, 300}).offered());
  changed.fetcher().on(LinkDown{kHead, "it started anew"}, changed.now());
  changed.fetcher().on(LinkUp{kHead}, changed.now());
  changed.fetcher().want(model.wanted(), changed.now());
  EXPECT_FALSE(changed.run(60s));
  EXPECT_NE(changed.fetcher().error().find("another model"), std::string::npos);
}

// --- The server, asked by whoever wants to harm it ---

class HostileServer : public testing::Test {
 protected:
  HostileServer() : model_({100, 5'000'000}) { server_.hashed(model_.offered()); }
  std::vector<ShardServerAction> ask(const PeerKey& from, uint64_t offset, uint32_t length) {
    server_.on(from, ShardRequest{model_.hashes[1], offset, length});
    return server_.take_actions();
  }
  static std::string refusal(const std::vector<ShardServerAction>& actions) {
    if (actions.size() != 1) return "";
    const auto* message = std::get_if<SendMessage>(&actions[0]);
    const auto* refused = message ? std::get_if<ShardRefused>(&message->message) : nullptr;
    return refused ? refused->reason : "";
  }
  const Model model_;
  ShardServer server_;
};

TEST_F(HostileServer, RefusesRangesThatAreNone) {
  const auto bytes = model_.contents[1].size();
  EXPECT_NE(refusal(ask(kPeer, 0, 0)), "");
  EXPECT_NE(refusal(ask(kPeer, 0, limits::kMaxShardRangeBytes + 1)), "");
  EXPECT_NE(refusal(ask(kPeer, bytes, 1)), "");
  EXPECT_NE(refusal(ask(kPeer, bytes - 1, 2)), "");
  EXPECT_NE(refusal(ask(kPeer, UINT64_MAX, 1)), "");
  EXPECT_NE(refusal(ask(kPeer, UINT64_MAX - 1, UINT32_MAX)), "");
  server_.on(kPeer, ShardRequest{sha256(content_of(5, 5)), 0, 1});
  EXPECT_NE(refusal(server_.take_actions()), "");
  EXPECT_EQ(server_.owed_bytes(kPeer), 0u);
  EXPECT_TRUE(std::holds_alternative<ReadShard>(ask(kPeer, bytes - 1, 1).at(0)));
}

TEST_F(HostileServer, AFloodIsBoundedAndOthersHaveTheirTurns) {
  const PeerKey flooder = key_of(9);
  uint64_t reads = 0;
  for (int i = 0; i < 1000; ++i)
    for (const auto& action : ask(flooder, 0, limits::kMaxShardRangeBytes))
      reads += std::holds_alternative<ReadShard>(action);
  EXPECT_EQ(reads, limits::kMaxShardReads);
  EXPECT_EQ(server_.owed_bytes(flooder), limits::kMaxShardBytesOwed);
  EXPECT_TRUE(ask(kPeer, 0, 1000).empty());
  ShardRead done{{flooder, model_.hashes[1], 0, limits::kMaxShardRangeBytes}, {}, "gone"};
  server_.on(done);
  const auto actions = server_.take_actions();
  ASSERT_TRUE(std::holds_alternative<ReadShard>(actions.back()));
  EXPECT_EQ(std::get<ReadShard>(actions.back()).to, kPeer) << "the next turn is the other's";
  server_.lost(flooder);
  EXPECT_LT(server_.owed_bytes(flooder), limits::kMaxShardReads * limits::kMaxShardRangeBytes);
}

TEST_F(HostileServer, NothingIsGivenAwayBeforeItIsHashed) {
  ShardServer fresh;
  fresh.on(kPeer, ShardRequest{model_.hashes[1], 0, 10});
  EXPECT_NE(refusal(fresh.take_actions()), "");
  fresh.unavailable("it is not of files");
  fresh.on(kPeer, ManifestRequest{});
  const auto actions = fresh.take_actions();
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(std::get<ManifestInfo>(std::get<SendMessage>(actions[0]).message).reason, "it is not of files");
}

}  // namespace
}  // namespace caravan
