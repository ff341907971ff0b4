// What a hostile socket can do to a link: nothing. Raw ZeroMQ and TCP sockets send what no peer of ours
// would, while two honest peers talk over the same listener.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "tests/support/link_peer.h"

namespace caravan {
namespace {

using test::LinkPeer;
using test::step_of;
using namespace std::chrono_literals;

// A ZeroMQ DEALER of our own making; sends parts as they are given.
class RawDealer {
 public:
  RawDealer() : context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_DEALER)) {
    const int linger_ms = 0, timeout_ms = 500;
    zmq_setsockopt(socket_, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_setsockopt(socket_, ZMQ_SNDTIMEO, &timeout_ms, sizeof timeout_ms);
    zmq_setsockopt(socket_, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
  }
  ~RawDealer() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  RawDealer(const RawDealer&) = delete;
  RawDealer& operator=(const RawDealer&) = delete;

  void use_curve(const KeyPair& keys, const PeerKey& server) {
    zmq_setsockopt(socket_, ZMQ_CURVE_SERVERKEY, server.bytes.data(), server.bytes.size());
    zmq_setsockopt(socket_, ZMQ_CURVE_PUBLICKEY, keys.public_key.bytes.data(), keys.public_key.bytes.size());
    zmq_setsockopt(socket_, ZMQ_CURVE_SECRETKEY, keys.secret_key.bytes.data(), keys.secret_key.bytes.size());
  }
  void pretend_to_be(const PeerKey& key) {
    zmq_setsockopt(socket_, ZMQ_ROUTING_ID, key.bytes.data(), key.bytes.size());
  }
  void connect(const LinkPeer& to) { zmq_connect(socket_, to.link->endpoints().front().c_str()); }
  void send(const std::vector<std::string>& parts) {
    for (size_t i = 0; i < parts.size(); ++i)
      zmq_send(socket_, parts[i].data(), parts[i].size(), i + 1 < parts.size() ? ZMQ_SNDMORE : 0);
  }
  bool hears_anything() {
    char byte;
    return zmq_recv(socket_, &byte, 1, 0) >= 0;
  }

 private:
  void* context_;
  void* socket_;
};

std::string noise(SeededRandom& random, size_t bytes) {
  std::string made(bytes, '\0');
  random.fill({reinterpret_cast<uint8_t*>(made.data()), bytes});
  return made;
}

// Every kind of nonsense: empty parts, noise as an envelope or a header, too many parts, frames over the
// limit.
void send_nonsense(RawDealer& dealer, uint64_t seed) {
  SeededRandom random(seed);
  dealer.send({""});
  dealer.send({"", "", ""});
  for (const size_t bytes : {1, 8, 64, 500, 5000}) dealer.send({noise(random, bytes)});
  for (const size_t parts : {2, 3, 8, 9, 200})
    dealer.send(std::vector<std::string>(parts, noise(random, 40)));
  dealer.send({noise(random, 40), noise(random, limits::kMaxZmqFrameBytes)});
  dealer.send({noise(random, limits::kMaxZmqFrameBytes + 1)});
  dealer.send({noise(random, size_t{8} << 20)});
}

class HostileLink : public testing::Test {
 protected:
  void SetUp() override {
    honest_.allow(listener_);
    listener_.allow(honest_);
    honest_.connect(listener_);
    ASSERT_TRUE(honest_.log.wait_for<LinkUp>(listener_.key()));
  }
  // The honest peer's messages all come, in order, from it alone, over a connection that never broke.
  void expect_undisturbed() {
    constexpr size_t kCount = 20;
    for (uint64_t i = 1; i <= kCount; ++i)
      while (!honest_.link->send(listener_.key(), step_of(i, 4, 1024))) std::this_thread::sleep_for(1ms);
    ASSERT_TRUE(listener_.log.wait_for<Received>(honest_.key(), kCount));
    const auto received = listener_.log.received(honest_.key());
    ASSERT_EQ(received.size(), kCount);
    for (uint64_t i = 1; i <= kCount; ++i) {
      const auto* step = std::get_if<Step>(&received[i - 1].message);
      ASSERT_TRUE(step);
      EXPECT_TRUE(step->rows.bytes == step_of(i, 4, 1024).rows.bytes);
    }
    EXPECT_EQ(listener_.log.count<LinkDown>(honest_.key()), 0u);
    for (const LinkEvent& event : listener_.log.events())
      if (const auto* message = std::get_if<Received>(&event)) {
        EXPECT_EQ(message->from, honest_.key());
      }
  }
  LinkPeer listener_{1}, honest_{2};
};

TEST_F(HostileLink, WithoutEncryptionNothingIsHeardAndNothingIsSaid) {
  RawDealer plain;
  plain.pretend_to_be(honest_.key());
  plain.connect(listener_);
  send_nonsense(plain, 1);
  EXPECT_FALSE(plain.hears_anything());
  expect_undisturbed();
}

TEST_F(HostileLink, AnUnknownKeyThatTakesAnothersRoutingIdIsStillUnknown) {
  RawDealer stranger;
  stranger.use_curve(LinkPeer::keys_of(77), listener_.key());
  stranger.pretend_to_be(honest_.key());
  stranger.connect(listener_);
  send_nonsense(stranger, 2);
  EXPECT_FALSE(stranger.hears_anything());
  expect_undisturbed();
  EXPECT_GT(listener_.link->refused_strangers(), 0u);
}

// A pinned peer gone mad: its nonsense is dropped with its connection, and is never taken for another's.
TEST_F(HostileLink, APinnedPeersNonsenseHarmsOnlyItself) {
  const KeyPair mad = LinkPeer::keys_of(78);
  listener_.link->allow(mad.public_key);
  for (uint64_t seed = 3; seed < 6; ++seed) {
    RawDealer dealer;
    dealer.use_curve(mad, listener_.key());
    dealer.pretend_to_be(honest_.key());
    dealer.connect(listener_);
    send_nonsense(dealer, seed);
    std::this_thread::sleep_for(50ms);
  }
  expect_undisturbed();
}

// As one of another version, which tries again for as long as it runs.
TEST_F(HostileLink, APinnedPeersNonsenseDoesNotFillTheLog) {
  const KeyPair mad = LinkPeer::keys_of(78);
  listener_.link->allow(mad.public_key);
  testing::internal::CaptureStderr();
  const auto since = std::chrono::steady_clock::now();
  RawDealer dealer;
  dealer.use_curve(mad, listener_.key());
  dealer.connect(listener_);
  for (int i = 0; i < 500; ++i) dealer.send({"nonsense"});
  EXPECT_TRUE(dealer.hears_anything());
  expect_undisturbed();
  const auto passed = std::chrono::steady_clock::now() - since;
  const std::string log = testing::internal::GetCapturedStderr();
  size_t lines = 0;
  for (size_t at = log.find("protocol_broken"); at != std::string::npos;
       at = log.find("protocol_broken", at + 1))
    ++lines;
  EXPECT_GE(lines, 1u);
  EXPECT_LE(static_cast<int64_t>(lines), 2 + passed / 200ms) << log;
}

TEST_F(HostileLink, BytesThatAreNoZeroMqAreCutOff) {
  const std::string endpoint = listener_.link->endpoints().front();
  const auto port = static_cast<uint16_t>(std::atoi(endpoint.substr(endpoint.rfind(':') + 1).c_str()));
  SeededRandom random(9);
  for (int i = 0; i < 8; ++i) {
    const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    // A greeting of ZeroMQ's with nonsense after it, or nonsense alone.
    std::string bytes = noise(random, 20000);
    if (i % 2 == 0) bytes.replace(0, 12, std::string("\xff\0\0\0\0\0\0\0\1\x7f\3\0", 12));
    (void)!::send(descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ::close(descriptor);
  }
  expect_undisturbed();
}

}  // namespace
}  // namespace caravan
