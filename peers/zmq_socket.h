#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "peers/keys.h"
#include "proto/messages.h"

namespace caravan {

// A thin, owning cover of libzmq, so that two files know its headers. Errors that are not expected of a swarm
// throw kIo. A socket belongs to one thread.
class ZmqContext {
 public:
  explicit ZmqContext(int io_threads);
  ~ZmqContext();  // waits as long as its sockets linger
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  void* handle() const { return handle_; }

 private:
  void* handle_;
};

// One part of a message that arrived; valid until the next call on its ZmqParts.
class ZmqParts {
 public:
  ZmqParts();
  ~ZmqParts();
  ZmqParts(const ZmqParts&) = delete;
  ZmqParts& operator=(const ZmqParts&) = delete;
  size_t size() const;
  std::span<const std::byte> operator[](size_t part) const;
  // The bytes for whoever holds them; the part is empty then. Null for an empty one.
  SharedBytes take(size_t part);
  // The key that ZAP admitted, of the part that came over the wire; nothing without one.
  std::optional<PeerKey> user(size_t part) const;
  // More parts than kMaxParts came; the rest was dropped.
  bool too_many() const { return too_many_; }

  static constexpr size_t kMaxParts = 8;

 private:
  friend class ZmqSocket;
  struct State;
  std::unique_ptr<State> state_;
  bool too_many_ = false;
};

// What is to be sent as one part: bytes that are copied, or a piece of shared bytes that is not.
struct ZmqPart {
  std::span<const std::byte> copied;
  SharedBytes shared;
  size_t offset = 0, bytes = 0;  // of `shared`
};

struct ZmqPollItem;

class ZmqSocket {
 public:
  enum class Kind { kRouter, kDealer, kReply };
  struct Limits {
    Duration heartbeat{}, timeout{}, handshake{};
  };

  ZmqSocket() = default;
  ZmqSocket(const ZmqContext& context, Kind kind);
  ~ZmqSocket();
  ZmqSocket(ZmqSocket&& other) noexcept;
  ZmqSocket& operator=(ZmqSocket&& other) noexcept;

  // Everything that bounds a connection: sizes, times, no reconnection by itself.
  void set_limits(const Limits& limits);
  void set_server(const KeyPair& keys);
  void set_client(const KeyPair& keys, const PeerKey& server);
  void set_linger(Duration linger);
  // The endpoint as bound, with its port. Throws kIo naming it.
  std::string bind(const std::string& endpoint);
  // False when the endpoint cannot be (an unknown host).
  bool connect(const std::string& endpoint);
  // From now on lost_reason() tells. `name` is unique in the context.
  void watch(const ZmqContext& context, const std::string& name);

  enum class Sent { kYes, kUnreachable };
  Sent send(std::span<const ZmqPart> parts);
  // False when nothing waits.
  bool receive(ZmqParts& parts);
  // Of a watched socket: why its connection, or the attempt to make one, ended; or nothing so far.
  std::optional<std::string> lost_reason();

  explicit operator bool() const { return handle_ != nullptr; }

 private:
  static bool receive(void* handle, ZmqParts& parts);
  void set(int option, int value);
  void set(int option, std::span<const uint8_t> bytes);
  friend void zmq_wait(std::span<ZmqPollItem> items, Duration longest);
  void* handle_ = nullptr;
  void* monitor_ = nullptr;  // where libzmq tells of this socket's connections
};

// Waits until one of the sockets or `descriptor` can be read, or the time is over; marks which.
struct ZmqPollItem {
  const ZmqSocket* socket = nullptr;
  int descriptor = -1;    // without a socket
  bool of_watch = false;  // its lost_reason() instead of its messages
  bool ready = false;
};
void zmq_wait(std::span<ZmqPollItem> items, Duration longest);

}  // namespace caravan
