#include "peers/zmq_socket.h"

#include <zmq.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

[[noreturn]] void fail_zmq(const char* what) {
  fail(ErrorCode::kIo, "ZeroMQ: {}: {}", what, zmq_strerror(zmq_errno()));
}

int milliseconds(Duration duration) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

void release_shared(void*, void* hint) {
  delete static_cast<SharedBytes*>(hint);
}

// As many messages as a window can hold, and answers beside them.
constexpr int kMaxWaitingMessages = static_cast<int>(limits::kLinkWindowBytes / 256 + 1024);

// Below this a copy is cheaper than counting references across threads.
constexpr size_t kCopyBytes = 1024;

void make_part(zmq_msg_t& message, const ZmqPart& part) {
  const std::byte* data = part.shared ? part.shared->data() + part.offset : part.copied.data();
  const size_t bytes = part.shared ? part.bytes : part.copied.size();
  if (part.shared && bytes > kCopyBytes) {
    // libzmq only reads it: encryption and the socket's buffers are copies.
    auto owner = std::make_unique<SharedBytes>(part.shared);
    CHECK(zmq_msg_init_data(&message, const_cast<std::byte*>(data), bytes, release_shared, owner.get()) == 0);
    owner.release();
    return;
  }
  CHECK(zmq_msg_init_size(&message, bytes) == 0);
  if (bytes > 0) std::memcpy(zmq_msg_data(&message), data, bytes);
}

}  // namespace

ZmqContext::ZmqContext(int io_threads) : handle_(zmq_ctx_new()) {
  CHECK(handle_ != nullptr);
  zmq_ctx_set(handle_, ZMQ_IO_THREADS, io_threads);
}

ZmqContext::~ZmqContext() {
  while (zmq_ctx_term(handle_) != 0 && zmq_errno() == EINTR) {
  }
}

struct ZmqParts::State {
  std::array<zmq_msg_t, kMaxParts> messages;
  size_t count = 0;
  void clear() {
    for (size_t i = 0; i < count; ++i) zmq_msg_close(&messages[i]);
    count = 0;
  }
  ~State() { clear(); }
};

ZmqParts::ZmqParts() : state_(std::make_unique<State>()) {}
ZmqParts::~ZmqParts() = default;
size_t ZmqParts::size() const {
  return state_->count;
}

std::span<const std::byte> ZmqParts::operator[](size_t part) const {
  CHECK(part < state_->count);
  zmq_msg_t* message = &state_->messages[part];
  return {static_cast<const std::byte*>(zmq_msg_data(message)), zmq_msg_size(message)};
}

SharedBytes ZmqParts::take(size_t part) {
  CHECK(part < state_->count);
  if (zmq_msg_size(&state_->messages[part]) == 0) return nullptr;
  const auto close = [](zmq_msg_t* one) {
    zmq_msg_close(one);
    delete one;
  };
  auto message = std::make_unique<zmq_msg_t>();
  zmq_msg_init(message.get());
  const std::shared_ptr<zmq_msg_t> taken(message.release(), close);
  CHECK(zmq_msg_move(taken.get(), &state_->messages[part]) == 0);
  const auto* data = static_cast<const std::byte*>(zmq_msg_data(taken.get()));
  return {taken, {data, zmq_msg_size(taken.get())}};
}

std::optional<PeerKey> ZmqParts::user(size_t part) const {
  CHECK(part < state_->count);
  const char* text = zmq_msg_gets(&state_->messages[part], "User-Id");
  PeerKey key;
  if (!text || !from_hex(text, key.bytes.data(), key.bytes.size())) return std::nullopt;
  return key;
}

ZmqSocket::ZmqSocket(const ZmqContext& context, Kind kind) {
  static constexpr std::array<int, 3> kTypes = {ZMQ_ROUTER, ZMQ_DEALER, ZMQ_REP};
  handle_ = zmq_socket(context.handle(), kTypes[static_cast<size_t>(kind)]);
  if (!handle_) fail_zmq("a socket");
  set(ZMQ_LINGER, 0);
  // A send to a route that is gone must say so.
  if (kind == Kind::kRouter) set(ZMQ_ROUTER_MANDATORY, 1);
}

ZmqSocket::~ZmqSocket() {
  // In this order: libzmq's own thread would wait for ever to tell something to a monitor that nobody holds.
  if (monitor_) zmq_socket_monitor(handle_, nullptr, 0);
  if (handle_) zmq_close(handle_);
  if (monitor_) zmq_close(monitor_);
}

ZmqSocket::ZmqSocket(ZmqSocket&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), monitor_(std::exchange(other.monitor_, nullptr)) {}

ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(monitor_, other.monitor_);
  return *this;
}

void ZmqSocket::set(int option, int value) {
  if (zmq_setsockopt(handle_, option, &value, sizeof value) != 0) fail_zmq("an option");
}

void ZmqSocket::set(int option, std::span<const uint8_t> bytes) {
  if (zmq_setsockopt(handle_, option, bytes.data(), bytes.size()) != 0) fail_zmq("a key");
}

void ZmqSocket::set_limits(const Limits& limits) {
  const int64_t frame_bytes = limits::kMaxZmqFrameBytes;
  if (zmq_setsockopt(handle_, ZMQ_MAXMSGSIZE, &frame_bytes, sizeof frame_bytes) != 0) fail_zmq("a limit");
  // A session's window keeps what waits in a socket below this; a peer that makes us answer and does not read
  // runs into it, and one that ignores our window into the other.
  set(ZMQ_SNDHWM, kMaxWaitingMessages);
  set(ZMQ_RCVHWM, 1024);
  set(ZMQ_RECONNECT_IVL, -1);
  set(ZMQ_HANDSHAKE_IVL, milliseconds(limits.handshake));
  set(ZMQ_CONNECT_TIMEOUT, milliseconds(limits.handshake));
  set(ZMQ_HEARTBEAT_IVL, milliseconds(limits.heartbeat));
  set(ZMQ_HEARTBEAT_TIMEOUT, milliseconds(limits.timeout));
  set(ZMQ_HEARTBEAT_TTL, milliseconds(limits.timeout));
}

void ZmqSocket::set_server(const KeyPair& keys) {
  set(ZMQ_CURVE_SERVER, 1);
  set(ZMQ_CURVE_SECRETKEY, std::span(keys.secret_key.bytes));
  // With a domain, a connection without an answer of the ZAP handler is refused.
  if (zmq_setsockopt(handle_, ZMQ_ZAP_DOMAIN, "caravan", 7) != 0) fail_zmq("the ZAP domain");
}

void ZmqSocket::set_client(const KeyPair& keys, const PeerKey& server) {
  set(ZMQ_CURVE_SERVERKEY, std::span(server.bytes));
  set(ZMQ_CURVE_PUBLICKEY, std::span(keys.public_key.bytes));
  set(ZMQ_CURVE_SECRETKEY, std::span(keys.secret_key.bytes));
}

void ZmqSocket::set_linger(Duration linger) {
  set(ZMQ_LINGER, milliseconds(linger));
}

std::string ZmqSocket::bind(const std::string& endpoint) {
  set(ZMQ_IPV6, endpoint.find('[') != std::string::npos ? 1 : 0);
  if (zmq_bind(handle_, endpoint.c_str()) != 0)
    fail(ErrorCode::kIo, "cannot listen on {}: {}", endpoint, zmq_strerror(zmq_errno()));
  std::array<char, 512> bound;
  size_t size = bound.size();
  if (zmq_getsockopt(handle_, ZMQ_LAST_ENDPOINT, bound.data(), &size) != 0) fail_zmq("the bound endpoint");
  return bound.data();
}

bool ZmqSocket::connect(const std::string& endpoint) {
  const bool is_ipv4 = endpoint.find_first_not_of("tcp:/0123456789.") == std::string::npos;
  set(ZMQ_IPV6, is_ipv4 ? 0 : 1);
  return zmq_connect(handle_, endpoint.c_str()) == 0;
}

void ZmqSocket::watch(const ZmqContext& context, const std::string& name) {
  constexpr int kEvents = ZMQ_EVENT_CLOSED | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_DISCONNECTED |
                          ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                          ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
  const std::string address = "inproc://" + name;
  monitor_ = zmq_socket(context.handle(), ZMQ_PAIR);
  if (!monitor_) fail_zmq("a monitor");
  const int no_linger = 0;
  zmq_setsockopt(monitor_, ZMQ_LINGER, &no_linger, sizeof no_linger);
  if (zmq_socket_monitor(handle_, address.c_str(), kEvents) != 0 ||
      zmq_connect(monitor_, address.c_str()) != 0)
    fail_zmq("a monitor");
}

ZmqSocket::Sent ZmqSocket::send(std::span<const ZmqPart> parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    zmq_msg_t message;
    make_part(message, parts[i]);
    const int more = i + 1 < parts.size() ? ZMQ_SNDMORE : 0;
    int rc = 0;
    do {
      rc = zmq_msg_send(&message, handle_, more | ZMQ_DONTWAIT);
    } while (rc < 0 && zmq_errno() == EINTR);
    if (rc >= 0) continue;
    const int error = zmq_errno();
    zmq_msg_close(&message);
    // EHOSTUNREACH: no such route; EAGAIN: a dealer whose connection is gone.
    if (error == EHOSTUNREACH || error == EAGAIN) return Sent::kUnreachable;
    errno = error;
    fail_zmq("sending");
  }
  return Sent::kYes;
}

bool ZmqSocket::receive(ZmqParts& parts) {
  return receive(handle_, parts);
}

bool ZmqSocket::receive(void* handle, ZmqParts& parts) {
  parts.state_->clear();
  parts.too_many_ = false;
  for (bool more = true; more;) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    int rc = 0;
    do {
      rc = zmq_msg_recv(&message, handle, ZMQ_DONTWAIT);
    } while (rc < 0 && zmq_errno() == EINTR);
    if (rc < 0) {
      zmq_msg_close(&message);
      if (zmq_errno() == EAGAIN || zmq_errno() == EFSM) return false;
      fail_zmq("receiving");
    }
    more = zmq_msg_more(&message) != 0;
    auto& state = *parts.state_;
    if (state.count == ZmqParts::kMaxParts) {
      parts.too_many_ = true;
      zmq_msg_close(&message);
      continue;
    }
    zmq_msg_init(&state.messages[state.count]);
    zmq_msg_move(&state.messages[state.count], &message);
    ++state.count;
    zmq_msg_close(&message);
  }
  return true;
}

std::optional<std::string> ZmqSocket::lost_reason() {
  ZmqParts parts;
  std::optional<std::string> reason;
  while (receive(monitor_, parts)) {
    uint16_t event = 0;
    if (parts[0].size() < sizeof event) continue;
    std::memcpy(&event, parts[0].data(), sizeof event);
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
      reason = "it does not admit this key";
    else if (reason)
      continue;  // the first reason says most
    else if (event == ZMQ_EVENT_DISCONNECTED)
      reason = "the connection ended";
    else if (event == ZMQ_EVENT_CLOSED || event == ZMQ_EVENT_CONNECT_RETRIED)
      reason = "nothing answers at its address";
    else
      reason = "the handshake failed";
  }
  return reason;
}

void zmq_wait(std::span<ZmqPollItem> items, Duration longest) {
  std::vector<zmq_pollitem_t> polled;
  polled.reserve(items.size());
  for (const ZmqPollItem& item : items) {
    void* const handle = !item.socket    ? nullptr
                         : item.of_watch ? item.socket->monitor_
                                         : item.socket->handle_;
    polled.push_back({handle, item.descriptor, ZMQ_POLLIN, 0});
  }
  // Rounded up: a timer that is due in half a millisecond must not spin.
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(std::max(longest, Duration::zero()));
  const int rc = zmq_poll(polled.data(), static_cast<int>(polled.size()), wait.count());
  if (rc < 0 && zmq_errno() != EINTR) fail_zmq("waiting");
  for (size_t i = 0; i < items.size(); ++i) items[i].ready = rc > 0 && (polled[i].revents & ZMQ_POLLIN) != 0;
}

}  // namespace caravan
