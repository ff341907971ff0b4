#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "proto/encode.h"
#include "proto/framing.h"
#include "proto/messages.h"

namespace caravan {

// One connection with a neighbour, without its sockets: the order of messages over two lanes, rows in
// fragments, credits in bytes. Frames go in, messages come out; messages go in, frames come out. One thread.
//
// Messages arrive in the order of send(), whatever lane they take. Two kinds stand outside that order:
// heartbeats, which overtake, and parts of weight groups, which wait until nothing else does and never take
// more than half of the window. A message with more rows than one fragment goes over the bulk lane, as groups
// do, so that nothing else is held up in a socket behind it.
class Session {
 public:
  Session(uint64_t id, DecodeOptions options) : id_(id), options_(options) {}

  uint64_t id() const { return id_; }

  struct Frame {
    Lane lane = Lane::kDecode;
    std::vector<std::byte> first;  // envelope and payload
    SharedBytes shared;            // the second part is `bytes` of it from `offset`, if `bytes` > 0
    size_t offset = 0, bytes = 0;
    bool ends_message = false;  // the last frame of a message that counted `message_bytes` in the backlog
    size_t message_bytes = 0;
  };

  enum class Turn : uint8_t { kInOrder, kFirst, kLast };
  static Turn turn_of(const Message& message);
  // Into the backlog; the caller bounds it. `queue_bytes` is what the message counts in it.
  void send(Frames frames, Turn turn, size_t queue_bytes);
  // The next frame that the other side's window has room for.
  std::optional<Frame> next_frame();

  // A frame of kind kMessage, kFragment or kCredit; `second` is its second part, if it has one. Messages that
  // are now due are appended. Throws Error when the other side breaks the protocol: the session is then over.
  void receive(Lane lane, const Unpacked& first, SharedBytes second, std::vector<Message>& messages);
  // Bytes to give back to the other side, once there is enough to be worth a frame; else 0.
  uint64_t take_credit();

  // What waits to be sent, the message that is being cut included.
  size_t waiting_messages() const { return first_.size() + backlog_.size() + last_.size(); }
  size_t waiting_bytes() const { return waiting_bytes_; }

  // The window that the other side announced. Throws Error for one that is too small to be one.
  void set_window(uint64_t bytes);

 private:
  struct Queued {
    uint64_t order = 0;
    Frames frames;
    size_t queue_bytes = 0;
  };
  struct Held {
    Message message;
    size_t cost = 0;
  };
  struct Assembly {
    uint64_t order = 0;
    std::vector<std::byte> header;
    std::shared_ptr<std::vector<std::byte>> rows;
    size_t total = 0;
    size_t cost = 0;  // of the first frame
  };

  Frame first_frame(Queued& message, Turn turn);
  std::optional<Frame> fragment();
  void begin_assembly(Lane lane, const Unpacked& first, size_t cost);
  void add_fragment(Lane lane, const Unpacked& first, std::span<const std::byte> second, size_t cost,
                    std::vector<Message>& messages);
  void deliver(uint64_t order, Message message, size_t cost, std::vector<Message>& messages);

  const uint64_t id_;
  const DecodeOptions options_;

  // Sending.
  std::deque<Queued> first_, backlog_, last_;
  size_t waiting_bytes_ = 0;
  uint64_t next_order_ = 1;
  std::optional<size_t> fragment_at_;  // offset in the rows of backlog_.front(), which is being cut
  uint64_t window_ = 0;
  uint64_t in_flight_ = 0;

  // Receiving.
  uint64_t expected_ = 1;
  std::map<uint64_t, Held> held_;  // arrived before their turn
  std::optional<Assembly> assembly_;
  uint64_t not_credited_ = 0;  // taken and not yet told
  uint64_t owed_ = 0;          // arrived and not yet told
};

}  // namespace caravan
