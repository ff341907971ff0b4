#include "peers/wire_thread.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "peers/endpoint.h"

namespace caravan {
namespace {

constexpr size_t kCommands = 4 * limits::kMaxQueuedMessages;
constexpr int kZapRequestsPerTurn = 64;
// Time for a goodbye to leave.
constexpr Duration kLinger = std::chrono::milliseconds(100);

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ZmqPart text_part(std::string_view text) {
  ZmqPart part;
  part.copied = std::as_bytes(std::span(text.data(), text.size()));
  return part;
}

}  // namespace

WireThread::WireThread(ZmqLinkOptions options, const Clock& clock, Random& random, ZmqLinkCallbacks callbacks)
    : options_(std::move(options)),
      clock_(clock),
      random_(random),
      callbacks_(std::move(callbacks)),
      commands_(kCommands),
      context_(options_.io_threads),
      zap_(context_, ZmqSocket::Kind::kReply),
      router_(context_, ZmqSocket::Kind::kRouter) {
  zap_.bind("inproc://zeromq.zap.01");
  router_.set_limits({options_.heartbeat, options_.timeout, options_.handshake});
  router_.set_server(options_.keys);
  for (const std::string& endpoint : options_.listen)
    endpoints_.push_back(router_.bind(to_string(parse_endpoint(endpoint, true))));
  for (const PeerKey& key : options_.allowed) door_.allow(key);
  for (const OpenTicket& ticket : options_.tickets) door_.add_ticket(ticket);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) fail(ErrorCode::kIo, "no eventfd for the wire thread");
  thread_ = std::thread([this] { run(); });
}

WireThread::~WireThread() {
  post(StopCommand{});
  thread_.join();
  close(wake_);
}

std::shared_ptr<Outbox> WireThread::outbox(const PeerKey& peer) {
  std::lock_guard lock(outboxes_mutex_);
  auto& outbox = outboxes_[peer];
  if (!outbox) outbox = std::make_shared<Outbox>();
  return outbox;
}

bool WireThread::try_post(WireCommand&& command) {
  if (!commands_.try_post(std::move(command))) return false;
  const uint64_t one = 1;
  // A counter that is full wakes as well.
  if (write(wake_, &one, sizeof one) < 0) return true;
  return true;
}

void WireThread::post(WireCommand command) {
  if (!commands_.post(std::move(command))) return;
  const uint64_t one = 1;
  if (write(wake_, &one, sizeof one) < 0) return;
}

WireThread::Neighbour& WireThread::neighbour(const PeerKey& key) {
  Neighbour& found = neighbours_[key];
  if (!found.outbox) {
    found.key = key;
    found.outbox = outbox(key);
  }
  return found;
}

// --- The loop ---

void WireThread::run() {
  try {
    turned_ = clock_.now();
    while (!is_stopping_) turn();
  } catch (const Error& error) {
    // A socket or the system failed in a way that nobody expects: every neighbour is lost.
    log_error("wire_failed reason=\"{}\"", error.message());
    for (auto& [key, one] : neighbours_)
      if (one.active) {
        one.outbox->is_up = false;
        callbacks_.event(LinkDown{key, error.message()});
      }
    commands_.close();
  }
}

void WireThread::turn() {
  wait();
  handle_commands();
  serve_zap();
  read_router();
  for (auto& [key, one] : neighbours_)
    if (one.dialer) read_dialer(one);
  if (enrolment_) read_enrolment();
  for (auto& [key, one] : neighbours_) pump(one);
  tick(clock_.now());
}

void WireThread::wait() {
  std::vector<ZmqPollItem> items;
  items.push_back({nullptr, wake_});
  items.push_back({&zap_});
  items.push_back({&router_});
  for (const auto& [key, one] : neighbours_) {
    if (!one.dialer) continue;
    for (const ZmqSocket& socket : one.dialer->sockets) {
      if (!socket) continue;
      items.push_back({&socket});
      items.push_back({&socket, -1, true});
    }
  }
  if (enrolment_ && enrolment_->socket) {
    items.push_back({&enrolment_->socket});
    items.push_back({&enrolment_->socket, -1, true});
  }
  const Time now = clock_.now();
  const Time next = next_timer();
  constexpr Duration kLongest = std::chrono::seconds(10);
  const Duration longest = next > now + kLongest ? kLongest : std::max(next - now, Duration::zero());
  zmq_wait(items, longest);
  uint64_t count = 0;
  if (items[0].ready && read(wake_, &count, sizeof count) < 0) return;
}

Time WireThread::next_timer() const {
  Time next = Time::max();
  const auto of_connection = [&](const Connection& connection) {
    next = std::min({next, connection.next_ping, connection.heard + options_.timeout});
  };
  for (const auto& [key, one] : neighbours_) {
    if (one.theirs) of_connection(*one.theirs);
    if (one.greeting) next = std::min(next, one.greeting->heard + options_.handshake);
    if (!one.dialer) continue;
    if (one.dialer->is_up)
      of_connection(one.dialer->connection);
    else
      next = std::min(next, one.dialer->is_trying ? one.dialer->deadline : one.dialer->next_try);
  }
  if (enrolment_) next = std::min(next, enrolment_->deadline);
  return next;
}

void WireThread::tick(Time now) {
  // After a pause of this process, what the others said meanwhile still waits in the sockets. With a
  // connection a turn comes at least once a heartbeat.
  const Duration slept = now - std::exchange(turned_, now);
  const bool was_paused = slept > options_.heartbeat + options_.timeout / 2;
  for (auto& [key, one] : neighbours_) {
    if (was_paused) {
      if (one.theirs) one.theirs->heard = now;
      if (one.dialer) one.dialer->connection.heard = now;
    }
    tick(one, now);
  }
  if (enrolment_ && now >= enrolment_->deadline) {
    enrolment_->reason = "it does not answer";
    enrol_next(now);
  }
}

void WireThread::tick(Neighbour& neighbour, Time now) {
  if (neighbour.greeting && now >= neighbour.greeting->heard + options_.handshake) {
    drop_routes(*neighbour.greeting);
    neighbour.greeting.reset();
  }
  for (const Side side : {Side::kOurs, Side::kTheirs}) {
    Connection* const one = connection(neighbour, side);
    if (!one) continue;
    if (now >= one->heard + options_.timeout) {
      lose(neighbour, side, fmt::format("nothing heard for {:.1f} s", seconds(options_.timeout)));
      continue;
    }
    if (now < one->next_ping) continue;
    one->next_ping = now + options_.heartbeat;
    const auto number = static_cast<uint64_t>(now.time_since_epoch().count());
    // Both lanes: a lane that is gone shows at the next sending.
    if (!transmit(neighbour, side, Lane::kDecode, {FrameKind::kPing, Lane::kDecode, number, 0}) ||
        !transmit(neighbour, side, Lane::kBulk, {FrameKind::kPing, Lane::kDecode, number, 0}))
      lose(neighbour, side, "the connection ended");
  }
  if (!neighbour.dialer || neighbour.dialer->is_up) return;
  Dialer& dialer = *neighbour.dialer;
  if (dialer.is_trying && now >= dialer.deadline) lose(neighbour, Side::kOurs, "it does not answer");
  if (!dialer.is_trying && now >= dialer.next_try) dial(neighbour, now);
}

// --- Commands ---

void WireThread::handle_commands() {
  while (auto command = commands_.try_take()) {
    std::visit(
        [this](auto&& one) {
          using Command = std::decay_t<decltype(one)>;
          if constexpr (std::is_same_v<Command, StopCommand>)
            stop();
          else if constexpr (std::is_same_v<Command, OpenTicket>)
            door_.add_ticket(one);
          else
            handle(std::move(one));
        },
        std::move(*command));
    if (is_stopping_) return;
  }
}

void WireThread::handle(ConnectCommand&& command) {
  Neighbour& one = neighbour(command.peer);
  if (!one.dialer) one.dialer = Dialer();
  Dialer& dialer = *one.dialer;
  if (dialer.endpoints == command.endpoints) return;
  dialer.endpoints = std::move(command.endpoints);
  dialer.next_endpoint = 0;
  dialer.retry = options_.first_retry;
  if (!dialer.is_up && !dialer.is_trying) dialer.next_try = clock_.now();
}

void WireThread::handle(DisconnectCommand&& command) {
  Neighbour& one = neighbour(command.peer);
  if (!one.dialer) return;
  lose(one, Side::kOurs, "", true);
  one.dialer.reset();
}

void WireThread::handle(SendCommand&& command) {
  Neighbour& one = neighbour(command.peer);
  const size_t bytes = queue_bytes(command.message);
  const auto forget = [&] {
    one.outbox->messages -= 1;
    one.outbox->bytes -= bytes;
  };
  Connection* const way = one.active ? connection(one, *one.active) : nullptr;
  if (!way) return forget();
  try {
    way->session->send(encode(command.message), Session::turn_of(command.message), bytes);
    one.outbox->messages_out.add(1);
  } catch (const Error& error) {
    log_error("message_dropped to={} kind={} reason=\"{}\"", short_string(command.peer),
              name(command.message), error.message());
    forget();
  }
}

void WireThread::handle(AllowCommand&& command) {
  if (command.is_allowed) return door_.allow(command.peer);
  door_.forbid(command.peer);
  Neighbour& one = neighbour(command.peer);
  if (one.theirs) lose(one, Side::kTheirs, "it is no longer allowed");
}

void WireThread::stop() {
  for (auto& [key, one] : neighbours_) {
    pump(one);
    for (const Side side : {Side::kOurs, Side::kTheirs}) {
      if (!connection(one, side)) continue;
      const std::vector<std::byte> bye = pack({FrameKind::kBye}, std::string("it ends"));
      transmit(one, side, Lane::kDecode, ZmqPart{bye, nullptr, 0, 0});
    }
    if (one.dialer)
      for (ZmqSocket& socket : one.dialer->sockets)
        if (socket) socket.set_linger(kLinger);
  }
  router_.set_linger(kLinger);
  commands_.close();
  is_stopping_ = true;
}

// --- ZAP (ZeroMQ's RFC 27): who may finish a handshake with the router ---

void WireThread::serve_zap() {
  ZmqParts parts;
  for (int i = 0; i < kZapRequestsPerTurn && zap_.receive(parts); ++i) {
    // version, request id, domain, address, routing id, mechanism, key
    const std::string request_id = parts.size() > 1 ? text_of(parts[1]) : "";
    const std::string address = parts.size() > 3 ? text_of(parts[3]) : "";
    PeerKey key;
    const bool is_curve = parts.size() == 7 && !parts.too_many() && text_of(parts[0]) == "1.0" &&
                          text_of(parts[5]) == "CURVE" && parts[6].size() == key.bytes.size();
    auto verdict = Doorkeeper::Verdict::kStranger;
    if (is_curve) {
      std::memcpy(key.bytes.data(), parts[6].data(), key.bytes.size());
      verdict = door_.judge(key, clock_.unix_seconds());
    }
    const bool is_admitted = verdict != Doorkeeper::Verdict::kStranger;
    if (!is_admitted) {
      door_.refuse(key, address, clock_.now());
      refused_.add(1);
    }
    const std::string user = is_admitted ? to_string(key) : "";
    const std::array<ZmqPart, 6> reply = {text_part("1.0"),
                                          text_part(request_id),
                                          text_part(is_admitted ? "200" : "400"),
                                          text_part(is_admitted ? "OK" : "unknown key"),
                                          text_part(user),
                                          ZmqPart{}};
    zap_.send(reply);
  }
}

}  // namespace caravan
