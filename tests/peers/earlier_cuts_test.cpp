#include "peers/earlier_cuts.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/random.h"
#include "peers/ring.h"
#include "store/memory_store.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

constexpr uint32_t kLayers = 32;

PeerKey key(uint32_t number) {
  PeerKey made;
  made.bytes[0] = static_cast<uint8_t>(number);
  made.bytes[1] = static_cast<uint8_t>(number >> 8);
  return made;
}

EarlierCut cut_of(std::vector<std::pair<uint32_t, uint32_t>> peers_and_layers) {
  EarlierCut cut;
  for (const auto& [peer, layers] : peers_and_layers)
    cut.shares.push_back({key(peer), numerics_number("avx2"), layers});
  return cut;
}

// --- What is kept ---

TEST(EarlierCutsTest, KeepsOneForEachSetOfPeersAndForgetsTheOldest) {
  std::vector<EarlierCut> cuts;
  EXPECT_TRUE(remember(cuts, cut_of({{1, 16}, {2, 16}})));
  EXPECT_FALSE(remember(cuts, cut_of({{1, 16}, {2, 16}})));
  EXPECT_TRUE(remember(cuts, cut_of({{1, 16}, {3, 16}})));
  EXPECT_TRUE(remember(cuts, cut_of({{2, 20}, {1, 12}}))) << "the same peers in another order";
  ASSERT_EQ(cuts.size(), 2u);
  EXPECT_EQ(cuts[0], cut_of({{2, 20}, {1, 12}}));
  for (uint32_t i = 0; i < limits::kMaxEarlierCuts; ++i) remember(cuts, cut_of({{100 + i, 32}}));
  ASSERT_EQ(cuts.size(), limits::kMaxEarlierCuts);
  EXPECT_EQ(cuts.back(), cut_of({{100, 32}}));
}

TEST(EarlierCutsTest, ComesBackFromTheStoreAsItWas) {
  MemoryStore store;
  const Hash256 model = sha256({}), other;
  EXPECT_TRUE(load_cuts(store, model, kLayers).empty());
  const std::vector<EarlierCut> cuts = {cut_of({{1, 16}, {2, 0}, {3, 16}}), cut_of({{7, kLayers}})};
  save_cuts(store, model, cuts);
  EXPECT_EQ(load_cuts(store, model, kLayers), cuts);
  EXPECT_TRUE(load_cuts(store, other, kLayers).empty());
  EXPECT_TRUE(load_cuts(store, model, kLayers + 1).empty()) << "of that model it is not";
}

TEST(EarlierCutsTest, AStoreThatFailsIsNoFailure) {
  bool fails = true;
  MemoryStore store([&](MemoryStore::Operation, std::string_view) { return fails; });
  const std::vector<EarlierCut> cuts = {cut_of({{1, kLayers}})};
  save_cuts(store, {}, cuts);
  EXPECT_TRUE(load_cuts(store, {}, kLayers).empty());
  fails = false;
  EXPECT_TRUE(load_cuts(store, {}, kLayers).empty());
}

TEST(EarlierCutsTest, WhatIsOddIsNoCut) {
  const auto refused = [](const std::string& text, ErrorCode code = ErrorCode::kMalformed) {
    try {
      decode_cuts(text, kLayers);
      return false;
    } catch (const Error& error) {
      return error.code() == code;
    }
  };
  const std::string good = encode_cuts({cut_of({{1, 16}, {2, 16}})});
  ASSERT_EQ(decode_cuts(good, kLayers).size(), 1u);
  EXPECT_TRUE(refused("", ErrorCode::kUnsupported));
  EXPECT_TRUE(refused("2" + good.substr(1), ErrorCode::kUnsupported));
  EXPECT_TRUE(refused("1\n"));
  EXPECT_TRUE(refused(good.substr(0, good.size() - 1)));
  EXPECT_TRUE(refused(good.substr(0, good.size() - 2) + "\n"));
  EXPECT_TRUE(refused(encode_cuts({cut_of({{1, 16}, {1, 16}})}))) << "a peer twice";
  EXPECT_TRUE(refused(encode_cuts({cut_of({{1, 16}, {2, 15}})}))) << "a layer is nobody's";
  EXPECT_TRUE(refused(encode_cuts({cut_of({{1, 16}, {2, 17}})}))) << "one layer too many";
  EarlierCut crowd = cut_of({{0, kLayers}});
  while (crowd.shares.size() <= limits::kMaxPeers)
    crowd.shares.push_back({key(static_cast<uint32_t>(crowd.shares.size())), 0, 0});
  EXPECT_TRUE(refused(encode_cuts({crowd})));
  EXPECT_TRUE(refused(encode_cuts(std::vector(limits::kMaxEarlierCuts + 1, cut_of({{1, kLayers}})))));
  // Whatever a flipped byte leaves behind is refused, or covers every layer once.
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char byte : {'0', 'f', '-', 'x', ' ', '\n', '\0'}) {
      std::string text = good;
      text[at] = byte;
      try {
        for (const EarlierCut& cut : decode_cuts(text, kLayers)) {
          uint32_t sum = 0;
          for (const EarlierCut::Share& share : cut.shares) sum += share.layers;
          EXPECT_EQ(sum, kLayers);
        }
      } catch (const Error&) {
      }
    }
  }
}

// --- What a ring does with it ---

struct Peers {
  std::vector<Member> all;
  std::vector<const Member*> in_order() const {
    std::vector<const Member*> members;
    for (const Member& member : all) members.push_back(&member);
    return members;
  }
};

Peers peers_of(const std::vector<double>& layer_ns) {
  Peers peers;
  for (size_t i = 0; i < layer_ns.size(); ++i) {
    Member& member = peers.all.emplace_back();
    member.key = key(static_cast<uint32_t>(i + 1));
    member.hello.name = fmt::format("p{}", i);
    member.hello.numerics_class = "avx2";
    member.hello.memory_bytes = 1000;
    member.hello.layer_ns = static_cast<uint64_t>(layer_ns[i]);
  }
  return peers;
}

RingOptions options(std::vector<EarlierCut> earlier = {}, uint32_t layers = kLayers) {
  RingOptions made;
  made.self = key(200);
  made.layers.assign(layers, {1, 1});
  made.earlier = std::move(earlier);
  return made;
}

void make_ready(Ring& ring, const Peers& peers) {
  ring.form(peers.in_order(), Time{});
  const Assign assign = ring.assignment().value();
  Hash256 contract;
  for (const StageAction& action : ring.take_actions())
    if (const auto* send = std::get_if<SendMessage>(&action))
      if (const auto* sent = std::get_if<Contract>(&send->message)) contract = sent->hash;
  const auto last = static_cast<uint32_t>(assign.route.size());
  ring.on(assign.route.front().peer, Contract{assign.ring, assign.epoch, 0, true, contract, true});
  ring.on(assign.route.back().peer, Contract{assign.ring, assign.epoch, last, true, contract, true});
  for (const RouteStage& stage : assign.route) ring.on(stage.peer, Ready{assign.ring, assign.epoch, 10});
  ASSERT_EQ(ring.state(), Ring::State::kAgreed);
  ring.canary_returned();
}

// What a head that was ready with these peers leaves to its next life.
std::vector<EarlierCut> left_by(const Peers& peers, uint32_t layers = kLayers) {
  Ring ring(options({}, layers));
  make_ready(ring, peers);
  return decode_cuts(encode_cuts(ring.earlier_cuts()), layers);
}

std::string text(const std::vector<RouteStage>& route) {
  std::string made;
  for (const RouteStage& stage : route)
    made += fmt::format(" {}:{}-{}", short_string(stage.peer), stage.span.first, stage.span.last);
  return made;
}

TEST(EarlierCutsTest, MeasurementsUpTo14PercentOffNeverChangeACut) {
  uint32_t would_have = 0;
  const uint32_t seeds = test::fewer(2000);
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    SeededRandom random(seed);
    const auto layers = static_cast<uint32_t>(4 + random.below(90));
    std::vector<double> times(2 + random.below(7));
    for (double& time : times) time = 1e6 * (1 + static_cast<double>(random.below(3)));
    const Peers before = peers_of(times);
    // At times the very worst: all but one faster, that one slower.
    const size_t slower = random.below(2 * times.size());
    for (size_t i = 0; i < times.size(); ++i)
      times[i] *= slower >= times.size() ? 0.86 + 0.28 * random.unit() : i == slower ? 1.14 : 0.86;
    Peers after = peers_of(times);
    for (size_t i = after.all.size(); i > 1; --i) std::swap(after.all[i - 1], after.all[random.below(i)]);
    const std::string first = text(Ring(options({}, layers)).route(before.in_order()));
    EXPECT_EQ(text(Ring(options(left_by(before, layers), layers)).route(after.in_order())), first)
        << "seed " << seed;
    would_have += text(Ring(options({}, layers)).route(after.in_order())) != first;
  }
  EXPECT_GT(would_have, seeds / 2);
}

TEST(EarlierCutsTest, APeerThatIsTwiceAsSlowGetsFewerLayersWhateverWasBefore) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SeededRandom random(seed);
    std::vector<double> times(2 + random.below(3), 1e6);
    const std::vector<EarlierCut> earlier = left_by(peers_of(times));
    for (double& time : times) time *= 0.96 + 0.08 * random.unit();
    const size_t slow = random.below(times.size());
    times[slow] *= 2;
    const Peers now = peers_of(times);
    const auto route = Ring(options(earlier)).route(now.in_order());
    EXPECT_EQ(text(route), text(Ring(options()).route(now.in_order()))) << "seed " << seed;
    const auto found = std::find_if(route.begin(), route.end(),
                                    [&](const RouteStage& stage) { return stage.peer == now.all[slow].key; });
    ASSERT_NE(found, route.end());
    EXPECT_LE(found->span.count(), 3 * earlier[0].shares[slow].layers / 4) << "seed " << seed;
  }
}

TEST(EarlierCutsTest, WhatNoLongerFitsIsLeft) {
  const Peers before = peers_of({1e6, 1e6, 1e6});
  const std::vector<EarlierCut> earlier = left_by(before);
  Peers now = peers_of({1.05e6, 1e6, 0.95e6});
  const std::string kept = text(Ring(options(earlier)).route(now.in_order()));
  EXPECT_EQ(kept, text(Ring(options()).route(before.in_order())));
  const std::string best = text(Ring(options()).route(now.in_order()));
  ASSERT_NE(kept, best);
  const auto leaves = [&](const std::function<void(Peers&)>& change) {
    Peers changed = now;
    change(changed);
    return text(Ring(options(earlier)).route(changed.in_order())) ==
           text(Ring(options()).route(changed.in_order()));
  };
  EXPECT_FALSE(leaves([](Peers&) {}));
  EXPECT_TRUE(leaves([](Peers& peers) { peers.all[0].hello.memory_bytes = 10; }));
  EXPECT_TRUE(leaves([](Peers& peers) { peers.all[1].hello.numerics_class = "cuda"; }));
  EXPECT_TRUE(leaves([](Peers& peers) { peers.all.pop_back(); }));
  EXPECT_TRUE(leaves([](Peers& peers) { peers.all[2].key = key(9); }));
  EXPECT_TRUE(leaves([](Peers& peers) { peers.all.push_back(peers_of({1, 1, 1, 1e6}).all[3]); }));
}

TEST(EarlierCutsTest, WhatFitsOnlyInTheEarlierOrderStays) {
  Peers peers = peers_of({1e6, 1e6});
  RingOptions made = options({cut_of({{2, 2}, {1, 2}})}, 4);
  made.layers = {{10, 1}, {1, 1}, {1, 1}, {20, 1}};
  peers.all[0].hello.memory_bytes = 22;  // holds the last layers, the other one does not
  peers.all[1].hello.memory_bytes = 12;
  ASSERT_TRUE(Ring(options({}, 4)).route(peers.in_order()).size() > 0);
  RingOptions without = made;
  without.earlier.clear();
  EXPECT_TRUE(Ring(without).route(peers.in_order()).empty());
  EXPECT_EQ(Ring(made).route(peers.in_order()).size(), 2u);
}

TEST(EarlierCutsTest, ARingGrowsIntoWhatItWasAndThenRests) {
  // A third peer that is worth a little more than a tenth in one life, and a little less in the next.
  const Peers before = peers_of({1e6, 1e6, 3.5e6});
  const std::vector<EarlierCut> earlier = left_by(before);
  const Peers now = peers_of({1e6, 1e6, 3.9e6});
  Peers two = now;
  two.all.pop_back();
  Ring fresh(options());
  make_ready(fresh, two);
  EXPECT_FALSE(fresh.could_grow(now.in_order()));
  Ring again(options(earlier));
  make_ready(again, two);
  EXPECT_TRUE(again.could_grow(now.in_order()));
  again.dissolve("it grows");
  make_ready(again, now);
  EXPECT_EQ(again.earlier_cuts().size(), 2u);
  EXPECT_EQ(again.earlier_cuts()[0], earlier[0]);
  EXPECT_FALSE(again.could_grow(now.in_order()));
  EXPECT_FALSE(again.could_grow(two.in_order()));
}

TEST(EarlierCutsTest, EvenCutsAndPeersAloneLeaveNothing) {
  Ring alone(options());
  make_ready(alone, peers_of({1e6}));
  EXPECT_TRUE(alone.earlier_cuts().empty());
  RingOptions even = options(left_by(peers_of({1e6, 3e6})));
  even.mode = CutMode::kEven;
  EXPECT_EQ(Ring(even).route(peers_of({1e6, 3e6}).in_order())[0].span, (UnitSpan{1, 17}));
}

}  // namespace
}  // namespace caravan
