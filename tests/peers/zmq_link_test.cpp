#include "peers/zmq_link.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/limits.h"
#include "tests/support/link_peer.h"

namespace caravan {
namespace {

using test::LinkPeer;
using test::step_of;
using namespace std::chrono_literals;

// The sizes of a run of messages that cross every path: without rows, in one frame, in fragments.
const std::vector<std::pair<uint32_t, uint32_t>> kShapes = {{0, 0},    {1, 50},    {1, 4096},  {4, 4096},
                                                            {5, 4096}, {64, 4096}, {256, 4096}};

void send_all(LinkPeer& from, const LinkPeer& to, uint64_t seed, size_t count) {
  SeededRandom random(seed);
  for (uint64_t i = 1; i <= count; ++i) {
    const auto [rows, width] = kShapes[random.below(kShapes.size())];
    while (!from.link->send(to.key(), step_of(i, rows, width))) std::this_thread::sleep_for(1ms);
  }
}

void expect_all(LinkPeer& at, const LinkPeer& from, uint64_t seed, size_t count) {
  ASSERT_TRUE(at.log.wait_for<Received>(from.key(), count));
  const auto received = at.log.received(from.key());
  ASSERT_EQ(received.size(), count);
  SeededRandom random(seed);
  for (uint64_t i = 1; i <= count; ++i) {
    const auto [rows, width] = kShapes[random.below(kShapes.size())];
    const auto* step = std::get_if<Step>(&received[i - 1].message);
    ASSERT_TRUE(step);
    const Step expected = step_of(i, rows, width);
    ASSERT_EQ(step->step, expected.step);
    ASSERT_EQ(step->rows.count, rows);
    if (rows > 0) {
      ASSERT_TRUE(step->rows.bytes == expected.rows.bytes) << "step " << i;
    }
  }
}

TEST(ZmqLink, CarriesMessagesOfEverySizeBothWaysInOrder) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  ASSERT_TRUE(b.log.wait_for<LinkUp>(a.key()));
  std::thread other([&] { send_all(b, a, 12, 25); });
  send_all(a, b, 21, 25);
  other.join();
  expect_all(b, a, 21, 25);
  expect_all(a, b, 12, 25);
  size_t row_bytes = 0;
  for (const Received& one : b.log.received(a.key()))
    row_bytes += std::get<Step>(one.message).rows.byte_count();
  EXPECT_GE(b.link->traffic(a.key()).bytes_in, row_bytes);
  EXPECT_LE(b.link->traffic(a.key()).bytes_in, row_bytes + row_bytes / 8 + 20'000);  // headers, signs of life
  EXPECT_GE(a.link->traffic(b.key()).bytes_out, row_bytes);
  EXPECT_EQ(a.link->traffic(b.key()).messages_out, 25u);
}

TEST(ZmqLink, ThreePeersFormARing) {
  LinkPeer a(1), b(2), c(3);
  std::vector<LinkPeer*> ring = {&a, &b, &c};
  for (size_t i = 0; i < 3; ++i) ring[(i + 1) % 3]->allow(*ring[i]);
  for (size_t i = 0; i < 3; ++i) ring[i]->connect(*ring[(i + 1) % 3]);
  for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(ring[i]->log.wait_for<LinkUp>(ring[(i + 1) % 3]->key()));
  for (size_t i = 0; i < 3; ++i) send_all(*ring[i], *ring[(i + 1) % 3], i, 15);
  for (size_t i = 0; i < 3; ++i) expect_all(*ring[(i + 1) % 3], *ring[i], i, 15);
}

TEST(ZmqLink, SpeaksIpv6) {
  LinkPeer a(1), b(2, [](ZmqLinkOptions&options) { options.listen = {"tcp://[::1]:0"}; });
  EXPECT_EQ(b.link->endpoints().at(0).substr(0, 11), "tcp://[::1]");
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  send_all(a, b, 5, 5);
  expect_all(b, a, 5, 5);
}

TEST(ZmqLink, TriesTheEndpointsInTurn) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.link->connect(b.key(), {"tcp://127.0.0.1:1", "tcp://nonsense", b.link->endpoints()[0]});
  EXPECT_TRUE(a.log.wait_for<LinkUp>(b.key()));
}

TEST(ZmqLink, RefusesAnEndpointThatIsTaken) {
  LinkPeer a(1);
  try {
    LinkPeer b(2, [&](ZmqLinkOptions& options) { options.listen = a.link->endpoints(); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(error.message().find(a.link->endpoints()[0]), std::string::npos) << error.message();
  }
}

TEST(ZmqLink, AnUnknownKeyGetsNothingAndDisturbsNobody) {
  LinkPeer a(1), b(2), stranger(3);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  stranger.connect(b);
  send_all(a, b, 7, 30);
  expect_all(b, a, 7, 30);
  while (b.link->refused_strangers() < 3) std::this_thread::sleep_for(5ms);
  EXPECT_TRUE(stranger.log.events().empty());
  EXPECT_FALSE(stranger.link->send(b.key(), step_of(1, 0, 0)));
  for (const LinkEvent& event : b.log.events())
    if (const auto* received = std::get_if<Received>(&event)) {
      EXPECT_EQ(received->from, a.key());
    }
  EXPECT_EQ(b.log.count<LinkDown>(a.key()), 0u);
}

TEST(ZmqLink, AFloodOfStrangersDisturbsNobody) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  std::vector<std::unique_ptr<LinkPeer>> flood;
  for (uint64_t i = 0; i < 6; ++i) {
    flood.push_back(std::make_unique<LinkPeer>(
        100 + i, [](ZmqLinkOptions& options) { options.first_retry = options.longest_retry = 1ms; }));
    flood.back()->connect(b);
  }
  while (b.link->refused_strangers() < 40) std::this_thread::sleep_for(5ms);
  send_all(a, b, 9, 20);
  expect_all(b, a, 9, 20);
  EXPECT_EQ(b.log.count<LinkDown>(a.key()), 0u);
  for (const auto& one : flood) EXPECT_TRUE(one->log.events().empty());
}

TEST(ZmqLink, AWrongServerKeyIsNotBelieved) {
  LinkPeer a(1), b(2), c(3);
  b.allow(a);
  // a thinks that c lives at b's address.
  a.link->connect(c.key(), b.link->endpoints());
  EXPECT_FALSE(a.log.wait_for<LinkUp>(c.key(), 1, 300ms));
  EXPECT_TRUE(b.log.events().empty());
}

TEST(ZmqLink, TellsAtOnceWhenAPeerEnds) {
  LinkPeer a(1), b(2);
  auto c = std::make_unique<LinkPeer>(3);
  c->allow(a);
  b.allow(*c);
  a.connect(*c);
  c->connect(b);
  const PeerKey gone = c->key();
  ASSERT_TRUE(a.log.wait_for<LinkUp>(gone));
  ASSERT_TRUE(b.log.wait_for<LinkUp>(gone));
  const auto before = std::chrono::steady_clock::now();
  c.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - before, 1s);
  EXPECT_TRUE(a.log.wait_for<LinkDown>(gone, 1, 1000ms));
  EXPECT_TRUE(b.log.wait_for<LinkDown>(gone, 1, 1000ms));
  EXPECT_FALSE(a.link->send(gone, step_of(1, 0, 0)));
}

TEST(ZmqLink, ConnectsAgainAfterALoss) {
  LinkPeer a(1);
  auto b = std::make_unique<LinkPeer>(2);
  const std::vector<std::string> endpoints = b->link->endpoints();
  const PeerKey key = b->key();
  b->allow(a);
  a.connect(*b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(key));
  b.reset();
  ASSERT_TRUE(a.log.wait_for<LinkDown>(key));
  b = std::make_unique<LinkPeer>(2, [&](ZmqLinkOptions& options) { options.listen = endpoints; });
  b->allow(a);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(key, 2));
  send_all(a, *b, 3, 5);
  expect_all(*b, a, 3, 5);
}

TEST(ZmqLink, DisconnectIsSilentHereAndToldThere) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(b.log.wait_for<LinkUp>(a.key()));
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  a.link->disconnect(b.key());
  EXPECT_TRUE(b.log.wait_for<LinkDown>(a.key()));
  EXPECT_EQ(a.log.count<LinkDown>(b.key()), 0u);
  while (a.link->send(b.key(), step_of(1, 0, 0))) std::this_thread::sleep_for(1ms);
}

TEST(ZmqLink, AForbiddenPeerIsPutOut) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(b.log.wait_for<LinkUp>(a.key()));
  b.link->forbid(a.key());
  EXPECT_TRUE(b.log.wait_for<LinkDown>(a.key()));
  EXPECT_TRUE(a.log.wait_for<LinkDown>(b.key()));
  EXPECT_FALSE(b.log.wait_for<LinkUp>(a.key(), 2, 300ms));
}

TEST(ZmqLink, BothMayConnectAndNothingIsLostOrDoubled) {
  LinkPeer a(1), b(2);
  a.allow(b);
  b.allow(a);
  a.connect(b);
  b.connect(a);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  ASSERT_TRUE(b.log.wait_for<LinkUp>(a.key()));
  std::thread other([&] { send_all(b, a, 31, 20); });
  send_all(a, b, 13, 20);
  other.join();
  expect_all(b, a, 13, 20);
  expect_all(a, b, 31, 20);
  EXPECT_EQ(a.log.count<LinkUp>(b.key()), 1u);
  EXPECT_EQ(b.log.count<LinkUp>(a.key()), 1u);
}

TEST(ZmqLink, HeartbeatsOvertakeALongPrompt) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  for (uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(a.link->send(b.key(), step_of(i, 512, 4096)));
  ASSERT_TRUE(a.link->send(b.key(), Heartbeat{}));
  ASSERT_TRUE(b.log.wait_for<Received>(a.key(), 5));
  const auto received = b.log.received(a.key());
  EXPECT_FALSE(std::holds_alternative<Heartbeat>(received.back().message));
}

TEST(ZmqLink, QuestionsToArchivesOvertakeALongPrompt) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  for (uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(a.link->send(b.key(), step_of(i, 512, 4096)));
  ArchiveProbe probe;
  probe.tags.resize(limits::kMaxTagsPerStep);
  probe.blocks = limits::kMaxTagsPerStep;
  ASSERT_TRUE(a.link->send(b.key(), probe));
  ASSERT_TRUE(b.log.wait_for<Received>(a.key(), 5));
  const auto received = b.log.received(a.key());
  EXPECT_FALSE(std::holds_alternative<ArchiveProbe>(received.back().message));
}

TEST(ZmqLink, AFullQueueRefusesInsteadOfWaiting) {
  LinkPeer a(1), b(2);
  b.allow(a);
  a.connect(b);
  ASSERT_TRUE(a.log.wait_for<LinkUp>(b.key()));
  // Rows are shared, so this is cheap until they are sent.
  const Step big = step_of(1, 512, 4096);
  size_t sent = 0;
  const auto before = std::chrono::steady_clock::now();
  while (a.link->send(b.key(), big)) ASSERT_LE(++sent, 200u) << "the backlog has no bound";
  EXPECT_LT(std::chrono::steady_clock::now() - before, 1s);
  EXPECT_GE(sent + 1, limits::kMaxQueuedBytes / big.rows.byte_count());
  EXPECT_EQ(b.log.count<LinkDown>(a.key()), 0u);
}

}  // namespace
}  // namespace caravan
