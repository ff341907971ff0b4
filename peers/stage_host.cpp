#include "peers/stage_host.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "peers/lineage.h"

namespace caravan {

void StageHost::start(Time now) {
  actions_.emplace_back(ConnectPeer{options_.head, options_.head_endpoints});
  next_hello_ = now;
}

void StageHost::on(const LinkEvent& event, Time now) {
  if (const auto* up = std::get_if<LinkUp>(&event)) {
    if (up->peer == options_.head) greet(now);
  } else if (const auto* down = std::get_if<LinkDown>(&event)) {
    link_down(*down, now);
  } else {
    const auto& received = std::get<Received>(event);
    receive(received.from, received.message, now);
  }
}

void StageHost::receive(const PeerKey& from, const Message& message, Time now) {
  if (const auto* step = std::get_if<Step>(&message)) return handle(from, *step);
  if (const auto* contract = std::get_if<Contract>(&message)) return handle(from, *contract);
  if (const auto* probe = std::get_if<ArchiveProbe>(&message)) return handle(from, *probe);
  if (from != options_.head) return;  // the rest is the head's to say
  heard_ = now;
  if (const auto* welcome = std::get_if<Welcome>(&message)) handle(*welcome, now);
  if (const auto* refuse = std::get_if<Refuse>(&message)) handle(*refuse);
  if (const auto* heartbeat = std::get_if<Heartbeat>(&message)) handle(*heartbeat, now);
  if (const auto* assign = std::get_if<Assign>(&message)) handle(*assign, now);
  if (const auto* release = std::get_if<Release>(&message)) handle(*release);
  if (const auto* fetch = std::get_if<Fetch>(&message)) handle(*fetch);
  if (const auto* limit = std::get_if<ArchiveLimit>(&message)) handle(*limit);
  if (const auto* goodbye = std::get_if<Goodbye>(&message)) link_down({from, goodbye->reason}, now);
}

// --- The head ---

// Every greeting has an incarnation of its own, so that a head that did not notice the loss of the connection
// learns from it that this side dropped its ring.
void StageHost::greet(Time now) {
  leave_ring();
  state_ = State::kGreeting;
  reason_.clear();
  Hello hello = options_.hello;
  hello.incarnation += ++connections_;
  next_hello_ = now + options_.hello_retry;
  send(options_.head, std::move(hello));
}

void StageHost::handle(const Welcome& welcome, Time now) {
  if (state_ != State::kGreeting && state_ != State::kRefused) return;
  if (welcome.protocol != kProtocolVersion) {
    return handle(
        Refuse{fmt::format("the head speaks version {}, this peer {}", welcome.protocol, kProtocolVersion)});
  }
  state_ = State::kIdle;
  reason_.clear();
  ring_ = welcome.ring;
  heartbeat_ = std::chrono::milliseconds(std::max(welcome.heartbeat_ms, 1u));
  timeout_ = std::chrono::milliseconds(std::max(welcome.peer_timeout_ms, 1u));
  next_heartbeat_ = now;
  log_info("welcomed ring={} head={}", short_string(ring_), welcome.name);
}

void StageHost::handle(const Refuse& refuse) {
  leave_ring();
  state_ = State::kRefused;
  reason_ = refuse.reason;
  log_error("refused head={} reason=\"{}\"", short_string(options_.head), refuse.reason);
}

// The head answers a heartbeat with its own time, and this side gives that time back.
void StageHost::handle(const Heartbeat& heartbeat, Time now) {
  send_heartbeat(heartbeat.sent_ns, now);
}

void StageHost::send_heartbeat(uint64_t echo_ns, Time now) {
  Heartbeat heartbeat;
  heartbeat.sent_ns = static_cast<uint64_t>(now.time_since_epoch().count());
  heartbeat.echo_ns = echo_ns;
  heartbeat.kv_blocks = kv_blocks_;
  heartbeat.kv_blocks_free = kv_blocks_free_;
  heartbeat.open_sequences = static_cast<uint32_t>(open_sequences());
  heartbeat.queued_steps = static_cast<uint32_t>(queued_steps());
  if (assign_) heartbeat.epoch = assign_->epoch;
  heartbeat.last_step = last_finished_;
  heartbeat.fetched_bytes = fetched_bytes_;
  heartbeat.fetch_bytes = fetch_bytes_;
  send(options_.head, heartbeat);
}

void StageHost::link_down(const LinkDown& event, Time now) {
  if (event.peer == options_.head) {
    leave_ring();
    state_ = State::kAlone;
    reason_ = event.reason;
    next_hello_ = now + options_.hello_retry;
    return;
  }
  // Before the ring is ready the contract's deadline decides: the link may still be coming up.
  if (state_ != State::kReady) return;
  for (const Edge* edge : {&upstream_, &downstream_})
    if (edge->peer == event.peer && !edge->to_head)
      return give_up(edge->edge,
                     fmt::format("the link to {} broke: {}", short_string(event.peer), event.reason));
}

void StageHost::reconnect(std::string reason, Time now) {
  actions_.emplace_back(DisconnectPeer{options_.head});
  link_down({options_.head, std::move(reason)}, now);
  actions_.emplace_back(ConnectPeer{options_.head, options_.head_endpoints});
}

// Only what the ring cannot do without counts: the rest is said again.
void StageHost::send_failed(const PeerKey& to, const Message& message, Time now) {
  if (std::holds_alternative<Step>(message)) {
    link_down({to, "its queue is full"}, now);
  } else if (std::holds_alternative<Answer>(message) || std::holds_alternative<StepFailed>(message) ||
             std::holds_alternative<NotReady>(message) || std::holds_alternative<Ready>(message)) {
    if (state_ != State::kAlone && to != options_.self) reconnect("its queue is full", now);
  }
}

void StageHost::tick(Time now) {
  if (state_ == State::kGreeting && now >= next_hello_) {
    Hello hello = options_.hello;
    hello.incarnation += connections_;
    next_hello_ = now + options_.hello_retry;
    send(options_.head, std::move(hello));
  }
  const Duration slept = now - std::exchange(ticked_, now);
  if (state_ == State::kAlone || state_ == State::kGreeting || state_ == State::kRefused) return;
  // After a pause of this process, what the head said meanwhile still waits to be read.
  if (slept > timeout_ / 2) heard_ = std::max(heard_, now - timeout_ / 2);
  if (now - heard_ >= timeout_ && options_.head != options_.self) {
    // A head that is silent for so long has given this peer up, too: greet it anew.
    reconnect(fmt::format("nothing heard for {:.1f} s", seconds(timeout_)), now);
    return;
  }
  if (now >= next_heartbeat_) {
    send_heartbeat(0, now);
    next_heartbeat_ = now + heartbeat_;
  }
  if (!serves() || now < next_contract_) return;
  next_contract_ = now + options_.contract_retry;
  for (const Edge* edge : {&upstream_, &downstream_}) {
    if (!edge->known) send_contract(*edge);
    if (!edge->agreed && now >= contract_deadline_)
      return give_up(edge->edge, fmt::format("no contract from {}", short_string(edge->peer)));
  }
}

Time StageHost::next_tick() const {
  switch (state_) {
    case State::kAlone:
    case State::kRefused:
      return Time::max();
    case State::kGreeting:
      return next_hello_;
    default:
      break;
  }
  Time next = next_heartbeat_;
  if (options_.head != options_.self) next = std::min(next, heard_ + timeout_);
  if (serves() && !(upstream_.known && downstream_.known && upstream_.agreed && downstream_.agreed))
    next = std::min(next, next_contract_);
  return next;
}

// --- The ring ---

std::optional<std::string> StageHost::check(const Assign& assign) const {
  if (assign.route.empty() || assign.route.size() > limits::kMaxPeers || assign.stage >= assign.route.size())
    return "a route without this stage";
  const RouteStage& own = assign.route[assign.stage];
  if (own.peer != options_.self) return "the stage belongs to another peer";
  if (assign.model != options_.hello.model)
    return fmt::format("the ring runs model {}, this peer has {}", short_string(assign.model),
                       short_string(options_.hello.model));
  if (own.span.first >= own.span.last || own.span.last > options_.hello.layers + 2)
    return fmt::format("no units {} to {} in a model of {} layers", own.span.first, own.span.last,
                       options_.hello.layers);
  if (assign.max_rows == 0 || assign.max_rows > limits::kMaxRowsPerStep || assign.context == 0 ||
      assign.context > limits::kMaxContext || assign.max_sequences > limits::kMaxSequences)
    return "sizes outside the limits";
  return std::nullopt;
}

void StageHost::handle(const Assign& assign, Time now) {
  const bool welcome = state_ == State::kIdle || serves() || state_ == State::kFailed;
  if (!welcome || assign.ring != ring_) return;
  if (assign_ && assign.epoch <= assign_->epoch) return;
  const PeerKey old_downstream = assign_ ? downstream_.peer : options_.head;
  const bool still_in_route = std::any_of(assign.route.begin(), assign.route.end(),
                                          [&](const RouteStage& s) { return s.peer == old_downstream; });
  if (still_in_route) downstream_.peer = options_.head;  // keep the connection
  leave_ring();
  if (const auto error = check(assign)) {
    send(options_.head, NotReady{assign.ring, assign.epoch, assign.stage, *error});
    return;
  }
  assign_ = assign;
  state_ = State::kForming;
  reason_.clear();
  contract_ = contract_hash(assign, own_facts());
  const uint32_t stage = assign.stage;
  upstream_ = {stage, stage == 0 ? options_.head : assign.route[stage - 1].peer, stage == 0, false, false};
  downstream_ = {stage + 1, is_last() ? options_.head : assign.route[stage + 1].peer, is_last(), false,
                 false};
  sequences_.emplace(SequenceTable::Limits{assign.context, assign.max_sequences, assign.max_rows});
  const RouteStage& own = assign.route[stage];
  actions_.emplace_back(StagePlan{assign.ring, assign.epoch, stage, own.span, is_last(), assign.codec,
                                  assign.kv_type, assign.context, assign.max_sequences, assign.max_rows,
                                  lineage_of(assign, own_facts())});
  if (!is_last()) actions_.emplace_back(ConnectPeer{downstream_.peer, assign.route[stage + 1].endpoints});
  send_contract(upstream_);
  send_contract(downstream_);
  next_contract_ = now + options_.contract_retry;
  contract_deadline_ = now + timeout_;
  log_info("assigned epoch={} stage={} units={}-{}", assign.epoch.value, stage, own.span.first,
           own.span.last);
}

void StageHost::send_contract(const Edge& edge) {
  send(edge.peer, Contract{assign_->ring, assign_->epoch, edge.edge, edge.to_head, contract_, edge.agreed});
}

void StageHost::handle(const PeerKey& from, const Contract& contract) {
  if (!serves() || !is_current(contract.ring, contract.epoch) || contract.to_head) return;
  for (Edge* edge : {&upstream_, &downstream_}) {
    if (edge->edge != contract.edge || edge->peer != from) continue;
    if (contract.hash != contract_)
      return give_up(edge->edge,
                     fmt::format("the contract of {} is {}, not {}: another model, version, "
                                 "numerics class or route",
                                 short_string(from), short_string(contract.hash), short_string(contract_)));
    edge->agreed = true;
    edge->known |= contract.matched;
    if (!contract.matched) send_contract(*edge);
    become_ready_if_agreed();
  }
}

void StageHost::on(const StagePrepared& event, Time) {
  if (state_ != State::kForming || !is_current(event.ring, event.epoch)) return;
  if (!event.error.empty()) return give_up(assign_->stage, event.error);
  prepared_ = true;
  kv_blocks_ = kv_blocks_free_ = event.kv_blocks;
  forecast_ = event.forecast;
  archive_ = event.archive;
  become_ready_if_agreed();
}

void StageHost::become_ready_if_agreed() {
  if (state_ != State::kForming || !prepared_ || !upstream_.agreed || !downstream_.agreed) return;
  state_ = State::kReady;
  was_ready_ = true;
  send(options_.head, Ready{assign_->ring, assign_->epoch, kv_blocks_, forecast_, archive_});
}

void StageHost::handle(const Release& release) {
  if (!assign_ || assign_->ring != release.ring || release.epoch < assign_->epoch) return;
  leave_ring();
  state_ = State::kIdle;
  reason_ = release.reason;
}

void StageHost::handle(const Fetch& fetch) {
  const bool welcome = state_ == State::kIdle || serves() || state_ == State::kFailed;
  if (!welcome || fetch.ring != ring_) return;
  if (fetch.span.last > options_.hello.layers + 2)
    return send(options_.head, Fetched{fetch.ring, fetch.plan, "the model has no such units"});
  actions_.emplace_back(FetchUnits{fetch.ring, fetch.plan, fetch.span});
}

void StageHost::on(const UnitsFetched& event, Time) {
  if (state_ == State::kAlone || state_ == State::kGreeting || event.ring != ring_) return;
  send(options_.head, Fetched{event.ring, event.plan, event.error});
}

void StageHost::leave_ring() {
  if (!assign_) return;
  actions_.emplace_back(ReleaseStage{assign_->ring, assign_->epoch});
  if (!downstream_.to_head && downstream_.peer != options_.head)
    actions_.emplace_back(DisconnectPeer{downstream_.peer});
  assign_.reset();
  sequences_.reset();
  in_flight_.clear();
  last_accepted_ = last_finished_ = {};
  prepared_ = false;
  kv_blocks_ = kv_blocks_free_ = 0;
  forecast_ = {};
  upstream_ = downstream_ = {};
  if (serves() || state_ == State::kFailed) state_ = State::kIdle;
}

void StageHost::give_up(uint32_t edge, std::string reason) {
  log_line(options_.awaited && !was_ready_ ? LogLevel::kInfo : LogLevel::kWarning,
           fmt::format("stage_failed epoch={} edge={} reason=\"{}\"", assign_->epoch.value, edge, reason));
  send(options_.head, NotReady{assign_->ring, assign_->epoch, edge, reason});
  state_ = State::kFailed;
  reason_ = std::move(reason);
  in_flight_.clear();
}

// --- Steps ---

std::optional<std::string> StageHost::check(const Step& step) const {
  if (in_flight_.size() >= limits::kMaxStepsInFlight)
    return fmt::format("{} steps wait already", in_flight_.size());
  if (step.rows.count > 0 && step.rows.codec != assign_->codec)
    return fmt::format("rows come as {}, {} is agreed", name(step.rows.codec), name(assign_->codec));
  if ((step.rows.count > 0) != (step.rows.byte_count() > 0))
    return "rows without bytes or bytes without rows";
  return std::nullopt;
}

void StageHost::handle(const PeerKey& from, const Step& step) {
  if (!is_current(step.ring, step.epoch) || from != upstream_.peer || state_ != State::kReady ||
      step.step <= last_accepted_) {
    ++refused_steps_;
    log_debug("step_refused from={} epoch={} step={}", short_string(from), step.epoch.value, step.step.value);
    return;
  }
  const StepId expected{last_accepted_.value + 1};
  last_accepted_ = step.step;
  auto error = check(step);
  if (step.step != expected) error = fmt::format("step {} is missing", expected.value);
  if (!error) error = sequences_->apply(step);
  if (error) return fail_step(step.step, std::move(*error));
  Step header = step;
  header.rows.bytes = nullptr;
  // The counters know what came in until the result replaces it.
  header.counters.push_back({assign_->stage, step.rows.count, 0, 0, step.rows.byte_count(), 0});
  in_flight_.push_back(std::move(header));
  actions_.emplace_back(RunSteps{{step}});
}

void StageHost::fail_step(StepId step, std::string reason) {
  log_warning("step_failed epoch={} step={} reason=\"{}\"", assign_->epoch.value, step.value, reason);
  send(options_.head, StepFailed{assign_->ring, assign_->epoch, step, assign_->stage, reason});
  state_ = State::kFailed;
  reason_ = std::move(reason);
  in_flight_.clear();
}

void StageHost::on(StepDone event, Time) {
  if (state_ != State::kReady || !is_current(event.ring, event.epoch)) return;  // released meanwhile
  CHECK(!in_flight_.empty());
  CHECK(in_flight_.front().step == event.step);
  if (!event.error.empty()) return fail_step(event.step, std::move(event.error));
  Step step = std::move(in_flight_.front());
  in_flight_.pop_front();
  last_finished_ = step.step;
  kv_blocks_free_ = event.kv_blocks_free;
  StageCounters& counters = step.counters.back();
  counters.compute_ns = event.compute_ns;
  counters.queue_ns = event.queue_ns;
  counters.bytes_out = event.rows.byte_count();
  if (step.lost.empty()) step.lost_reason = std::move(event.lost_reason);
  for (const SequenceId lost : event.lost)
    if (std::find(step.lost.begin(), step.lost.end(), lost) == step.lost.end()) step.lost.push_back(lost);
  if (is_last()) {
    send(options_.head, Answer{step.ring, step.epoch, step.step, step.canary, std::move(event.rows),
                               std::move(step.counters), std::move(step.lost), std::move(step.lost_reason)});
    return;
  }
  step.rows = std::move(event.rows);
  send(downstream_.peer, std::move(step));
}

// --- The archive ---

// Whatever is wrong with a probe, no answer comes, and the head loads nothing.
void StageHost::handle(const PeerKey& from, const ArchiveProbe& probe) {
  if (!is_current(probe.ring, probe.epoch) || from != upstream_.peer || state_ != State::kReady ||
      probe.to_head || probe.tags.size() != probe.blocks || probe.tags.empty())
    return;
  actions_.emplace_back(FindArchived{probe});
}

void StageHost::handle(const ArchiveLimit& limit) {
  if (state_ == State::kReady && is_current(limit.ring, limit.epoch)) actions_.emplace_back(limit);
}

void StageHost::on(ArchiveFound event, Time) {
  ArchiveProbe& probe = event.probe;
  if (state_ != State::kReady || !is_current(probe.ring, probe.epoch)) return;  // released meanwhile
  probe.blocks = std::min(event.found.blocks, static_cast<uint32_t>(probe.tags.size()));
  probe.load_ns += event.found.load_ns;
  probe.to_head = is_last() || probe.blocks == 0;
  probe.tags.resize(probe.to_head ? 0 : probe.blocks);
  const PeerKey next = probe.to_head ? options_.head : downstream_.peer;
  send(next, std::move(probe));
}

}  // namespace caravan
