#include "peers/ring.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/log.h"

namespace caravan {
namespace {

// What a cut must gain to take the place of the ring's earlier one, and with it of all KV that peers have
// archived: measurements that differ by 14 % from those of that time cost at most this, as
// (1 - 0.14) / (1 + 0.14) > 0.75.
constexpr double kGainOfNewCut = 0.75;
// What more members must gain for a ring to end for them.
constexpr double kGainOfGrowing = 0.9;

std::vector<PeerOffer> offers_of(const std::vector<const Member*>& members) {
  std::vector<PeerOffer> offers;
  for (const Member* member : members) offers.push_back({member->hello.memory_bytes, member->hello.layer_ns});
  return offers;
}

}  // namespace

Ring::Choice Ring::choose_best(const std::vector<const Member*>& members) const {
  const std::vector<PeerOffer> offers = offers_of(members);
  Choice choice{members, {}, std::numeric_limits<double>::infinity()};
  choice.spans = options_.mode == CutMode::kEven ? cut_evenly(options_.layers, offers)
                                                 : cut_by_cost(options_.layers, offers);
  if (!choice.spans.empty()) choice.slowest_ns = slowest_stage_ns(options_.layers, offers, choice.spans);
  return choice;
}

std::optional<Ring::Choice> Ring::choose_earlier(const std::vector<const Member*>& members) const {
  EarlierCut now;
  for (const Member* member : members)
    now.shares.push_back({member->key, numerics_number(member->hello.numerics_class)});
  const auto found = std::find_if(earlier_.begin(), earlier_.end(),
                                  [&](const EarlierCut& cut) { return is_of_same_peers(cut, now); });
  if (found == earlier_.end()) return std::nullopt;
  Choice choice;
  choice.is_earlier = true;
  uint32_t unit = 1;
  for (const EarlierCut::Share& share : found->shares) {
    const auto at = std::find_if(now.shares.begin(), now.shares.end(),
                                 [&](const auto& one) { return one.peer == share.peer; });
    if (at->numerics != share.numerics) return std::nullopt;
    choice.members.push_back(members[static_cast<size_t>(at - now.shares.begin())]);
    choice.spans.push_back({unit, unit + share.layers});
    unit += share.layers;
  }
  CHECK(unit == options_.layers.size() + 1);
  choice.slowest_ns = slowest_stage_ns(options_.layers, offers_of(choice.members), choice.spans);
  return choice;
}

Ring::Choice Ring::choose(const std::vector<const Member*>& members) const {
  Choice best = choose_best(members);
  // Even ones depend on the members and their order alone.
  if (options_.mode == CutMode::kEven) return best;
  std::optional<Choice> earlier = choose_earlier(members);
  const bool fits = earlier && earlier->slowest_ns < std::numeric_limits<double>::infinity();
  return fits && best.slowest_ns >= kGainOfNewCut * earlier->slowest_ns ? *std::move(earlier) : best;
}

std::vector<RouteStage> Ring::route(const std::vector<const Member*>& members) const {
  return stages_of(choose(members));
}

std::vector<RouteStage> Ring::stages_of(const Choice& choice) {
  std::vector<RouteStage> stages;
  for (size_t i = 0; i < choice.spans.size(); ++i) {
    if (choice.spans[i].count() == 0) continue;
    const PeerKey& key = choice.members[i]->key;
    const Hello& hello = choice.members[i]->hello;
    stages.push_back(
        {key, hello.name, hello.numerics_class, hello.endpoints, choice.spans[i], hello.weights});
  }
  return stages;
}

void Ring::form(const std::vector<const Member*>& members, Time now) {
  if (state_ != State::kNone || (retry_at_ && now < *retry_at_)) return;
  retry_at_.reset();
  if (members.empty() || (!formed_ && members.size() < options_.min_peers)) {
    reason_ = fmt::format("{} of {} peers are here", members.size(), std::max(options_.min_peers, 1u));
    return;
  }
  const Choice choice = choose(members);
  Assign assign;
  assign.route = stages_of(choice);
  if (assign.route.empty()) {
    reason_ = fmt::format(
        "the memory of {} peer{} does not hold {} layers and the state of one sequence of {} "
        "positions; more peers or a smaller --context help",
        members.size(), members.size() == 1 ? "" : "s", options_.layers.size(), options_.context);
    if (!std::exchange(too_large_, true))
      log_line(failure_level(), fmt::format("ring_too_large reason=\"{}\"", reason_));
    return;
  }
  too_large_ = false;
  assign.ring = options_.id;
  assign.epoch = EpochId{++epoch_.value};
  assign.model = options_.model;
  // A route that never leaves this process has no wire to spare.
  const bool alone = assign.route.size() == 1 && assign.route.front().peer == options_.self;
  assign.codec = alone ? CodecId::kF32 : options_.codec;
  assign.kv_type = options_.kv_type;
  assign.context = options_.context;
  assign.max_sequences = options_.max_sequences;
  assign.max_rows = options_.max_rows;
  assign.weights = options_.weights;
  contract_ = contract_hash(assign, {options_.self, options_.model, options_.numerics_class});
  stages_.assign(assign.route.size(), {});
  slowest_ns_ = choice.slowest_ns;
  cut_.shares.clear();
  for (size_t i = 0; i < choice.members.size(); ++i)
    cut_.shares.push_back({choice.members[i]->key, numerics_number(choice.members[i]->hello.numerics_class),
                           choice.spans[i].count()});
  first_ = last_ = {};
  broken_.clear();
  state_ = State::kForming;
  reason_ = "the stages load";
  assign_ = std::move(assign);
  for (uint32_t stage = 0; stage < assign_->route.size(); ++stage) {
    Assign copy = *assign_;
    copy.stage = stage;
    send(assign_->route[stage].peer, std::move(copy));
  }
  send_contract(0);
  send_contract(last_edge());
  next_contract_ = now + options_.contract_retry;
  contract_deadline_ = now + options_.timeout;
  log_info("ring_forming epoch={} stages={}", epoch_.value, assign_->route.size());
}

bool Ring::could_grow(const std::vector<const Member*>& members) const {
  if (state_ != State::kReady) return false;
  const Choice choice = choose(members);
  if (choice.spans.empty()) return false;
  if (options_.mode == CutMode::kEven) return stages_of(choice).size() > assign_->route.size();
  // What was worth it once is so as long as it is no loss.
  return choice.slowest_ns < (choice.is_earlier ? 1 : kGainOfGrowing) * slowest_ns_;
}

void Ring::send_contract(uint32_t index) {
  const RouteStage& stage = index == 0 ? assign_->route.front() : assign_->route.back();
  send(stage.peer, Contract{assign_->ring, assign_->epoch, index, false, contract_, edge(index).agreed});
}

bool Ring::on(const PeerKey& from, const Contract& contract) {
  if (!is_current(contract.ring, contract.epoch) || (contract.edge != 0 && contract.edge != last_edge()))
    return false;
  const RouteStage& stage = contract.edge == 0 ? assign_->route.front() : assign_->route.back();
  if (stage.peer != from) return false;
  if (contract.hash != contract_) {
    broken_ = fmt::format(
        "{}: the contract of {} is {}, the head's is {}: another model, version, numerics "
        "class or route",
        describe_edge(contract.edge), stage.name, short_string(contract.hash), short_string(contract_));
    return true;
  }
  Edge& found = edge(contract.edge);
  found.agreed = true;
  found.known |= contract.matched;
  if (!contract.matched) send_contract(contract.edge);
  agree_if_complete();
  return true;
}

bool Ring::on(const PeerKey& from, const Ready& ready) {
  const auto stage = stage_of(from);
  if (!stage || !is_current(ready.ring, ready.epoch)) return false;
  stages_[*stage] = {true, ready.kv_blocks, ready.forecast, ready.archive};
  agree_if_complete();
  return true;
}

void Ring::agree_if_complete() {
  if (state_ != State::kForming || !first_.agreed || !last_.agreed) return;
  if (!std::all_of(stages_.begin(), stages_.end(), [](const Stage& stage) { return stage.ready; })) return;
  state_ = State::kAgreed;
  reason_ = "a canary is under way";
  for (const RouteStage& stage : assign_->route)
    send(stage.peer, ArchiveLimit{assign_->ring, assign_->epoch, archive_room()});
}

void Ring::tick(Time now) {
  if (state_ == State::kNone || now < next_contract_) return;
  next_contract_ = now + options_.contract_retry;
  for (const uint32_t index : {0u, last_edge()}) {
    if (!edge(index).known) send_contract(index);
    if (!edge(index).agreed && now >= contract_deadline_)
      broken_ = fmt::format("{}: no contract came", describe_edge(index));
  }
}

Time Ring::next_tick() const {
  if (state_ == State::kNone) return retry_at_.value_or(Time::max());
  return first_.known && last_.known && first_.agreed && last_.agreed ? Time::max() : next_contract_;
}

bool Ring::canary_returned() {
  CHECK(state_ == State::kAgreed);
  state_ = State::kReady;
  reason_.clear();
  formed_ = true;
  backoff_ = {};
  log_info("ring_ready epoch={} stages={}", epoch_.value, assign_->route.size());
  // Of one member there is but one cut.
  return options_.mode == CutMode::kByCost && cut_.shares.size() > 1 && remember(earlier_, cut_);
}

void Ring::release(const std::string& reason, std::optional<PeerKey> lost) {
  for (const RouteStage& stage : assign_->route)
    if (stage.peer != lost) send(stage.peer, Release{assign_->ring, assign_->epoch, reason});
  assign_.reset();
  stages_.clear();
  broken_.clear();
  state_ = State::kNone;
  reason_ = reason;
}

void Ring::fail(std::string reason, Time now, std::optional<PeerKey> lost) {
  if (state_ == State::kNone) return;
  log_line(failure_level(), fmt::format("ring_failed epoch={} reason=\"{}\"", epoch_.value, reason));
  release(reason, lost);
  backoff_ = backoff_ == Duration{} ? options_.first_backoff : std::min(2 * backoff_, options_.last_backoff);
  retry_at_ = now + backoff_;
}

void Ring::dissolve(const std::string& reason) {
  if (state_ != State::kNone) release(reason, std::nullopt);
}

std::optional<uint32_t> Ring::stage_of(const PeerKey& peer) const {
  if (!assign_) return std::nullopt;
  for (uint32_t stage = 0; stage < assign_->route.size(); ++stage)
    if (assign_->route[stage].peer == peer) return stage;
  return std::nullopt;
}

uint64_t Ring::kv_blocks() const {
  uint64_t least = ~uint64_t{0};
  for (const Stage& stage : stages_) least = std::min(least, stage.kv_blocks);
  return stages_.empty() ? 0 : least;
}

ArchiveRoom Ring::archive_room() const {
  ArchiveRoom room{UINT64_MAX, UINT64_MAX, UINT64_MAX};
  for (const Stage& stage : stages_) room = least(room, stage.archive);
  return stages_.empty() ? ArchiveRoom{} : room;
}

std::optional<std::string> Ring::least_archive() const {
  const auto least = std::min_element(stages_.begin(), stages_.end(), [](const Stage& a, const Stage& b) {
    return a.archive.blocks < b.archive.blocks;
  });
  if (least == stages_.end()) return std::nullopt;
  return assign_->route[static_cast<size_t>(least - stages_.begin())].name;
}

std::string Ring::describe_edge(uint32_t edge) const {
  const auto& stages = assign_->route;
  const std::string from = edge == 0 || edge > stages.size() ? "the head" : stages[edge - 1].name;
  const std::string to = edge >= stages.size() ? "the head" : stages[edge].name;
  return fmt::format("edge {}, from {} to {}", edge, from, to);
}

bool Ring::exact() const {
  if (!assign_ || assign_->codec != CodecId::kF32) return false;
  return std::all_of(assign_->route.begin(), assign_->route.end(), [&](const RouteStage& stage) {
    return stage.numerics_class == options_.numerics_class;
  });
}

}  // namespace caravan
