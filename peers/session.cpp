#include "peers/session.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

// What a frame counts against the window: its bytes and a flat amount, so that empty messages are bounded,
// too.
size_t frame_cost(size_t first_bytes, size_t second_bytes) {
  constexpr size_t kFlat = 256;
  return kFlat + first_bytes + second_bytes;
}

constexpr size_t kMaxFrameCost = 256 + kEnvelopeBytes + limits::kMaxHeaderBytes +
                                 std::max(limits::kFragmentBytes, limits::kShardPartBytes);
static_assert(limits::kLinkWindowBytes >= 16 * kMaxFrameCost, "several frames are under way");
static_assert(limits::kMaxZmqFrameBytes > kEnvelopeBytes + limits::kMaxHeaderBytes);
static_assert(limits::kMaxZmqFrameBytes > std::max(limits::kFragmentBytes, limits::kShardPartBytes));

// How many bytes of rows go in the frame of their message.
size_t most_whole(bool is_ordered) {
  return is_ordered ? limits::kFragmentBytes : limits::kShardPartBytes;
}

// Rows are given room as they come, not as they are announced; up to here at once.
constexpr size_t kFirstRoomBytes = 4u << 20;

}  // namespace

void Session::set_window(uint64_t bytes) {
  if (bytes < 2 * kMaxFrameCost || bytes > (uint64_t{1} << 40))
    fail(ErrorCode::kMalformed, "a window of {} bytes", bytes);
  window_ = bytes;
}

Session::Turn Session::turn_of(const Message& message) {
  if (std::holds_alternative<Heartbeat>(message) || std::holds_alternative<ArchiveProbe>(message))
    return Turn::kFirst;
  return std::holds_alternative<ShardBytes>(message) ? Turn::kLast : Turn::kInOrder;
}

void Session::send(Frames frames, Turn turn, size_t queue_bytes) {
  // What has no order comes whole.
  if (turn != Turn::kInOrder) CHECK((frames.rows ? frames.rows->size() : 0) <= most_whole(false));
  Queued message{turn == Turn::kInOrder ? next_order_++ : 0, std::move(frames), queue_bytes};
  waiting_bytes_ += queue_bytes;
  auto& queue = turn == Turn::kFirst ? first_ : turn == Turn::kLast ? last_ : backlog_;
  queue.push_back(std::move(message));
}

Session::Frame Session::first_frame(Queued& message, Turn turn) {
  const size_t rows = message.frames.rows ? message.frames.rows->size() : 0;
  const bool is_bulk = rows > most_whole(turn == Turn::kInOrder);
  Frame frame;
  frame.lane = is_bulk || turn == Turn::kLast ? Lane::kBulk : Lane::kDecode;
  frame.first = pack({FrameKind::kMessage, Lane::kDecode, message.order, rows}, message.frames.header);
  frame.ends_message = !is_bulk;
  frame.message_bytes = message.queue_bytes;
  if (rows > 0 && !is_bulk) {
    frame.shared = message.frames.rows;
    frame.bytes = rows;
  }
  return frame;
}

std::optional<Session::Frame> Session::fragment() {
  const Queued& message = backlog_.front();
  const SharedBytes& rows = message.frames.rows;
  const size_t bytes = std::min(rows->size() - *fragment_at_, limits::kFragmentBytes);
  const size_t cost = frame_cost(kEnvelopeBytes, bytes);
  if (in_flight_ + cost > window_) return std::nullopt;
  in_flight_ += cost;
  Frame frame;
  frame.lane = Lane::kBulk;
  frame.first = pack({FrameKind::kFragment, Lane::kDecode, message.order, *fragment_at_});
  frame.shared = rows;
  frame.offset = *fragment_at_;
  frame.bytes = bytes;
  *fragment_at_ += bytes;
  if (*fragment_at_ == rows->size()) {
    frame.ends_message = true;
    frame.message_bytes = message.queue_bytes;
    fragment_at_.reset();
    waiting_bytes_ -= message.queue_bytes;
    backlog_.pop_front();
  }
  return frame;
}

std::optional<Session::Frame> Session::next_frame() {
  if (first_.empty() && fragment_at_) return fragment();
  const Turn turn = !first_.empty() ? Turn::kFirst : !backlog_.empty() ? Turn::kInOrder : Turn::kLast;
  auto& queue = turn == Turn::kFirst ? first_ : turn == Turn::kInOrder ? backlog_ : last_;
  if (queue.empty()) return std::nullopt;
  Frame frame = first_frame(queue.front(), turn);
  const size_t cost = frame_cost(frame.first.size(), frame.bytes);
  if (in_flight_ + cost > (turn == Turn::kLast ? window_ / 2 : window_)) return std::nullopt;
  in_flight_ += cost;
  if (frame.ends_message) {
    waiting_bytes_ -= frame.message_bytes;
    queue.pop_front();
  } else {
    fragment_at_ = 0;
  }
  return frame;
}

void Session::receive(Lane lane, const Unpacked& first, SharedBytes second, std::vector<Message>& messages) {
  const Envelope& envelope = first.envelope;
  if (envelope.kind == FrameKind::kCredit) {
    if (envelope.amount > in_flight_)
      fail(ErrorCode::kMalformed, "credit for {} bytes, {} are under way", envelope.amount, in_flight_);
    in_flight_ -= envelope.amount;
    return;
  }
  const size_t cost = frame_cost(kEnvelopeBytes + first.payload.size(), second->size());
  owed_ += cost;
  if (owed_ > limits::kLinkWindowBytes)
    fail(ErrorCode::kLimit, "{} bytes are under way, the window is {}", owed_, limits::kLinkWindowBytes);
  if (envelope.kind == FrameKind::kFragment) return add_fragment(lane, first, *second, cost, messages);
  CHECK(envelope.kind == FrameKind::kMessage);
  if (envelope.amount > most_whole(envelope.number != 0)) {
    if (!second->empty()) fail(ErrorCode::kMalformed, "rows beside a message that announces fragments");
    return begin_assembly(lane, first, cost);
  }
  if (second->size() != envelope.amount)
    fail(ErrorCode::kMalformed, "{} bytes of rows, {} are announced", second->size(), envelope.amount);
  deliver(envelope.number, decode(first.payload, std::move(second), options_), cost, messages);
}

void Session::begin_assembly(Lane lane, const Unpacked& first, size_t cost) {
  if (lane != Lane::kBulk || assembly_) fail(ErrorCode::kMalformed, "fragments where none may begin");
  const uint64_t total = first.envelope.amount;
  const size_t allowed = announced_row_bytes(first.payload, options_);
  if (total > allowed) fail(ErrorCode::kLimit, "{} bytes of rows announced for at most {}", total, allowed);
  assembly_ = Assembly();
  assembly_->order = first.envelope.number;
  assembly_->header.assign(first.payload.begin(), first.payload.end());
  assembly_->total = total;
  assembly_->cost = cost;
  assembly_->rows = std::make_shared<std::vector<std::byte>>();
  assembly_->rows->reserve(std::min<size_t>(total, kFirstRoomBytes));
}

void Session::add_fragment(Lane lane, const Unpacked& first, std::span<const std::byte> second, size_t cost,
                           std::vector<Message>& messages) {
  if (lane != Lane::kBulk || !assembly_ || assembly_->order != first.envelope.number)
    fail(ErrorCode::kMalformed, "a fragment of no message");
  auto& rows = *assembly_->rows;
  if (first.envelope.amount != rows.size() || second.empty() || second.size() > limits::kFragmentBytes ||
      second.size() > assembly_->total - rows.size())
    fail(ErrorCode::kMalformed, "a fragment of {} bytes at {}, {} of {} are there", second.size(),
         first.envelope.amount, rows.size(), assembly_->total);
  rows.insert(rows.end(), second.begin(), second.end());
  not_credited_ += cost;
  if (rows.size() < assembly_->total) return;
  Assembly done = std::move(*assembly_);
  assembly_.reset();
  deliver(done.order, decode(done.header, std::move(done.rows), options_), done.cost, messages);
}

void Session::deliver(uint64_t order, Message message, size_t cost, std::vector<Message>& messages) {
  if (order == 0) {
    if (turn_of(message) == Turn::kInOrder)
      fail(ErrorCode::kMalformed, "a {} without its place in the order", name(message));
    not_credited_ += cost;
    messages.push_back(std::move(message));
    return;
  }
  if (order < expected_ || !held_.emplace(order, Held{std::move(message), cost}).second)
    fail(ErrorCode::kMalformed, "message {} came twice", order);
  for (auto at = held_.begin(); at != held_.end() && at->first == expected_; at = held_.erase(at)) {
    not_credited_ += at->second.cost;
    messages.push_back(std::move(at->second.message));
    ++expected_;
  }
}

uint64_t Session::take_credit() {
  if (not_credited_ < limits::kLinkWindowBytes / 8) return 0;
  owed_ -= not_credited_;
  return std::exchange(not_credited_, 0);
}

}  // namespace caravan
