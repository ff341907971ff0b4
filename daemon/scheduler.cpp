#include "daemon/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace caravan {
namespace {

uint64_t blocks_of(uint64_t positions) {
  return (positions + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
}

bool has_penalty(const SamplingOptions& sampling) {
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

constexpr uint32_t kBlock = limits::kKvBlockPositions;

// Of requests that are asked about at once: enough to hide the way, few enough to be answered soon.
constexpr size_t kQuestions = 8;

// What a step's header has room for beside what its stages add, in units of a tag: an operation and a range
// are two.
constexpr size_t kHeaderUnits = 3200;
static_assert(kHeaderUnits * BlockTag::size() + limits::kMaxPeers * 40 +  // counters
                      limits::kMaxRangesPerStep * 8 + limits::kMaxReasonBytes + 256 <=
                  limits::kMaxHeaderBytes,
              "lost sequences and their reason included");
static_assert(2 * (limits::kMaxRangesPerStep + limits::kMaxOperationsPerStep / 8) + limits::kMaxTagsPerStep +
                      limits::kMaxRangesPerStep + limits::kMaxRowsPerStep / kBlock <=
                  kHeaderUnits,
              "a load of the largest size comes to its turn");

// For one more operation with so many blocks to load, one that cuts it, its range, and the blocks that this
// completes.
bool has_room(const StepPlan& plan, size_t load) {
  const size_t units =
      2 * (plan.operations.size() + plan.ranges.size()) + plan.tags.size() + plan.load_tags.size();
  return plan.load_tags.size() + load <= limits::kMaxTagsPerStep &&
         units + load + 6 + limits::kMaxRowsPerStep / kBlock <= kHeaderUnits;
}

void drop(std::deque<RequestId>& queue, RequestId id) {
  queue.erase(std::remove(queue.begin(), queue.end(), id), queue.end());
}

}  // namespace

void Scheduler::open_ring(const RingCapacity& capacity) {
  CHECK(running_ == 0u);
  CHECK(closing_.empty());
  capacity_ = capacity;
  for (const Kept& kept : kept_) blocks_used_ -= kept.blocks;
  kept_.clear();
  std::vector<RequestId> too_long;
  for (auto& [id, request] : requests_) {
    request.max_positions = positions();
    request.asking = Request::Asking::kNotYet;
    if (request.tokens.size() > request.max_positions) too_long.push_back(id);
  }
  for (const RequestId id : too_long)
    finish(*find(id), Error(ErrorCode::kUnavailable, "the new ring has no room for the prompt"));
}

uint32_t Scheduler::positions() const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(capacity_->context, capacity_->kv_blocks * limits::kKvBlockPositions));
}

void Scheduler::close_ring(const Error& error) {
  if (!capacity_) return;
  for (const auto& [id, request] : requests_) emit(id, error);
  requests_.clear();
  waiting_.clear();
  prompts_.clear();
  ready_.clear();
  closing_.clear();
  kept_.clear();
  blocks_used_ = 0;
  running_ = decoding_ = 0;
  capacity_.reset();
}

RequestId Scheduler::submit(TokenRequest asked) {
  if (!capacity_) fail(ErrorCode::kUnavailable, "the ring is not ready");
  if (asked.prompt.empty()) fail(ErrorCode::kInvalidArgument, "the prompt has no tokens");
  const uint32_t room = positions();
  if (asked.prompt.size() > room)
    fail(ErrorCode::kInvalidArgument, "the prompt has {} tokens and the context holds {}",
         asked.prompt.size(), room);
  if (waiting_.size() >= options_.max_waiting)
    fail(ErrorCode::kLimit, "{} requests wait already", waiting_.size());
  const RequestId id{++last_request_};
  Request& request = requests_[id];
  request.id = id;
  request.tokens = asked.prompt;
  request.sampling = std::make_shared<const SamplingOptions>(asked.sampling);
  request.max_positions = room;
  request.asked = std::move(asked);
  waiting_.push_back(id);
  return id;
}

void Scheduler::cancel(RequestId id) {
  if (Request* request = find(id)) remove(*request);
}

Scheduler::Request* Scheduler::find(RequestId id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : &found->second;
}

// --- Planning ---

std::optional<StepPlan> Scheduler::plan(uint32_t window, uint32_t prompt_rows) {
  if (!capacity_) return std::nullopt;
  StepPlan plan;
  plan_closes(plan);
  admit(plan);
  plan_decodes(plan, window);
  plan_prompts(plan, prompt_rows);
  for (auto& [id, request] : requests_) request.planned = false;
  if (plan.operations.empty() && plan.ranges.empty()) return std::nullopt;
  return plan;
}

// Blocks count as free from the moment their close is planned: what takes them comes behind it.
void Scheduler::plan_closes(StepPlan& plan) {
  const size_t count = std::min<size_t>(closing_.size(), limits::kMaxOperationsPerStep / 2);
  for (size_t i = 0; i < count; ++i) {
    plan.operations.push_back({OperationKind::kClose, closing_[i].sequence, closing_[i].number, {}, 0});
    blocks_used_ -= closing_[i].blocks;
  }
  closing_.erase(closing_.begin(), closing_.begin() + static_cast<ptrdiff_t>(count));
}

// In order of arrival, for as long as the whole prompt fits with a block to grow for every running sequence.
// One that archives are being asked about lets those behind it pass.
void Scheduler::admit(StepPlan& plan) {
  for (size_t next = 0; next < waiting_.size();) {
    Request& request = *find(waiting_[next]);
    if (uses_archives() && request.asking == Request::Asking::kNotYet) return;
    if (uses_archives() && request.asking == Request::Asking::kAsked) {
      ++next;
      continue;
    }
    const uint64_t blocks = blocks_of(request.tokens.size());
    if (blocks + running_ > blocks_free() + kept_blocks()) return;
    find_source(request);
    while (running_ + closing_.size() + kept_.size() >= capacity_->max_sequences ||
           blocks + running_ > blocks_free()) {
      if (evict(plan)) continue;
      // What it would begin from may be in its own way.
      if (request.source_positions == 0) return;
      leave_source(request);
    }
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(next));
    // One row is left to be computed, for the answer.
    request.scheduled = std::min(static_cast<uint32_t>(request.tokens.size()) - 1,
                                 std::max(request.source_positions, request.load_positions));
    request.sequence = SequenceId{++last_sequence_};
    request.running = true;
    request.blocks = blocks;
    blocks_used_ += blocks;
    ++running_;
    request.turn = prompt_steps_;
    queue_prompt(request);
  }
}

// Running sequences are spread over as many steps as may be in flight, so that no stage waits for another's
// sequences to come back.
void Scheduler::plan_decodes(StepPlan& plan, uint32_t window) {
  const uint64_t wave = (decoding_ + window - 1) / window;
  uint64_t room = std::min<uint64_t>({std::max<uint64_t>(wave, 1), limits::kMaxRangesPerStep / 2,
                                      std::max<uint64_t>(capacity_->max_rows / 2, 1)});
  for (size_t left = ready_.size(); left > 0 && room > 0 && !ready_.empty(); --left) {
    Request& request = *find(ready_.front());
    ready_.pop_front();
    if (!reserve(plan, request, request.scheduled + 1)) {
      // Nothing younger to preempt: it gives way itself, unless its turn only comes too early.
      if (request.running) ready_.push_back(request.id);
      continue;
    }
    add_rows(plan, request, 1);
    --room;
  }
}

// By turn, then by age.
void Scheduler::queue_prompt(const Request& request) {
  const auto before = [this](const Request& one, RequestId other) {
    const Request& waiting = *find(other);
    return std::pair(one.turn, one.id) < std::pair(waiting.turn, waiting.id);
  };
  prompts_.insert(std::upper_bound(prompts_.begin(), prompts_.end(), request, before), request.id);
}

void Scheduler::plan_prompts(StepPlan& plan, uint32_t prompt_rows) {
  const auto planned = static_cast<uint32_t>(plan.tokens.size());
  uint32_t room = std::min(prompt_rows, capacity_->max_rows - std::min(capacity_->max_rows, planned));
  if (room > 0 && !prompts_.empty()) ++prompt_steps_;
  for (size_t left = prompts_.size(); left > 0 && room > 0; --left) {
    if (plan.ranges.size() >= limits::kMaxRangesPerStep ||
        plan.operations.size() + 2 >= limits::kMaxOperationsPerStep || !has_room(plan, 0))
      return;
    Request& request = *find(prompts_.front());
    if (!request.opened && !open(plan, request)) return;
    prompts_.pop_front();
    const auto rest = static_cast<uint32_t>(request.tokens.size()) - request.scheduled;
    const uint32_t count = std::min(rest, room);
    add_rows(plan, request, count);
    room -= count;
    plan.prompt_rows += count;
    if (count < rest) {
      // Behind those that come while this chunk is on its way, so that each waits for one chunk of it.
      request.turn = prompt_steps_ + 1;
      queue_prompt(request);
    } else {
      request.decoding = true;
      ++decoding_;
    }
  }
}

bool Scheduler::open(StepPlan& plan, Request& request) {
  const size_t load = request.load_positions / kBlock;
  if (!has_room(plan, load)) return false;
  const OperationKind kind = load > 0                       ? OperationKind::kLoad
                             : request.source_positions > 0 ? OperationKind::kFork
                                                            : OperationKind::kOpen;
  plan.operations.push_back({kind, request.sequence, request.next_number++, request.source,
                             std::max(request.source_positions, request.load_positions)});
  if (request.load_positions > request.scheduled)
    plan.operations.push_back(
        {OperationKind::kTruncate, request.sequence, request.next_number++, {}, request.scheduled});
  plan.load_tags.insert(plan.load_tags.end(), request.tags.begin(),
                        request.tags.begin() + static_cast<ptrdiff_t>(load));
  request.opened = true;
  reused_positions_ += request.scheduled;
  archive_.loads += load > 0;
  archive_.loaded_positions += request.load_positions;
  leave_source(request);
  return true;
}

void Scheduler::add_rows(StepPlan& plan, Request& request, uint32_t count) {
  const bool decode = request.decoding;
  const uint32_t first = request.scheduled;
  const auto end = static_cast<uint32_t>(request.tokens.size());
  request.scheduled += count;
  request.planned = true;
  RowRange range{request.sequence,
                 request.next_number++,
                 first,
                 count,
                 decode ? KernelClass::kFew : KernelClass::kMany,
                 AnswerKind::kNothing,
                 0};
  const bool last = request.scheduled == end;
  uint32_t first_answered = last ? end - 1 : request.scheduled;
  if (request.asked.prompt_logits && first < request.asked.prompt.size())
    first_answered = std::min(first_answered, std::max(first, request.logits_delivered));
  range.answer_count = request.scheduled - first_answered;
  if (range.answer_count > 0) range.answer = AnswerKind::kRow;
  for (uint32_t position = first_answered; position < request.scheduled; ++position) {
    plan.answered.push_back({request.id, request.sequence, position});
    plan.asked.push_back(output_row(request, position, last && position + 1 == end));
  }
  plan.tokens.insert(plan.tokens.end(), request.tokens.begin() + first,
                     request.tokens.begin() + request.scheduled);
  plan.ranges.push_back(range);
  if (!uses_archives()) return;
  const uint32_t begin = first / kBlock, blocks = request.scheduled / kBlock;
  if (begin == blocks) return;
  options_.tagger->extend(request.tags, request.tokens, blocks);
  plan.tags.insert(plan.tags.end(), request.tags.begin() + begin, request.tags.begin() + blocks);
}

OutputRow Scheduler::output_row(const Request& request, uint32_t position, bool last) const {
  OutputRow row;
  if (position < request.asked.prompt.size() && position >= request.logits_delivered)
    row.logits = request.asked.prompt_logits;
  row.position = position + 1;
  row.sample = last && request.asked.max_tokens != 0u;
  if (!row.sample) return row;
  row.sampling = request.sampling;
  row.logprob = request.asked.logprobs;
  row.top_logprobs = request.asked.top_logprobs;
  if (has_penalty(*request.sampling)) {
    const size_t window = request.sampling->penalty_window;
    const size_t size = request.tokens.size();
    const size_t first = window == 0 || window >= size ? 0 : size - window;
    row.history.assign(request.tokens.begin() + static_cast<ptrdiff_t>(first), request.tokens.end());
  }
  return row;
}

// --- KV blocks ---

bool Scheduler::reserve(StepPlan& plan, Request& request, uint32_t positions) {
  const uint64_t needed = blocks_of(positions);
  while (needed > request.blocks && needed - request.blocks > blocks_free()) {
    if (evict(plan)) continue;
    Request* victim = youngest_to_preempt(request);
    if (victim == nullptr) return false;
    preempt(*victim);
    plan_closes(plan);
    if (victim == &request) return false;
  }
  if (needed > request.blocks) {
    blocks_used_ += needed - request.blocks;
    request.blocks = needed;
  }
  return true;
}

// The youngest running sequence, perhaps the asking one itself. One that already has rows in the step under
// construction cannot be closed by it; then the asking one waits for the next step.
Scheduler::Request* Scheduler::youngest_to_preempt(const Request& asking) {
  for (auto it = requests_.rbegin(); it != requests_.rend(); ++it) {
    Request& request = it->second;
    if (!request.running) continue;
    if (request.planned || request.id < asking.id) return nullptr;
    return &request;
  }
  return nullptr;
}

void Scheduler::stop_running(Request& request) {
  drop(prompts_, request.id);
  drop(ready_, request.id);
  leave_source(request);
  if (request.opened) {
    closing_.push_back({request.sequence, request.next_number, request.blocks});
  } else {
    blocks_used_ -= request.blocks;
  }
  decoding_ -= request.decoding;
  --running_;
  request.running = request.opened = request.decoding = request.planned = false;
  request.scheduled = request.load_positions = 0;
  request.asking = Request::Asking::kNotYet;
  request.next_number = 1;
  request.blocks = 0;
}

void Scheduler::preempt(Request& request) {
  stop_running(request);
  ++preemptions_;
  // Waiting requests are all younger than those that ran, but for the ones preempted before.
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), request.id), request.id);
}

// --- Kept sequences ---

// The longest beginning, of whole blocks: a fork then copies nothing. One row is left to be computed, for the
// answer.
std::pair<Scheduler::Kept*, uint32_t> Scheduler::find_kept(const Request& request) {
  if (request.lost || request.asked.prompt_logits) return {};
  const size_t most = request.tokens.size() - 1;
  Kept* best = nullptr;
  uint32_t longest = 0;
  for (Kept& kept : kept_) {
    const size_t length = std::min(most, kept.tokens.size());
    const auto differs = std::mismatch(
        kept.tokens.begin(), kept.tokens.begin() + static_cast<ptrdiff_t>(length), request.tokens.begin());
    const auto alike = static_cast<uint32_t>(differs.first - kept.tokens.begin());
    const uint32_t positions = alike / kBlock * kBlock;
    if (positions > longest) best = &kept, longest = positions;
  }
  return {best, longest};
}

void Scheduler::find_source(Request& request) {
  leave_source(request);
  request.load_positions = 0;
  const auto [best, positions] = find_kept(request);
  if (saved_positions(request, positions) > 0) {
    const double compute_ns = position_ns_ * saved_positions(request, positions);
    if (position_ns_ == 0 || static_cast<double>(request.load_ns) < compute_ns) {
      request.load_positions = request.archived_positions;
      return;
    }
    ++archive_.dearer;
    request.archived_positions = 0;  // decided and counted
  }
  if (best == nullptr) return;
  request.source_positions = positions;
  request.source = best->sequence;
  ++best->pins;
  std::rotate(kept_.begin() + (best - kept_.data()), kept_.begin() + (best - kept_.data()) + 1, kept_.end());
}

// By what archives have, beyond so many that are kept.
uint32_t Scheduler::saved_positions(const Request& request, uint32_t kept) {
  const auto most = static_cast<uint32_t>(request.tokens.size()) - 1;
  return std::max(kept, std::min(most, request.archived_positions)) - kept;
}

void Scheduler::leave_source(Request& request) {
  for (Kept& kept : kept_)
    if (request.source_positions > 0 && kept.sequence == request.source) --kept.pins;
  request.source = {};
  request.source_positions = 0;
}

// --- Archives ---

std::vector<Scheduler::Question> Scheduler::take_questions() {
  std::vector<Question> questions;
  if (!uses_archives()) return questions;
  const size_t count = std::min(waiting_.size(), kQuestions);
  for (size_t i = 0; i < count; ++i) {
    Request& request = *find(waiting_[i]);
    if (request.asking != Request::Asking::kNotYet) continue;
    request.archived_positions = 0;
    request.asking = Request::Asking::kDone;
    if (request.lost || request.unloadable || request.asked.prompt_logits) continue;
    const size_t blocks = std::min<size_t>(request.tokens.size() / kBlock, limits::kMaxTagsPerStep);
    const uint32_t kept = find_kept(request).second;
    if (std::min(blocks * kBlock, request.tokens.size() - 1) <= kept) continue;
    request.asking = Request::Asking::kAsked;
    options_.tagger->extend(request.tags, request.tokens, blocks);
    Question& question = questions.emplace_back();
    question.request = request.id;
    question.tags.assign(request.tags.begin(), request.tags.begin() + static_cast<ptrdiff_t>(blocks));
    question.compute_ns =
        position_ns_ * static_cast<double>(std::min(blocks * kBlock, request.tokens.size() - 1) - kept);
  }
  return questions;
}

void Scheduler::answered(RequestId id, uint32_t blocks, uint64_t load_ns) {
  Request* request = find(id);
  if (request == nullptr || request->asking != Request::Asking::kAsked) return;
  request->asking = Request::Asking::kDone;
  request->archived_positions = blocks * kBlock;
  request->load_ns = load_ns;
  const bool is_hit = saved_positions(*request, find_kept(*request).second) > 0;
  ++(is_hit ? archive_.hits : archive_.misses);
}

void Scheduler::unanswered(RequestId id) {
  Request* request = find(id);
  if (request != nullptr && request->asking == Request::Asking::kAsked)
    request->asking = Request::Asking::kDone;
}

uint64_t Scheduler::kept_blocks() const {
  uint64_t sum = 0;
  for (const Kept& kept : kept_) sum += kept.blocks;
  return sum;
}

// Of a request that ends. Of two sequences of which one begins as the other, the longer is of use.
void Scheduler::keep(Request& request) {
  Kept kept{request.sequence, request.next_number, request.blocks, std::move(request.tokens), 0};
  kept.tokens.resize(request.scheduled);
  const auto begins_as = [](const Kept& one, const Kept& other) {
    return one.tokens.size() <= other.tokens.size() &&
           std::equal(one.tokens.begin(), one.tokens.end(), other.tokens.begin());
  };
  for (const Kept& other : kept_)
    if (begins_as(kept, other)) return stop_running(request);
  request.opened = false;
  blocks_used_ += request.blocks;  // it gives back what it has not opened
  stop_running(request);
  for (auto other = kept_.begin(); other != kept_.end();) {
    if (other->pins > 0 || !begins_as(*other, kept)) {
      ++other;
      continue;
    }
    closing_.push_back({other->sequence, other->next_number, other->blocks});
    other = kept_.erase(other);
  }
  kept_.push_back(std::move(kept));
}

// What was kept may share what was lost; or have the memory for want of which it was lost, where a stage can
// write nothing to its disk.
void Scheduler::forget_kept() {
  std::erase_if(kept_, [this](const Kept& kept) {
    if (kept.pins > 0) return false;
    closing_.push_back({kept.sequence, kept.next_number, kept.blocks});
    return true;
  });
}

bool Scheduler::evict(StepPlan& plan) {
  if (plan.operations.size() >= limits::kMaxOperationsPerStep / 2) return false;
  const auto found =
      std::find_if(kept_.begin(), kept_.end(), [](const Kept& kept) { return kept.pins == 0; });
  if (found == kept_.end()) return false;
  closing_.push_back({found->sequence, found->next_number, found->blocks});
  kept_.erase(found);
  plan_closes(plan);
  return true;
}

// --- Results ---

void Scheduler::complete(const StepPlan& plan, std::vector<OutputResult> results, const std::string& error) {
  if (error.empty()) CHECK(results.size() == plan.answered.size());
  if (error.empty() && plan.prompt_rows > 0) report_progress(plan);
  for (size_t i = 0; i < plan.answered.size(); ++i) {
    const StepPlan::Answered& row = plan.answered[i];
    Request* request = find(row.request);
    if (request == nullptr || !request->running || request->sequence != row.sequence) continue;
    if (!error.empty()) {
      finish(*request, Error(ErrorCode::kUnavailable, error));
      continue;
    }
    if (plan.asked[i].logits && row.position == request->logits_delivered) ++request->logits_delivered;
    if (plan.asked[i].sample) {
      accept(*request, std::move(results[i]));
    } else if (row.position + 1 == request->tokens.size()) {
      finish(*request, FinishReason::kLength);
    }
  }
}

void Scheduler::lose(SequenceId sequence, const Error& error) {
  for (auto& [id, request] : requests_) {
    if (!request.running || request.sequence != sequence) continue;
    // What archives had is gone by now, or damaged: sequences that are kept in memory are as good as before.
    const bool loaded = request.load_positions > 0;
    archive_.failed += loaded;
    if (loaded && !std::exchange(request.unloadable, true)) return preempt(request);
    forget_kept();
    if (!std::exchange(request.lost, true)) return preempt(request);
    return finish(request, error);
  }
}

// Few requests ask for it, and few ranges of a step belong to prompts.
void Scheduler::report_progress(const StepPlan& plan) {
  for (const auto& [id, request] : requests_) {
    if (!request.asked.progress || !request.running) continue;
    for (const RowRange& range : plan.ranges)
      if (range.sequence == request.sequence && range.first_position < request.asked.prompt.size())
        emit(id, PromptProgress{range.first_position + range.count});
  }
}

void Scheduler::accept(Request& request, OutputResult result) {
  const TokenId token = result.token;
  request.tokens.push_back(token);
  emit(request.id, TokenEvent{token, result.logprob, std::move(result.top)});
  const std::vector<TokenId>& ends = request.asked.end_tokens;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) return finish(request, FinishReason::kStop);
  const size_t generated = request.tokens.size() - request.asked.prompt.size();
  if (generated == request.asked.max_tokens.value_or(~0u) || request.tokens.size() >= request.max_positions)
    return finish(request, FinishReason::kLength);
  ready_.push_back(request.id);
}

void Scheduler::finish(Request& request, std::variant<FinishReason, Error> how) {
  // After an error nothing of it is kept.
  if (request.running && std::holds_alternative<Error>(how)) stop_running(request);
  std::visit([&](auto& what) { emit(request.id, std::move(what)); }, how);
  remove(request);
}

void Scheduler::remove(Request& request) {
  if (options_.keep && request.opened && request.scheduled >= limits::kKvBlockPositions) {
    keep(request);
  } else if (request.running) {
    stop_running(request);
  } else {
    drop(waiting_, request.id);
  }
  requests_.erase(request.id);
}

}  // namespace caravan
