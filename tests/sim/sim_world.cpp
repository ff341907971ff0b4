#include "tests/sim/sim_world.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"

namespace caravan {

SimWorld::SimWorld(SimConfig config) : config_(config), random_(config.seed), model_(config.vocabulary) {}

PeerKey SimWorld::key(uint32_t process) const {
  PeerKey key;
  key.bytes[0] = static_cast<uint8_t>(process + 1);
  return key;
}

// --- Time ---

void SimWorld::at(Time time, std::function<void()> what) {
  queue_.push({std::max(time, now_), order_++, std::move(what)});
}

void SimWorld::run_until(Time time) {
  run_until(time, [] { return false; });
}

bool SimWorld::run_until(Time time, const std::function<bool()>& done) {
  while (!done()) {
    if (queue_.empty() || queue_.top().time > time) {
      now_ = std::max(now_, time);
      return done();
    }
    const Event event = queue_.top();
    queue_.pop();
    now_ = event.time;
    ++events_;
    event.what();
  }
  return true;
}

Duration SimWorld::delay() {
  const auto jitter = static_cast<uint64_t>(config_.jitter.count());
  return config_.latency + Duration(jitter == 0 ? 0 : random_.below(jitter));
}

// --- Processes ---

HeadOptions SimWorld::head_options(uint64_t life) const {
  HeadOptions options;
  options.ring.self = key(0);
  options.ring.id.bytes[0] = static_cast<uint8_t>(life);
  options.ring.numerics_class = "simulated";
  options.ring.layers.assign(config_.layers, {1, 1});
  options.ring.mode = config_.mode;
  if (!cuts_.empty()) options.ring.earlier = decode_cuts(cuts_, config_.layers);
  options.ring.min_peers = config_.min_peers;
  options.ring.codec = config_.codec;
  options.probes.timeout = config_.probe_timeout;
  if (config_.archive) options.archive_key.emplace();
  options.ring.context = config_.context;
  options.ring.max_sequences = config_.max_sequences;
  options.ring.max_rows = 512;
  options.ring.timeout = config_.peer_timeout;
  options.members.self = key(0);
  options.members.ring = options.ring.id;
  options.members.name = "head";
  options.members.layers = config_.layers;
  options.members.timeout = config_.peer_timeout;
  options.chunk_rows = config_.chunk_rows;
  options.scheduler.keep = config_.keep;
  options.window = config_.window;
  options.step_timeout = config_.step_timeout;
  return options;
}

NodeOptions SimWorld::options_of(uint32_t process, uint64_t life) const {
  NodeOptions options;
  options.self = key(process);
  if (process == 0) options.head = head_options(life);
  if (process == 0 && !config_.head_hosts_stage) return options;
  StageHostOptions stage;
  stage.self = options.self;
  stage.head = key(0);
  stage.hello.name = "p" + std::to_string(process);
  stage.hello.numerics_class = "simulated";
  stage.hello.layers = config_.layers;
  stage.hello.incarnation = life << 32;
  stage.hello.memory_bytes = config_.peer_memory;
  SeededRandom noise(mix64(config_.seed * 1009 + process) + life);
  const double measured = 1 + config_.measured_off * (2 * noise.unit() - 1);
  stage.hello.layer_ns = static_cast<uint64_t>(static_cast<double>(config_.row_time.count()) * measured);
  stage.hello.fetches = config_.fetching.count(process) > 0;
  options.stage = stage;
  return options;
}

void SimWorld::start(uint32_t index) {
  if (alive(index)) return;
  Process& process = processes_[index];
  ++process.life;
  archives_.try_emplace(index, config_.archive_faults, config_.seed * 1009 + index);
  process.node = std::make_unique<Node>(options_of(index, process.life));
  process.tick_at = Time::max();
  process.stage_free = process.head_free = now_;
  process.node->start(now_);
  drain(index);
}

void SimWorld::kill(uint32_t index, bool silent) {
  if (!alive(index)) return;
  Process& process = processes_[index];
  for (auto& [ends, connection] : connections_) {
    if (ends.first != index && ends.second != index) continue;
    const uint32_t other = ends.first == index ? ends.second : ends.first;
    if (connection.up) take_down(index, other, false, !silent);
    connection.told_up[side(index, other)] = false;
  }
  for (const auto& [id, request] : process.requests) {
    SimRequest& seen = requests_[request];
    if (!seen.over()) seen.cancelled = true, seen.ended = now_;
  }
  const uint64_t life = process.life;
  const double slowness = process.slowness;
  std::set<uint32_t> units = std::move(process.units);
  process = {};
  process.units = std::move(units);
  process.life = life;
  process.slowness = slowness;
}

void SimWorld::pause(uint32_t index, Duration duration) {
  if (!alive(index)) return;
  Process& process = processes_[index];
  process.paused_until = std::max(process.paused_until, now_ + duration);
  after(duration, [this, index] { resume(index); });
}

void SimWorld::resume(uint32_t index) {
  Process& process = processes_[index];
  if (!process.node || now_ < process.paused_until) return;
  while (!process.backlog.empty()) {
    const auto what = std::move(process.backlog.front());
    process.backlog.pop_front();
    what(*process.node);
    drain(index);
  }
  schedule_tick(index);
}

void SimWorld::deliver(uint32_t index, std::function<void(Node&)> what) {
  Process& process = processes_[index];
  if (!process.node) return;
  if (now_ < process.paused_until) return process.backlog.push_back(std::move(what));
  what(*process.node);
  drain(index);
}

void SimWorld::deliver_at(Time time, uint32_t index, std::function<void(Node&)> what) {
  at(time, [this, index, life = processes_[index].life, what = std::move(what)] {
    if (processes_[index].life == life) deliver(index, what);
  });
}

void SimWorld::drain(uint32_t index) {
  Process& process = processes_[index];
  std::vector<NodeAction> actions = process.node->take_actions();
  for (; !actions.empty(); actions = process.node->take_actions())
    for (NodeAction& action : actions) std::visit([&](auto& what) { act(index, what); }, action);
  if (process.node->head()) collect_events(process);
  schedule_tick(index);
}

void SimWorld::schedule_tick(uint32_t index) {
  Process& process = processes_[index];
  const Time next = process.node->next_tick();
  if (next == Time::max() || process.tick_at <= next) return;
  process.tick_at = next;
  at(next, [this, index, next, life = process.life] {
    Process& ticked = processes_[index];
    if (ticked.life != life || !ticked.node || ticked.tick_at != next) return;
    ticked.tick_at = Time::max();
    if (now_ < ticked.paused_until) return;  // resume() asks again
    ticked.node->tick(now_);
    drain(index);
  });
}

// --- Clients ---

size_t SimWorld::submit(TokenRequest asked) {
  const size_t index = requests_.size();
  requests_.push_back({});
  requests_.back().asked = asked;
  if (asked.prompt_logits)
    asked.prompt_logits =
        std::make_shared<const LogitsSink>([this, index](uint32_t position, std::span<const float> row) {
          std::vector<float>& logits = requests_[index].prompt_logits;
          CHECK(position <= logits.size());
          logits.resize(std::max<size_t>(logits.size(), position + 1));
          logits[position] = row[0];
        });
  requests_.back().submitted = now_;
  Process& head = processes_[0];
  if (!head.node || now_ < head.paused_until) {
    requests_[index].cancelled = true;
    return index;
  }
  try {
    head.requests[head.node->submit(std::move(asked), now_)] = index;
  } catch (const Error& error) {
    requests_[index].error = error;
    requests_[index].ended = now_;
  }
  drain(0);
  return index;
}

void SimWorld::cancel(size_t index) {
  Process& head = processes_[0];
  if (requests_[index].over() || !head.node) return;
  for (const auto& [id, request] : head.requests) {
    if (request != index) continue;
    requests_[index].cancelled = true;
    requests_[index].ended = now_;
    deliver(0, [this, id = id](Node& node) { node.cancel(id, now_); });
    return;
  }
}

void SimWorld::collect_events(Process& head) {
  for (RequestEvent& event : head.node->take_events()) {
    SimRequest& request = requests_[head.requests.at(event.request)];
    if (request.cancelled) continue;  // the client is gone; a paused head may not know yet
    CHECK(!request.over());
    request.cuts = head.cuts;
    if (auto* token = std::get_if<TokenEvent>(&event.what)) {
      if (request.tokens.empty()) request.first_token = now_;
      request.tokens.push_back(token->token);
    }
    if (auto* finish = std::get_if<FinishReason>(&event.what)) request.finish = *finish;
    if (auto* error = std::get_if<Error>(&event.what)) request.error = *error;
    if (request.over()) request.ended = now_;
  }
  // Another ring may have begun to form in the very moment in which the last request ended.
  if (!head.node->head()->ready()) return;
  const Assign& assign = *head.node->head()->ring().assignment();
  head.cuts.clear();
  if (assign.codec == CodecId::kF32) return;
  head.cuts.insert(config_.layers + 1);
  for (const RouteStage& stage : assign.route) head.cuts.insert(stage.span.first);
}

bool SimWorld::all_over() const {
  return std::all_of(requests_.begin(), requests_.end(),
                     [](const SimRequest& request) { return request.over(); });
}

// --- Compute ---

void SimWorld::act(uint32_t index, StagePlan& plan) {
  Process& process = processes_[index];
  process.plan = plan;
  process.stage = std::make_unique<HashStage>(model_, plan, config_.kv_blocks,
                                              config_.archive ? &archives_.at(index) : nullptr);
  const Duration load = Duration(random_.below(50'000'000)) + fetch(index, plan.span);
  deliver_at(now_ + load, index, [this, index, plan](Node& node) {
    // A stage expects as many nanoseconds as it has layers.
    StageForecast forecast{{plan.span.count()}, {}};
    node.on(
        StagePrepared{plan.ring, plan.epoch, config_.kv_blocks, {}, std::move(forecast), archive_room(index)},
        now_);
  });
}

void SimWorld::act(uint32_t, KeepCuts& keep) {
  if (config_.keeps_cuts) cuts_ = encode_cuts(keep.cuts);
}

Duration SimWorld::fetch(uint32_t index, UnitSpan span) {
  Duration needed{};
  if (!config_.fetching.count(index)) return needed;
  for (uint32_t unit = span.first; unit < span.last; ++unit)
    if (processes_[index].units.insert(unit).second) needed += config_.fetch_time;
  return needed;
}

void SimWorld::act(uint32_t index, FetchUnits& what) {
  if (failed_fetches_ < config_.fetch_failures) {
    ++failed_fetches_;
    return deliver_at(now_, index, [this, what](Node& node) {
      node.on(UnitsFetched{what.ring, what.plan, "the disk is full"}, now_);
    });
  }
  deliver_at(now_ + fetch(index, what.span), index, [this, what](Node& node) {
    node.on(UnitsFetched{what.ring, what.plan, {}}, now_);
  });
}

void SimWorld::act(uint32_t index, FindArchived& what) {
  Process& process = processes_[index];
  const ArchiveProbe& probe = what.probe;
  ArchivedFound found;
  if (config_.archive && process.plan && process.plan->ring == probe.ring &&
      process.plan->epoch == probe.epoch)
    found.blocks = archives_.at(index).find(probe.tags, process.plan->lineage, process.plan->span);
  found.load_ns = found.blocks * static_cast<uint64_t>(config_.archive_block_time.count());
  process.node->on(ArchiveFound{what.probe, found}, now_);
}

void SimWorld::act(uint32_t index, ArchiveLimit& what) {
  const Process& process = processes_[index];
  if (config_.archive && process.plan && process.plan->ring == what.ring && process.plan->epoch == what.epoch)
    archives_.at(index).limit(process.plan->lineage, what.room.blocks);
}

ArchiveRoom SimWorld::archive_room(uint32_t index) const {
  if (!config_.archive) return {};
  const auto found = config_.archive_blocks.find(index);
  return {found == config_.archive_blocks.end() ? UINT64_MAX : found->second, UINT64_MAX, UINT64_MAX};
}

void SimWorld::act(uint32_t index, ReleaseStage& release) {
  Process& process = processes_[index];
  if (!process.plan || process.plan->ring != release.ring || process.plan->epoch > release.epoch) return;
  process.plan.reset();
  process.stage.reset();
}

void SimWorld::act(uint32_t index, RunSteps& run) {
  Process& process = processes_[index];
  for (Step& step : run.steps) {
    CHECK(process.plan.has_value());
    const double work = static_cast<double>(step.rows.count * process.plan->span.count()) *
                        static_cast<double>(config_.row_time.count());
    const double loads =
        static_cast<double>(step.load_tags.size()) * static_cast<double>(config_.archive_block_time.count());
    const auto compute = Duration(static_cast<int64_t>(
        process.slowness *
        (work + loads + static_cast<double>(step.ranges.empty() ? 1000 : config_.step_time.count()))));
    const Time start = std::max({now_, process.stage_free, process.paused_until});
    const Duration queue = start - now_;
    process.stage_free = start + compute;
    at(process.stage_free, [this, index, step = std::move(step), compute, queue, life = process.life] {
      if (processes_[index].life == life) finish_step(index, step, compute, queue);
    });
  }
}

void SimWorld::finish_step(uint32_t index, const Step& step, Duration compute, Duration queue) {
  Process& process = processes_[index];
  if (!process.plan || process.plan->ring != step.ring || process.plan->epoch != step.epoch) return;
  process.busy += compute;
  HashStage::Result result = process.stage->run(step);
  StepDone done;
  done.ring = step.ring;
  done.epoch = step.epoch;
  done.step = step.step;
  done.rows = std::move(result.rows);
  done.error = std::move(result.error);
  done.lost = std::move(result.lost);
  if (!done.lost.empty()) done.lost_reason = "an archived block is gone";
  done.compute_ns = static_cast<uint64_t>(compute.count());
  done.queue_ns = static_cast<uint64_t>(queue.count());
  done.kv_blocks_free = config_.kv_blocks - std::min(config_.kv_blocks, process.stage->blocks_used());
  deliver(index, [this, done](Node& node) { node.on(done, now_); });
}

void SimWorld::act(uint32_t index, EmbedJob& job) {
  Process& process = processes_[index];
  process.head_free =
      std::max({now_, process.head_free, process.paused_until}) + std::chrono::microseconds(20);
  deliver_at(process.head_free, index, [this, job](Node& node) {
    node.on(EmbedDone{job.epoch, job.step, model_.embed(job.tokens, job.codec), {}}, now_);
  });
}

void SimWorld::act(uint32_t index, OutputJob& job) {
  Process& process = processes_[index];
  process.head_free = std::max({now_, process.head_free, process.paused_until}) +
                      std::chrono::microseconds(20) * static_cast<int64_t>(job.rows.count);
  deliver_at(process.head_free, index, [this, job](Node& node) {
    OutputDone done{job.epoch, job.step, {}, {}};
    const std::vector<uint64_t> rows = model_.unpack(job.rows);
    for (size_t i = 0; i < rows.size(); ++i) done.results.push_back(model_.output(rows[i], job.asked[i]));
    node.on(std::move(done), now_);
  });
}

// --- Links ---

void SimWorld::act(uint32_t index, ConnectPeer& action) {
  const uint32_t other = process_of(action.peer);
  if (processes_[index].dials.insert(other).second) try_connect(index, other);
}

void SimWorld::act(uint32_t index, DisconnectPeer& action) {
  const uint32_t other = process_of(action.peer);
  processes_[index].dials.erase(other);
  if (processes_[other].dials.count(index)) return;
  Connection& ended = connection(index, other);
  if (ended.up) take_down(index, other, false, true);
  ended.told_up[side(index, other)] = false;
}

void SimWorld::act(uint32_t index, SendMessage& action) {
  const uint32_t other = process_of(action.to);
  Connection& used = connection(index, other);
  if (!used.told_up[side(index, other)]) {
    return at(now_, [this, index, life = processes_[index].life, action] {
      if (processes_[index].life == life)
        deliver(index, [this, action](Node& node) { node.send_failed(action.to, action.message, now_); });
    });
  }
  if (!used.up) {
    // The other end is gone. A process that lives again resets the connection; a dead host says nothing.
    if (alive(other)) {
      tell(index, other, false);
      if (processes_[index].dials.count(other)) try_connect(index, other);
    }
    return;
  }
  if (tamper && !tamper(index, other, action.message)) return;
  Time& last = used.last_delivery[side(index, other)];
  last = std::max(last, now_ + delay());
  at(last, [this, index, other, generation = used.generation, message = std::move(action.message)] {
    if (connection(index, other).generation != generation) return;
    deliver(other, [this, from = key(index), message](Node& node) {
      node.on(Received{from, message}, now_);
    });
  });
}

void SimWorld::try_connect(uint32_t from, uint32_t to) {
  after(delay(), [this, from, to, life = processes_[from].life] {
    const Process& process = processes_[from];
    if (process.life != life || !process.node || !process.dials.count(to) || connection(from, to).up) return;
    if (alive(to)) return establish(from, to);
    after(std::chrono::milliseconds(200), [this, from, to, life] {
      if (processes_[from].life == life) try_connect(from, to);
    });
  });
}

void SimWorld::establish(uint32_t a, uint32_t b) {
  Connection& made = connection(a, b);
  made.up = true;
  ++made.generation;
  made.last_delivery[0] = made.last_delivery[1] = now_;
  for (const auto& [self, other] : {std::pair{a, b}, std::pair{b, a}}) {
    if (made.told_up[side(self, other)]) tell(self, other, false);
    tell(self, other, true);
  }
}

void SimWorld::take_down(uint32_t a, uint32_t b, bool tell_a, bool tell_b) {
  Connection& lost = connection(a, b);
  lost.up = false;
  ++lost.generation;
  if (tell_a) tell(a, b, false);
  if (tell_b) tell(b, a, false);
  // Whoever made the connection, and knows that it is gone, tries again.
  if (tell_a && processes_[a].dials.count(b)) try_connect(a, b);
  if (tell_b && processes_[b].dials.count(a)) try_connect(b, a);
}

void SimWorld::tell(uint32_t process, uint32_t other, bool up) {
  connection(process, other).told_up[side(process, other)] = up;
  deliver_at(now_, process, [this, peer = key(other), up](Node& node) {
    node.on(up ? LinkEvent(LinkUp{peer}) : LinkEvent(LinkDown{peer, "the connection broke"}), now_);
  });
}

void SimWorld::break_link(uint32_t a, uint32_t b) {
  if (connection(a, b).up) take_down(a, b, true, true);
}

}  // namespace caravan
