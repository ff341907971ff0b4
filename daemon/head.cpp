#include "daemon/head.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <tuple>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"

namespace caravan {
namespace {

constexpr Duration kFetchAgain = std::chrono::seconds(10);

SchedulerOptions scheduler_options(const HeadOptions& options) {
  SchedulerOptions made = options.scheduler;
  if (options.archive_key) made.tagger.emplace(*options.archive_key, options.ring.model);
  return made;
}

// Steps of little but computing prompts, in pieces of some size: what they take tells what prompts cost.
bool is_of_prompts(const StepPlan& plan) {
  return plan.load_tags.empty() && 4 * size_t{plan.prompt_rows} >= 3 * plan.tokens.size() &&
         plan.prompt_rows >= limits::kKvBlockPositions;
}

void blend_into(double& mean, double value) {
  mean = mean == 0 ? value : 0.95 * mean + 0.05 * value;
}

// For people: why a peer can get no layer, whatever the cut; else empty.
std::string too_small(const RingOptions& ring, const Hello& hello) {
  uint64_t least = UINT64_MAX;
  for (const LayerCost& layer : ring.layers) least = std::min(least, layer.bytes);
  if (ring.layers.empty() || hello.memory_bytes >= least) return "";
  return fmt::format("it offers {}, the least layer takes {} with its KV",
                     to_string(Bytes{hello.memory_bytes}), to_string(Bytes{least}));
}

}  // namespace

Head::Head(HeadOptions options)
    : options_(std::move(options)),
      members_(options_.members),
      ring_(options_.ring),
      scheduler_(scheduler_options(options_)),
      probes_(options_.probes) {}

RequestId Head::submit(TokenRequest request, Time now) {
  if (!ready() && !growing_) fail(ErrorCode::kUnavailable, "the ring is not ready: {}", ring_.reason());
  const RequestId id = scheduler_.submit(std::move(request));
  pump(now);
  return id;
}

void Head::cancel(RequestId request, Time now) {
  scheduler_.cancel(request);
  pump(now);
}

void Head::on(const LinkEvent& event, Time now) {
  if (const auto* down = std::get_if<LinkDown>(&event)) {
    if (const auto left = members_.leave(down->peer, down->reason)) lost(*left, now);
  } else if (const auto* received = std::get_if<Received>(&event)) {
    receive(received->from, received->message, now);
  }
  pump(now);
}

void Head::receive(const PeerKey& from, Message message, Time now) {
  if (const auto* hello = std::get_if<Hello>(&message)) return handle(from, *hello, now);
  if (!members_.heard(from, now)) return;  // it must greet first
  if (const auto* heartbeat = std::get_if<Heartbeat>(&message)) {
    if (const auto answer = members_.on(from, *heartbeat, now))
      actions_.emplace_back(SendMessage{from, *answer});
  } else if (const auto* goodbye = std::get_if<Goodbye>(&message)) {
    if (const auto left = members_.leave(from, "it left: " + goodbye->reason)) lost(*left, now);
  } else if (const auto* contract = std::get_if<Contract>(&message)) {
    ring_.on(from, *contract);
  } else if (const auto* stage_ready = std::get_if<Ready>(&message)) {
    if (!ring_.on(from, *stage_ready)) return;
    if (const auto stage = ring_.stage_of(from)) {
      provision_.hosts(from, ring_.assignment()->route[*stage].span);
      wishes_stale_ = true;
    }
  } else if (const auto* fetched = std::get_if<Fetched>(&message)) {
    handle(from, *fetched, now);
  } else if (const auto* not_ready = std::get_if<NotReady>(&message)) {
    handle(from, *not_ready, now);
  } else if (const auto* failed = std::get_if<StepFailed>(&message)) {
    handle(from, *failed, now);
  } else if (const auto* found = std::get_if<ArchiveProbe>(&message)) {
    handle(from, *found, now);
  } else if (auto* answer = std::get_if<Answer>(&message)) {
    const bool is_last = pipeline_ && ring_.stage_of(from) == ring_.assignment()->route.size() - 1;
    if (is_last) pipeline_->on(std::move(*answer), now);
  }
}

void Head::on(EmbedDone done, Time now) {
  if (pipeline_) pipeline_->on(std::move(done), now);
  pump(now);
}

void Head::on(OutputDone done, Time now) {
  if (pipeline_) pipeline_->on(std::move(done));
  pump(now);
}

void Head::tick(Time now) {
  for (const Membership::Lost& gone : members_.tick(now)) lost(gone, now);
  ring_.tick(now);
  check_overdue(now);
  give_up_probes(now);
  pump(now);
}

Time Head::next_tick() const {
  Time next = std::min({members_.next_tick(), ring_.next_tick(), probes_.next_tick(), fetch_again_});
  if (ring_.state() == Ring::State::kNone) next = std::min(next, probation_.next_return(told_));
  if (pipeline_)
    if (const auto overdue = pipeline_->travelling()) next = std::min(next, overdue->since + step_limit());
  return next;
}

// --- Peers ---

void Head::handle(const PeerKey& from, const Hello& hello, Time now) {
  Membership::Greeting greeting = members_.greet(from, hello, now);
  if (greeting.was_member) lost({from, hello.name, "it lost its connection or started anew"}, now);
  if (const auto* refuse = std::get_if<Refuse>(&greeting.reply))
    log_warning("peer_refused peer={} name={} reason=\"{}\"", short_string(from), hello.name, refuse->reason);
  if (greeting.is_new) probation_.forget(from);
  if (greeting.is_new) provision_.forget(from);
  wishes_stale_ |= greeting.is_new;
  if (greeting.is_new)
    log_info("peer_joined peer={} name={} memory={}", short_string(from), hello.name, hello.memory_bytes);
  if (const std::string small = too_small(options_.ring, hello); greeting.is_new && !small.empty())
    log_warning("peer_gets_no_layer peer={} name={} reason=\"{}\"", short_string(from), hello.name, small);
  actions_.emplace_back(SendMessage{from, std::move(greeting.reply)});
}

void Head::lost(const Membership::Lost& gone, Time now) {
  log_warning("peer_lost peer={} name={} reason=\"{}\"", short_string(gone.key), gone.name, gone.reason);
  provision_.forget(gone.key);
  wishes_stale_ = true;
  if (!ring_.stage_of(gone.key)) return;
  fail_ring(fmt::format("peer {} ({}) was lost: {}", gone.name, short_string(gone.key), gone.reason), now,
            gone.key);
}

void Head::handle(const PeerKey& from, const NotReady& message, Time now) {
  const auto stage = ring_.stage_of(from);
  if (!stage || !ring_.is_current(message.ring, message.epoch)) return;
  const auto& route = ring_.assignment()->route;
  // A stage speaks for its own two edges alone.
  const uint32_t edge = std::clamp(message.edge, *stage, *stage + 1);
  blame(from, message.reason, now);
  fail_ring(fmt::format("{}: {} says: {}", ring_.describe_edge(edge), route[*stage].name, message.reason),
            now);
}

void Head::handle(const PeerKey& from, const StepFailed& message, Time now) {
  const auto stage = ring_.stage_of(from);
  if (!stage || !ring_.is_current(message.ring, message.epoch)) return;
  blame(from, message.reason, now);
  fail_ring(fmt::format("peer {} failed at step {}: {}", ring_.assignment()->route[*stage].name,
                        message.step.value, message.reason),
            now);
}

// A stage failed by its own word. Whoever does so again and again is left out of the next rings.
void Head::blame(const PeerKey& peer, const std::string& reason, Time now) {
  if (!probation_.failed(peer, reason, now)) return;
  const Member* member = members_.find(peer);
  log_line(ring_.failure_level(), fmt::format("peer_left_out peer={} name={} reason=\"{}\"",
                                              short_string(peer), member ? member->hello.name : "", reason));
}

void Head::handle(const PeerKey& from, const Fetched& message, Time now) {
  if (!provision_.on(from, message)) return;
  if (message.reason.empty()) {
    wishes_stale_ = true;
    considered_ = 0;  // it may make a better ring now
    return;
  }
  // It costs the others nothing meanwhile, and room may come any time.
  fetch_again_ = std::min(fetch_again_, now + kFetchAgain);
  log_warning("fetch_failed peer={} reason=\"{}\"", short_string(from), message.reason);
}

std::vector<const Member*> Head::candidates(Time now) {
  const std::vector<const Member*> all = able(now);
  if (std::none_of(all.begin(), all.end(), [](const Member* member) { return member->hello.fetches; }))
    return all;
  const auto lacking = [&](const std::vector<const Member*>& members) {
    std::vector<std::pair<const Member*, UnitSpan>> found;
    for (const RouteStage& stage : ring_.route(members)) {
      const Member* const member = members_.find(stage.peer);
      if (!provision_.has(*member, stage.span)) found.emplace_back(member, stage.span);
    }
    return found;
  };
  const auto wanted = lacking(all);
  std::vector<const Member*> rest = all;
  for (auto without = wanted; !without.empty(); without = lacking(rest))
    std::erase_if(rest, [&](const Member* member) {
      return std::any_of(without.begin(), without.end(),
                         [&](const auto& one) { return one.first == member; });
    });
  // Where the others do not hold the model, the ring forms all the same, and its stages fetch.
  if (wanted.empty() || ring_.route(rest).empty()) return all;
  if (ready() && !ring_.could_grow(all)) return rest;
  for (const auto& [member, span] : wanted)
    if (const auto fetch = provision_.ask(member->key, options_.ring.id, span))
      actions_.emplace_back(SendMessage{member->key, *fetch});
  return rest;
}

std::vector<const Member*> Head::able(Time now) const {
  std::vector<const Member*> members = members_.members();
  members.erase(std::remove_if(members.begin(), members.end(),
                               [&](const Member* member) { return probation_.is_out(member->key, now); }),
                members.end());
  // Whoever joins first after a restart, each gets the layers it had, of which it has an archive. This
  // process stays in front, where a hop to it is none.
  const auto place = [this](const Member* member) {
    return std::tuple(member->key != options_.ring.self, std::string_view(member->hello.name), member->key);
  };
  std::sort(members.begin(), members.end(),
            [&](const Member* one, const Member* other) { return place(one) < place(other); });
  return members;
}

std::vector<Head::LeftOut> Head::left_out(Time now) const {
  std::vector<LeftOut> out;
  for (const Member* member : members_.members())
    if (probation_.is_out(member->key, now))
      out.push_back({member->hello.name, probation_.reason(member->key, now)});
  return out;
}

void Head::fail_ring(std::string reason, Time now, std::optional<PeerKey> gone) {
  if (ring_.state() == Ring::State::kNone) return;
  pipeline_.reset();
  canaries_ = 0;
  growing_ = false;
  probes_.forget();
  scheduler_.close_ring(Error(ErrorCode::kUnavailable, reason));
  for (const RouteStage& stage : ring_.assignment()->route) provision_.unask(stage.peer);
  ring_.fail(std::move(reason), now, gone);
}

std::string Head::where_it_stopped(StepId step) const {
  const auto& assign = ring_.assignment();
  for (uint32_t stage = 0; stage < assign->route.size(); ++stage) {
    const Member* member = members_.find(assign->route[stage].peer);
    if (member == nullptr || member->last.epoch != assign->epoch || member->last.last_step < step)
      return ring_.describe_edge(stage);
  }
  return ring_.describe_edge(static_cast<uint32_t>(assign->route.size()));
}

void Head::check_overdue(Time now) {
  if (!pipeline_) return;
  const auto overdue = pipeline_->travelling();
  const Duration limit = step_limit();
  if (!overdue || now - overdue->since < limit) return;
  fail_ring(fmt::format("{}: {} {} did not come back within {:.1f} s", where_it_stopped(overdue->step),
                        canaries_ > 0 ? "canary" : "step", overdue->step.value, seconds(limit)),
            now);
}

// --- Steps ---

uint32_t Head::window() const {
  if (options_.window != 0) return std::min(options_.window, limits::kMaxStepsInFlight);
  double slowest_ns = 1;
  for (const StageTotals& totals : totals_) slowest_ns = std::max(slowest_ns, totals.step_ns);
  const double stages = static_cast<double>(ring_.assignment()->route.size());
  const double measured = std::ceil(way_ns_ / slowest_ns);
  return static_cast<uint32_t>(std::min<double>(std::max(stages, measured) + 2, limits::kMaxStepsInFlight));
}

uint32_t Head::prompt_rows() const {
  return pipeline_->prompts_in_flight() >= ring_.assignment()->route.size() ? 0 : piece_rows();
}

// Smaller pieces than a KV block would cost more in passes over the weights than they bring.
uint32_t Head::piece_rows() const {
  const auto stages = static_cast<uint32_t>(ring_.assignment() ? ring_.assignment()->route.size() : 1);
  const uint32_t share = (options_.chunk_rows + stages - 1) / stages;
  return std::max(share, std::min(options_.chunk_rows, limits::kKvBlockPositions));
}

void Head::pump(Time now) {
  told_ = now;
  if (!ring_.broken().empty()) fail_ring(ring_.broken(), now);
  if (pipeline_) {
    for (Pipeline::Finished& finished : pipeline_->take_finished())
      if (pipeline_) finish(std::move(finished), now);
    if (pipeline_ && !pipeline_->broken().empty()) fail_ring(pipeline_->broken(), now);
  }
  if (now >= fetch_again_) {
    wishes_stale_ = true;
    fetch_again_ = Time::max();
  }
  if (ready() && std::exchange(wishes_stale_, false)) candidates(now);
  grow_if_idle(now);
  if (ring_.state() == Ring::State::kNone) ring_.form(candidates(now), now);
  if (growing_ && ring_.state() == Ring::State::kNone) {
    growing_ = false;
    scheduler_.close_ring(Error(ErrorCode::kUnavailable, "the ring could not form anew: " + ring_.reason()));
  }
  if (ring_.state() == Ring::State::kAgreed && !pipeline_) start_canary(now);
  if (ready()) ask_archives(now);
  while (ready() && pipeline_->in_flight() < window()) {
    std::optional<StepPlan> plan = scheduler_.plan(window(), prompt_rows());
    if (!plan) break;
    prompt_tokens_ += plan->prompt_rows;
    if (plan->prompt_rows > 0) prompt_rate_.add(plan->prompt_rows, now);
    pipeline_->add(std::move(*plan), false, now);
  }
  collect_actions();
}

// A peer that joined late takes part once nobody waits for an answer. Requests that come meanwhile wait.
void Head::grow_if_idle(Time now) {
  if (!ready() || members_.joined() == considered_ || !scheduler_.idle() || pipeline_->in_flight() > 0)
    return;
  considered_ = members_.joined();
  if (!ring_.could_grow(candidates(now))) return;
  pipeline_.reset();
  probes_.forget();
  ring_.dissolve("the ring grows");
  growing_ = true;
}

// One row through every stage and unit L+1, and the close of its sequence behind it.
void Head::start_canary(Time now) {
  const auto& assign = *ring_.assignment();
  pipeline_.emplace(assign.ring, assign.epoch, assign.route.front().peer, assign.codec);
  totals_.assign(assign.route.size(), {});
  way_ns_ = links_ns_ = 0;
  const SequenceId sequence{0};  // requests have theirs from 1
  StepPlan row;
  row.operations.push_back({OperationKind::kOpen, sequence, 1, {}, 0});
  row.ranges.push_back({sequence, 2, 0, 1, KernelClass::kFew, AnswerKind::kRow, 1});
  row.tokens.push_back(options_.canary_token);
  row.answered.push_back({RequestId{0}, sequence, 0});
  row.asked.emplace_back();
  row.asked.back().sample = true;
  SamplingOptions greedy;
  greedy.temperature = 0;
  row.asked.back().sampling = std::make_shared<const SamplingOptions>(greedy);
  StepPlan close;
  close.operations.push_back({OperationKind::kClose, sequence, 3, {}, 0});
  canaries_ = 2;
  pipeline_->add(std::move(row), true, now);
  pipeline_->add(std::move(close), true, now);
}

void Head::finish(Pipeline::Finished finished, Time now) {
  count(finished, now);
  if (!finished.lost.empty() && finished.canary)
    return fail_ring("the canary's row was lost: " + finished.lost_reason, now);
  for (const SequenceId sequence : finished.lost)
    scheduler_.lose(sequence, Error(ErrorCode::kIo, finished.lost_reason));
  if (!finished.canary)
    return scheduler_.complete(finished.plan, std::move(finished.results), finished.error);
  if (!finished.error.empty()) {
    ++useless_canaries_;
    useless_reason_ = finished.error;
    return fail_ring("the canary's row is of no use: " + finished.error, now);
  }
  if (canaries_ == 0 || --canaries_ > 0) return;
  const auto& assign = *ring_.assignment();
  if (ring_.canary_returned()) actions_.emplace_back(KeepCuts{ring_.earlier_cuts()});
  useless_canaries_ = 0;
  growing_ = false;
  tell_archives();
  for (const RouteStage& stage : assign.route) probation_.worked(stage.peer);
  scheduler_.open_ring({ring_.kv_blocks(), assign.context, assign.max_sequences, assign.max_rows,
                        ring_.archive_room().blocks > 0});
}

void Head::count(const Pipeline::Finished& finished, Time now) {
  const auto& route = ring_.assignment()->route;
  for (const OutputRow& asked : finished.plan.asked) {
    if (!asked.sample || finished.canary || !finished.error.empty()) continue;
    ++generated_tokens_;
    token_rate_.add(1, now);
  }
  PeerKey before = options_.ring.self;
  double queued_ns = 0, computed_ns = 0;
  for (const StageCounters& counters : finished.counters) {
    if (counters.stage >= route.size()) continue;
    const RouteStage& stage = route[counters.stage];
    StageTotals& totals = totals_[counters.stage];
    totals.bytes_in += counters.bytes_in;
    totals.bytes_out += counters.bytes_out;
    // A hop inside a process is no wire.
    if (stage.peer != before) wire_bytes_ += counters.bytes_in;
    before = stage.peer;
    if (counters.stage + 1 == route.size() && stage.peer != options_.ring.self)
      wire_bytes_ += counters.bytes_out;
    queued_ns += static_cast<double>(counters.queue_ns);
    computed_ns += static_cast<double>(counters.compute_ns);
    if (counters.rows == 0) continue;
    const auto compute_ns = static_cast<double>(counters.compute_ns);
    blend_into(totals.layer_ns, compute_ns / counters.rows / stage.span.count());
    blend_into(totals.step_ns, compute_ns);
    if (is_of_prompts(finished.plan)) blend_into(totals.prompt_ns, compute_ns / counters.rows);
  }
  if (finished.plan.tokens.empty() || finished.canary) return;
  const double way_ns = std::max(1.0, static_cast<double>(finished.travelled.count()) - queued_ns);
  blend_into(way_ns_, way_ns);
  const bool is_here = route.size() == 1 && route.front().peer == options_.ring.self;
  if (!is_here && finished.plan.tokens.size() == 1 && finished.plan.prompt_rows == 0)
    blend_into(links_ns_, std::max(1.0, way_ns - computed_ns));
}

// --- Archives ---

// Long prompts go through the ring in pieces, one behind the other, so that the slowest stage sets the pace.
void Head::ask_archives(Time now) {
  double position_ns = 0;
  for (const StageTotals& totals : totals_) position_ns = std::max(position_ns, totals.prompt_ns);
  scheduler_.tell_position_ns(position_ns);
  for (Scheduler::Question& question : scheduler_.take_questions()) {
    if (!probes_.worth_asking(question.compute_ns, now)) {
      scheduler_.unanswered(question.request);
      continue;
    }
    const auto& assign = *ring_.assignment();
    actions_.emplace_back(
        SendMessage{assign.route.front().peer,
                    probes_.ask(assign.ring, assign.epoch, question.request, std::move(question.tags), now)});
  }
}

// What one stage does not keep, none does: who wonders why nothing is kept finds it said.
void Head::tell_archives() const {
  if (!options_.archive_key) return;
  const ArchiveRoom room = ring_.archive_room();
  const std::string least = ring_.least_archive().value_or("");
  if (room.blocks == 0)
    log_warning(
        "ring_archives_nothing least=\"{}\" reason=\"its archive has room for no block of its layers\"",
        least);
  else
    log_info("ring_archives tokens={} least=\"{}\"", archived_tokens(), least);
}

uint64_t Head::archived_tokens() const {
  constexpr uint64_t kBlock = limits::kKvBlockPositions;
  return std::min(ring_.archive_room().blocks, UINT64_MAX / kBlock) * kBlock;
}

void Head::handle(const PeerKey& from, const ArchiveProbe& answer, Time now) {
  const auto stage = ring_.stage_of(from);
  if (!stage || !ring_.is_current(answer.ring, answer.epoch) || !answer.to_head) return;
  // One that has nothing need not be the last.
  if (answer.blocks > 0 && *stage + 1 != ring_.assignment()->route.size()) return;
  if (const auto found = probes_.on(answer, now))
    scheduler_.answered(found->request, found->blocks, found->load_ns);
}

void Head::give_up_probes(Time now) {
  for (const RequestId request : probes_.tick(now)) scheduler_.unanswered(request);
}

void Head::collect_actions() {
  for (StageAction& action : ring_.take_actions())
    if (auto* message = std::get_if<SendMessage>(&action)) actions_.emplace_back(std::move(*message));
  if (!pipeline_) return;
  for (HeadAction& action : pipeline_->take_actions()) actions_.emplace_back(std::move(action));
}

// --- Status ---

StageStatus Head::stage_status(uint32_t index) const {
  const RouteStage& stage = ring_.assignment()->route[index];
  StageStatus status;
  status.peer = stage.name;
  if (stage.peer != options_.ring.self) status.key = short_string(stage.peer);
  if (!stage.endpoints.empty()) status.address = stage.endpoints.front();
  status.first_unit = stage.span.first;
  status.last_unit = stage.span.last;
  status.state = ring_.stage_ready(index) ? "ready" : "joining";
  if (const Member* member = members_.find(stage.peer)) {
    if (member->round_trip) status.round_trip_ms = seconds(*member->round_trip) * 1e3;
    status.layer_ms = static_cast<double>(member->hello.layer_ns) * 1e-6;
    status.kv_blocks = member->last.kv_blocks;
    status.kv_blocks_free = member->last.kv_blocks_free;
  } else {
    status.state = "lost";
  }
  if (index < totals_.size()) {
    const StageTotals& totals = totals_[index];
    if (totals.layer_ns > 0) status.layer_ms = totals.layer_ns * 1e-6;
    status.bytes_in = totals.bytes_in;
    status.bytes_out = totals.bytes_out;
  }
  status.measured = status.layer_ms > 0;
  return status;
}

std::vector<PeerStatus> Head::peer_status(Time now) const {
  std::vector<PeerStatus> peers;
  for (const Member* member : members_.members()) {
    PeerStatus& peer = peers.emplace_back();
    peer.name = member->hello.name;
    if (member->key != options_.ring.self) peer.key = short_string(member->key);
    if (!member->hello.endpoints.empty()) peer.address = member->hello.endpoints.front();
    const Heartbeat& last = member->last;
    const std::string small = too_small(options_.ring, member->hello);
    peer.state = probation_.is_out(member->key, now) ? "left out: " + probation_.reason(member->key, now)
                 : last.fetched_bytes < last.fetch_bytes
                     ? fmt::format("fetching, {} % of {:.1f} MB",
                                   100 * (last.fetched_bytes / 1000) / (last.fetch_bytes / 1000 + 1),
                                   static_cast<double>(last.fetch_bytes) / 1e6)
                 : ring_.stage_of(member->key) ? kInTheRing
                 : small.empty()               ? "waiting"
                                               : "waiting: " + small;
    peer.offered_bytes = member->hello.memory_bytes;
    peer.layer_ms = static_cast<double>(member->hello.layer_ns) * 1e-6;
    if (member->round_trip) peer.round_trip_ms = seconds(*member->round_trip) * 1e3;
  }
  return peers;
}

ServiceStatus Head::status(Time now) const {
  ServiceStatus status;
  status.ready = ready();
  status.not_ready_reason = ring_.reason();
  if (!status.ready)
    for (const LeftOut& one : left_out(now))
      status.not_ready_reason += fmt::format(
          "{}{} is left out: {}", status.not_ready_reason.empty() ? "" : "; ", one.name, one.reason);
  status.peers = peer_status(now);
  status.fingerprint = to_string(options_.ring.model);
  status.codec = name(ring_.assignment() ? ring_.assignment()->codec : options_.ring.codec);
  status.ring = to_string(options_.ring.id);
  status.exact = ring_.exact();
  status.context = options_.ring.context;
  status.requests_running = static_cast<uint32_t>(scheduler_.running());
  status.requests_waiting = static_cast<uint32_t>(scheduler_.waiting());
  status.prompt_tokens = prompt_tokens_;
  status.generated_tokens = generated_tokens_;
  status.reused_tokens = scheduler_.reused_positions();
  status.prefill_tokens_per_second = prompt_rate_.per_second(now);
  status.decode_tokens_per_second = token_rate_.per_second(now);
  status.wire_bytes = wire_bytes_;
  status.archive_tokens = ready() ? archived_tokens() : 0;
  status.archive = options_.archive_key && (!ready() || status.archive_tokens > 0);
  if (options_.archive_key && ready()) status.archive_least = ring_.least_archive().value_or("");
  const ArchiveCounts& archive = scheduler_.archive();
  status.archive_hits = archive.hits;
  status.archive_misses = archive.misses;
  status.archive_loads = archive.loads;
  status.archive_loaded_tokens = archive.loaded_positions;
  status.archive_dearer = archive.dearer;
  status.archive_failed = archive.failed;
  status.archive_timeouts = probes_.timeouts();
  if (const auto& assign = ring_.assignment()) {
    status.epoch = assign->epoch.value;
    for (uint32_t stage = 0; stage < assign->route.size(); ++stage)
      status.stages.push_back(stage_status(stage));
  }
  return status;
}

}  // namespace caravan
