#include "peers/membership.h"

#include <gtest/gtest.h>

#include <functional>

#include "peers/contract.h"
#include "peers/ring.h"

namespace caravan {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

PeerKey key(uint8_t first) {
  PeerKey made;
  made.bytes[0] = first;
  return made;
}

Hello hello(uint64_t incarnation) {
  Hello made;
  made.name = "p";
  made.layers = 4;
  made.incarnation = incarnation;
  made.memory_bytes = 100;
  return made;
}

Membership members() {
  MembershipOptions options;
  options.self = key(1);
  options.layers = 4;
  return Membership(options);
}

TEST(MembershipTest, AdmitsWhoFitsAndSaysWhyNot) {
  Membership all = members();
  EXPECT_TRUE(std::holds_alternative<Welcome>(all.greet(key(2), hello(1), Time{}).reply));
  const auto refused = [&](Hello wrong) {
    const auto reply = all.greet(key(3), wrong, Time{}).reply;
    return std::holds_alternative<Refuse>(reply) && !std::get<Refuse>(reply).reason.empty();
  };
  Hello wrong = hello(1);
  wrong.protocol = kProtocolVersion + 1;
  EXPECT_TRUE(refused(wrong));
  wrong = hello(1);
  wrong.model.bytes[5] = 1;
  EXPECT_TRUE(refused(wrong));
  wrong = hello(1);
  wrong.layers = 5;
  EXPECT_TRUE(refused(wrong));
  EXPECT_EQ(all.size(), 1u);
}

TEST(MembershipTest, TellsAGreetingAgainFromANewLife) {
  Membership all = members();
  EXPECT_TRUE(all.greet(key(2), hello(1), Time{}).is_new);
  const auto again = all.greet(key(2), hello(1), Time{});
  EXPECT_FALSE(again.is_new || again.was_member);
  const auto anew = all.greet(key(2), hello(2), Time{});
  EXPECT_TRUE(anew.is_new && anew.was_member);
  EXPECT_EQ(all.size(), 1u);
}

TEST(MembershipTest, LosesWhoIsSilentForTheTimeoutAndNobodySooner) {
  Membership all = members();
  Time now{seconds(1)};
  all.greet(key(1), hello(1), now);  // the head's own stage
  all.greet(key(2), hello(1), now);
  all.greet(key(3), hello(1), now);
  std::vector<Membership::Lost> lost;
  for (int tick = 0; tick < 99; ++tick) {
    now += milliseconds(100);
    all.heard(key(3), now);
    EXPECT_TRUE(all.tick(now).empty()) << tick;
  }
  now += milliseconds(100);
  lost = all.tick(now);
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_EQ(lost[0].key, key(2));
  EXPECT_EQ(all.size(), 2u);
}

TEST(MembershipTest, BlamesNobodyForItsOwnPause) {
  Membership all = members();
  Time now{seconds(1)};
  all.greet(key(2), hello(1), now);
  all.tick(now);
  now += seconds(100);
  EXPECT_TRUE(all.tick(now).empty());
  for (int i = 0; i < 4; ++i) {
    now += seconds(1);
    EXPECT_TRUE(all.tick(now).empty());
  }
  now += seconds(2);
  EXPECT_EQ(all.tick(now).size(), 1u);
}

TEST(MembershipTest, MeasuresTheRoundTripAndEchoesOnce) {
  Membership all = members();
  Time now{seconds(1)};
  all.greet(key(2), hello(1), now);
  Heartbeat beat;
  beat.sent_ns = 77;
  const auto answer = all.on(key(2), beat, now);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->echo_ns, 77u);
  beat.echo_ns = answer->sent_ns;
  now += milliseconds(30);
  EXPECT_FALSE(all.on(key(2), beat, now).has_value());
  EXPECT_EQ(all.find(key(2))->round_trip, Duration(milliseconds(30)));
}

// --- The contract ---

Assign assignment() {
  Assign assign;
  assign.epoch = EpochId{1};
  assign.route = {{key(2), "a", "avx2", {}, {1, 3}, {}}, {key(3), "b", "avx2", {}, {3, 5}, {}}};
  assign.context = 64;
  return assign;
}

TEST(ContractTest, IsOneForAllWhoAgreeAndAnotherForAnyDifference) {
  const OwnFacts head{key(1), {}, "avx2"};
  const Hash256 agreed = contract_hash(assignment(), head);
  EXPECT_EQ(contract_hash(assignment(), {key(2), {}, "avx2"}), agreed);
  EXPECT_EQ(contract_hash(assignment(), {key(3), {}, "avx2"}), agreed);
  EXPECT_NE(contract_hash(assignment(), {key(3), {}, "avx512"}), agreed)
      << "it is not what the head believes";
  OwnFacts other = head;
  other.model.bytes[0] = 1;
  EXPECT_NE(contract_hash(assignment(), other), agreed);
  const auto changed = [&](const std::function<void(Assign&)>& change) {
    Assign assign = assignment();
    change(assign);
    return contract_hash(assign, head) != agreed;
  };
  EXPECT_TRUE(changed([](Assign& a) { a.route[0].span.last = 4, a.route[1].span.first = 4; }));
  EXPECT_TRUE(changed([](Assign& a) { a.codec = CodecId::kBf16; }));
  EXPECT_TRUE(changed([](Assign& a) { a.context = 65; }));
  EXPECT_TRUE(changed([](Assign& a) { a.kv_type = 1; }));
  EXPECT_TRUE(changed([](Assign& a) { a.epoch = EpochId{2}; }));
}

// --- Forming ---

RingOptions ring_options() {
  RingOptions options;
  options.self = key(1);
  options.numerics_class = "avx2";
  options.layers.assign(4, {10, 1});
  options.context = 64;
  options.max_sequences = 4;
  options.max_rows = 16;
  return options;
}

TEST(RingTest, SaysWhyItDoesNotForm) {
  RingOptions options = ring_options();
  options.min_peers = 2;
  Ring ring(options);
  Member member;
  member.key = key(2);
  member.hello = hello(1);
  member.hello.memory_bytes = 15;
  ring.form({&member}, Time{});
  EXPECT_EQ(ring.reason(), "1 of 2 peers are here");
  Member other = member;
  other.key = key(3);
  ring.form({&member, &other}, Time{});
  EXPECT_NE(ring.reason().find("memory"), std::string::npos);
  EXPECT_EQ(ring.state(), Ring::State::kNone);
  other.hello.memory_bytes = 30;
  ring.form({&member, &other}, Time{});
  EXPECT_EQ(ring.state(), Ring::State::kForming);
  ASSERT_EQ(ring.assignment()->route.size(), 2u);
  EXPECT_EQ(ring.assignment()->route[0].span, (UnitSpan{1, 2}));
}

TEST(RingTest, NeverUsesAnEpochTwiceAndWaitsLongerAfterEveryFailure) {
  Ring ring(ring_options());
  Member member;
  member.key = key(2);
  member.hello = hello(1);
  Time now{seconds(1)};
  uint64_t before = 0;
  Duration waited_before{};
  for (int i = 0; i < 5; ++i) {
    ring.form({&member}, now);
    ASSERT_EQ(ring.state(), Ring::State::kForming);
    EXPECT_GT(ring.assignment()->epoch.value, before);
    before = ring.assignment()->epoch.value;
    ring.fail("a test", now);
    EXPECT_EQ(ring.reason(), "a test");
    const Duration wait = ring.next_tick() - now;
    EXPECT_GT(wait, waited_before);
    waited_before = wait;
    ring.form({&member}, now);
    EXPECT_EQ(ring.state(), Ring::State::kNone);
    now = ring.next_tick();
  }
}

}  // namespace
}  // namespace caravan
