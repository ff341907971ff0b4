#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "peers/wire_thread.h"

namespace caravan {
namespace {

// One flooding neighbour must not keep the loop from the others.
constexpr int kFramesPerTurn = 256;

constexpr std::array<Lane, 2> kLanes = {Lane::kDecode, Lane::kBulk};
size_t index(Lane lane) {
  return static_cast<size_t>(lane);
}

ZmqPart part_of(std::span<const std::byte> bytes) {
  return {bytes, nullptr, 0, 0};
}

}  // namespace

WireThread::Connection* WireThread::connection(Neighbour& neighbour, Side side) {
  if (side == Side::kTheirs) return neighbour.theirs ? &*neighbour.theirs : nullptr;
  return neighbour.dialer && neighbour.dialer->is_up ? &neighbour.dialer->connection : nullptr;
}

// --- Connections that we make: a socket is one attempt, and is never used twice ---

void WireThread::dial(Neighbour& neighbour, Time now) {
  Dialer& dialer = *neighbour.dialer;
  dialer.next_try = now + dialer.retry;
  dialer.retry = std::min(dialer.retry * 2, options_.longest_retry);
  if (dialer.endpoints.empty()) {
    dialer.next_try = Time::max();
    return;
  }
  const std::string& endpoint = dialer.endpoints[dialer.next_endpoint++ % dialer.endpoints.size()];
  const uint64_t session = random_.next();
  dialer.connection = {};
  dialer.connection.session = std::make_unique<Session>(session, options_.decode);
  for (const Lane lane : kLanes) {
    ZmqSocket socket(context_, ZmqSocket::Kind::kDealer);
    socket.set_limits({options_.heartbeat, options_.timeout, options_.handshake});
    socket.set_client(options_.keys, neighbour.key);
    socket.watch(context_, fmt::format("watch-{}", ++watches_made_));
    if (!socket.connect(endpoint)) {
      log_debug("connect_failed peer={} endpoint={}", short_string(neighbour.key), endpoint);
      return drop_dialer_sockets(dialer);
    }
    const std::vector<std::byte> hello = pack({FrameKind::kHello, lane, session, limits::kLinkWindowBytes});
    const std::array<ZmqPart, 1> parts = {part_of(hello)};
    socket.send(parts);
    dialer.sockets[index(lane)] = std::move(socket);
  }
  dialer.is_trying = true;
  dialer.deadline = now + options_.handshake;
}

void WireThread::drop_dialer_sockets(Dialer& dialer) {
  for (ZmqSocket& socket : dialer.sockets) socket = ZmqSocket();
  dialer.is_trying = dialer.is_up = false;
}

void WireThread::read_dialer(Neighbour& neighbour) {
  ZmqParts parts;
  for (const Lane lane : kLanes) {
    // What came before the end of a connection is read before the end.
    ZmqSocket& watched = neighbour.dialer->sockets[index(lane)];
    const auto reason = watched ? watched.lost_reason() : std::nullopt;
    for (int frames = 0; frames < kFramesPerTurn; ++frames) {
      ZmqSocket& socket = neighbour.dialer->sockets[index(lane)];
      if (!socket || !socket.receive(parts)) break;
      on_dialer_frame(neighbour, lane, parts);
    }
    const bool is_open = neighbour.dialer->is_trying || neighbour.dialer->is_up;
    if (reason && is_open) lose(neighbour, Side::kOurs, *reason);
  }
}

void WireThread::on_dialer_frame(Neighbour& neighbour, Lane lane, ZmqParts& parts) {
  Dialer& dialer = *neighbour.dialer;
  size_t bytes = 0;
  for (size_t i = 0; i < parts.size(); ++i) bytes += parts[i].size();
  neighbour.outbox->bytes_in.add(bytes);
  try {
    if (parts.size() > 2 || parts.too_many()) fail(ErrorCode::kMalformed, "a message of too many parts");
    const Unpacked first = unpack(parts[0]);
    if (first.envelope.kind == FrameKind::kBye)
      return lose(neighbour, Side::kOurs, payload_text(first.payload));
    if (first.envelope.kind == FrameKind::kHelloAnswer) {
      if (first.envelope.number != dialer.connection.session->id() || first.envelope.lane != lane)
        fail(ErrorCode::kMalformed, "an answer to another hello");
      if (dialer.is_up) return;  // the other lane was faster
      dialer.connection.session->set_window(first.envelope.amount);
      dialer.is_trying = false;
      dialer.is_up = true;
      dialer.retry = options_.first_retry;
      return come_up(neighbour, Side::kOurs);
    }
    if (!dialer.is_up) fail(ErrorCode::kMalformed, "a frame before the answer to a hello");
    on_frame(neighbour, Side::kOurs, lane, first, parts.size() > 1 ? parts.take(1) : nullptr);
  } catch (const Error& error) {
    lose(neighbour, Side::kOurs, "it breaks the protocol: " + error.message());
  }
}

// --- Connections that others make ---

void WireThread::read_router() {
  ZmqParts parts;
  for (int frames = 0; frames < kFramesPerTurn && router_.receive(parts); ++frames) on_router_frame(parts);
}

void WireThread::on_router_frame(ZmqParts& parts) {
  if (parts.size() < 2) return;
  // Who speaks is what the handshake has proven; the routing id only tells connections apart.
  const auto from = parts.user(1);
  if (!from) return;
  const std::string id(reinterpret_cast<const char*>(parts[0].data()), parts[0].size());
  auto route = routes_.find(id);
  if (route != routes_.end() && route->second.peer != *from) {
    // The connection of that name is gone, and another peer chose the name for its own.
    Neighbour& old = neighbour(route->second.peer);
    routes_.erase(route);
    old.greeting.reset();
    if (old.theirs) lose(old, Side::kTheirs, "the connection ended");
    route = routes_.end();
  }
  Neighbour* const known = route == routes_.end() ? nullptr : &neighbour(route->second.peer);
  if (known)
    for (size_t i = 1; i < parts.size(); ++i) known->outbox->bytes_in.add(parts[i].size());

  try {
    if (parts.size() > 3 || parts.too_many()) fail(ErrorCode::kMalformed, "a message of too many parts");
    const Unpacked first = unpack(parts[1]);
    const FrameKind kind = first.envelope.kind;
    if (!door_.is_allowed(*from)) {
      if (kind == FrameKind::kEnrol) return on_enrol(id, *from, first);
      door_.refuse(*from, "(a ticket's key, or one no longer allowed)", clock_.now());
      return refused_.add(1);
    }
    if (kind == FrameKind::kHello && !known) return on_hello(id, *from, first.envelope);
    if (!known) {
      if (kind != FrameKind::kBye) answer_route(id, FrameKind::kBye, "there is no such session");
      return;
    }
    const bool is_session = known->theirs && known->theirs->session->id() == route->second.session;
    if (!is_session) fail(ErrorCode::kMalformed, "a frame before the answer to a hello");
    on_frame(*known, Side::kTheirs, route->second.lane, first, parts.size() > 2 ? parts.take(2) : nullptr);
  } catch (const Error& error) {
    door_.tell_broken(*from, error.message(), clock_.now());
    if (!known) return answer_route(id, FrameKind::kBye, error.message());
    if (known->theirs && known->theirs->session->id() == route->second.session)
      return lose(*known, Side::kTheirs, "it breaks the protocol: " + error.message());
    if (known->greeting) drop_routes(*known->greeting);
    known->greeting.reset();
  }
}

void WireThread::on_hello(const std::string& route, const PeerKey& from, const Envelope& hello) {
  Neighbour& one = neighbour(from);
  const bool is_first = !one.greeting || one.greeting->session->id() != hello.number;
  if (is_first) {
    if (one.greeting) drop_routes(*one.greeting);
    one.greeting = Connection();
    one.greeting->session = std::make_unique<Session>(hello.number, options_.decode);
    one.greeting->session->set_window(hello.amount);
    one.greeting->heard = clock_.now();
  }
  std::string& place = one.greeting->routes[index(hello.lane)];
  if (!place.empty()) fail(ErrorCode::kMalformed, "two hellos for one lane");
  place = route;
  routes_[route] = {from, hello.lane, hello.number};
  if (one.greeting->routes[0].empty() || one.greeting->routes[1].empty()) return;
  if (one.theirs) lose(one, Side::kTheirs, "it connected anew");
  one.theirs = std::move(one.greeting);
  one.greeting.reset();
  for (const Lane lane : kLanes) {
    if (transmit(one, Side::kTheirs, lane,
                 {FrameKind::kHelloAnswer, lane, hello.number, limits::kLinkWindowBytes}))
      continue;
    drop_routes(*one.theirs);
    one.theirs.reset();
    return;
  }
  come_up(one, Side::kTheirs);
}

void WireThread::drop_routes(Connection& connection) {
  for (const std::string& route : connection.routes) routes_.erase(route);
}

void WireThread::answer_route(const std::string& route, FrameKind kind, const std::string& text) {
  const std::vector<std::byte> frame = pack({kind}, text);
  const std::array<ZmqPart, 2> parts = {part_of(std::as_bytes(std::span(route))), part_of(frame)};
  router_.send(parts);  // a route that is gone needs no answer
}

// --- Sessions ---

void WireThread::come_up(Neighbour& neighbour, Side side) {
  Connection& one = *connection(neighbour, side);
  one.heard = clock_.now();
  one.next_ping = one.heard + options_.heartbeat;
  log_debug("connection_up peer={} by={}", short_string(neighbour.key), side == Side::kOurs ? "us" : "it");
  if (neighbour.active) return;
  neighbour.active = side;
  neighbour.outbox->is_up = true;
  callbacks_.event(LinkUp{neighbour.key});
}

void WireThread::lose(Neighbour& neighbour, Side side, const std::string& reason, bool is_silent) {
  Connection* const one = connection(neighbour, side);
  if (one) {
    neighbour.outbox->messages -= static_cast<uint32_t>(one->session->waiting_messages());
    neighbour.outbox->bytes -= one->session->waiting_bytes();
    const std::vector<std::byte> bye =
        pack({FrameKind::kBye}, std::string("the other side ended it: ") + reason);
    transmit(neighbour, side, Lane::kDecode, part_of(bye));
  }
  if (side == Side::kTheirs) {
    if (one) drop_routes(*one);
    neighbour.theirs.reset();
  } else {
    log_debug("connection_lost peer={} reason=\"{}\"", short_string(neighbour.key), reason);
    drop_dialer_sockets(*neighbour.dialer);
    neighbour.dialer->next_try = clock_.now() + neighbour.dialer->retry;
  }
  if (!one || neighbour.active != side) return;
  const Side other = side == Side::kOurs ? Side::kTheirs : Side::kOurs;
  neighbour.active = connection(neighbour, other) ? std::optional(other) : std::nullopt;
  neighbour.outbox->is_up = neighbour.active.has_value();
  if (is_silent) return;
  // What was under way is lost even if another connection stands: the event says so.
  callbacks_.event(LinkDown{neighbour.key, reason});
  if (neighbour.active) callbacks_.event(LinkUp{neighbour.key});
}

void WireThread::on_frame(Neighbour& neighbour, Side side, Lane lane, const Unpacked& first,
                          SharedBytes second) {
  Connection& one = *connection(neighbour, side);
  one.heard = clock_.now();
  switch (first.envelope.kind) {
    case FrameKind::kPong:
      return;
    case FrameKind::kPing:
      if (!transmit(neighbour, side, lane, {FrameKind::kPong, Lane::kDecode, first.envelope.number, 0}))
        lose(neighbour, side, "the connection ended");
      return;
    case FrameKind::kBye:
      return lose(neighbour, side, payload_text(first.payload));
    case FrameKind::kMessage:
    case FrameKind::kFragment:
    case FrameKind::kCredit:
      break;
    default:
      fail(ErrorCode::kMalformed, "a frame that does not belong there");
  }
  std::vector<Message> messages;
  one.session->receive(lane, first, std::move(second), messages);
  const uint64_t credit = one.session->take_credit();
  for (Message& message : messages) {
    neighbour.outbox->messages_in.add(1);
    callbacks_.event(Received{neighbour.key, std::move(message)});
  }
  if (credit > 0 && !transmit(neighbour, side, Lane::kDecode, {FrameKind::kCredit, Lane::kDecode, 0, credit}))
    lose(neighbour, side, "the connection ended");
}

void WireThread::pump(Neighbour& neighbour) {
  if (!neighbour.active) return;
  const Side side = *neighbour.active;
  Session& session = *connection(neighbour, side)->session;
  while (auto frame = session.next_frame()) {
    ZmqPart second;
    second.shared = std::move(frame->shared);
    second.offset = frame->offset;
    second.bytes = frame->bytes;
    const bool is_sent = transmit(neighbour, side, frame->lane, part_of(frame->first), second);
    if (frame->ends_message) {
      neighbour.outbox->messages -= 1;
      neighbour.outbox->bytes -= frame->message_bytes;
    }
    if (!is_sent) return lose(neighbour, side, "the connection ended");
  }
}

bool WireThread::transmit(Neighbour& neighbour, Side side, Lane lane, const ZmqPart& first,
                          const ZmqPart& second) {
  std::array<ZmqPart, 3> parts;
  size_t count = 0;
  const bool is_theirs = side == Side::kTheirs;
  if (is_theirs) parts[count++] = part_of(std::as_bytes(std::span(neighbour.theirs->routes[index(lane)])));
  parts[count++] = first;
  if (second.bytes > 0) parts[count++] = second;
  ZmqSocket& socket = is_theirs ? router_ : neighbour.dialer->sockets[index(lane)];
  if (socket.send(std::span(parts).first(count)) != ZmqSocket::Sent::kYes) return false;
  neighbour.outbox->bytes_out.add(first.copied.size() + second.bytes);
  return true;
}

bool WireThread::transmit(Neighbour& neighbour, Side side, Lane lane, const Envelope& envelope) {
  const std::vector<std::byte> frame = pack(envelope);
  return transmit(neighbour, side, lane, part_of(frame));
}

}  // namespace caravan
