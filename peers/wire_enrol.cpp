#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "peers/wire_thread.h"

namespace caravan {

// --- The head's side ---

void WireThread::on_enrol(const std::string& route, const PeerKey& one_time_key, const Unpacked& first) {
  const EnrolRequest request = parse_enrol_request(first.payload);
  if (const auto why = door_.objection(request, one_time_key, options_.keys, clock_.unix_seconds())) {
    log_warning("enrolment_refused ticket={} reason=\"{}\"", short_string(one_time_key), *why);
    refused_.add(1);
    return answer_route(route, FrameKind::kEnrolRefused, *why);
  }
  try {
    if (callbacks_.admit) callbacks_.admit(request.key, request.name, one_time_key);
  } catch (const Error& error) {
    log_error("enrolment_failed peer={} reason=\"{}\"", short_string(request.key), error.message());
    return answer_route(route, FrameKind::kEnrolRefused, error.message());
  }
  door_.spend(one_time_key);
  door_.allow(request.key);
  log_info("enrolled peer={} name=\"{}\"", short_string(request.key), request.name);
  answer_route(route, FrameKind::kEnrolled, "");
}

// --- The joiner's side ---

void WireThread::handle(Ticket&& ticket) {
  if (enrolment_) end_enrolment("another ticket is tried");
  enrolment_ = Enrolment();
  enrolment_->keys = one_time_keys(ticket);
  enrolment_->ticket = std::move(ticket);
  enrolment_->reason = "it names no address";
  enrol_next(clock_.now());
}

void WireThread::enrol_next(Time now) {
  Enrolment& one = *enrolment_;
  one.socket = ZmqSocket();
  while (one.next_endpoint < one.ticket.endpoints.size()) {
    const std::string& endpoint = one.ticket.endpoints[one.next_endpoint++];
    ZmqSocket socket(context_, ZmqSocket::Kind::kDealer);
    socket.set_limits({options_.heartbeat, options_.timeout, options_.handshake});
    socket.set_client(one.keys, one.ticket.head);
    socket.watch(context_, fmt::format("watch-{}", ++watches_made_));
    if (!socket.connect(endpoint)) {
      one.reason = endpoint + " is no address";
      continue;
    }
    const std::vector<std::byte> frame = pack(
        {FrameKind::kEnrol},
        to_bytes(make_enrol_request(options_.keys, one.ticket.head, one.keys.public_key, options_.name)));
    const std::array<ZmqPart, 1> parts = {ZmqPart{frame, nullptr, 0, 0}};
    socket.send(parts);
    one.socket = std::move(socket);
    one.deadline = now + options_.handshake;
    return;
  }
  end_enrolment(std::string(one.reason));
}

void WireThread::read_enrolment() {
  ZmqParts parts;
  const auto lost = enrolment_->socket.lost_reason();
  while (enrolment_ && enrolment_->socket.receive(parts)) {
    try {
      const Unpacked first = unpack(parts[0]);
      if (first.envelope.kind == FrameKind::kEnrolled) return end_enrolment("");
      if (first.envelope.kind == FrameKind::kEnrolRefused) return end_enrolment(payload_text(first.payload));
    } catch (const Error& error) {
      return end_enrolment("the head breaks the protocol: " + error.message());
    }
  }
  if (!lost || !enrolment_) return;
  enrolment_->reason = *lost == "it does not admit this key"
                           ? "the head does not take this ticket: it is used, expired or not its own"
                           : *lost;
  enrol_next(clock_.now());
}

void WireThread::end_enrolment(const std::string& reason) {
  const PeerKey head = enrolment_->ticket.head;
  enrolment_.reset();
  if (!reason.empty()) log_warning("enrolment_failed head={} reason=\"{}\"", short_string(head), reason);
  if (callbacks_.enrolled) callbacks_.enrolled(head, reason);
}

}  // namespace caravan
