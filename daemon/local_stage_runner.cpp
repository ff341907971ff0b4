#include "daemon/local_stage_runner.h"

#include <algorithm>
#include <utility>

#include "base/caught_error.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "compute/codec.h"

namespace caravan {

LocalStageRunner::LocalStageRunner(Engine& engine, ComputeThread& thread, const Clock& clock,
                                   LoadProgress progress, Forecaster forecast, Post post)
    : engine_(engine),
      thread_(thread),
      clock_(clock),
      progress_(std::move(progress)),
      forecast_(std::move(forecast)),
      post_(std::move(post)) {
  thread_.when_idle([this] { return prepared_ && prepared_->hosted.stage->sequences().archive_on(); });
}

LocalStageRunner::~LocalStageRunner() = default;

void LocalStageRunner::prepare(const StagePlan& plan) {
  plan_ = plan;
  thread_.post([this, plan] { prepare_now(plan); });
}

void LocalStageRunner::submit(std::vector<Step> steps) {
  const Time queued = clock_.now();
  for (Step& step : steps) thread_.post([this, queued, step = std::move(step)] { run_now(step, queued); });
}

ArchivedFound LocalStageRunner::find_archived(RingId ring, EpochId epoch, std::span<const BlockTag> tags) {
  const KvArchive* archive = engine_.archive();
  if (!plan_ || plan_->ring != ring || plan_->epoch != epoch) return {};
  const uint32_t first = std::max(plan_->span.first, 1u) - 1;
  const uint32_t last = std::clamp(plan_->span.last, 1u, engine_.spec().layer_count() + 1) - 1;
  if (first >= last) return {static_cast<uint32_t>(tags.size()), 0};
  if (!archive) return {};
  const KvArchive::Found found = archive->find(plan_->lineage, first, last - first, tags);
  return {found.blocks, found.load_ns};
}

void LocalStageRunner::limit_archive(const ArchiveLimit& limit) {
  thread_.post([this, limit] {
    if (prepared_ && prepared_->plan.ring == limit.ring && prepared_->plan.epoch == limit.epoch)
      prepared_->hosted.stage->sequences().keep_archive_within(limit.room);
  });
}

void LocalStageRunner::release(RingId ring, EpochId epoch) {
  thread_.post([this, ring, epoch] {
    if (prepared_ && prepared_->plan.ring == ring && prepared_->plan.epoch <= epoch) prepared_.reset();
  });
}

void LocalStageRunner::finish_archiving(Saving saving) {
  thread_.post([this, saving = std::move(saving)] {
    if (!prepared_) return;
    *saving = true;
    prepared_->hosted.stage->sequences().finish_archiving(kSavingPatience);
    *saving = false;
  });
}

void LocalStageRunner::prepare_now(const StagePlan& plan) {
  StagePrepared event{plan.ring, plan.epoch, 0, ""};
  try {
    prepared_.reset();
    engine_.give_back_wire();
    if (plan.kv_type > static_cast<uint8_t>(KvType::kF16))
      fail(ErrorCode::kUnsupported, "the ring keeps KV as type {}, which this peer does not know",
           plan.kv_type);
    const auto kv_type = static_cast<KvType>(plan.kv_type);
    if (plan.max_rows > engine_.options().max_rows)
      fail(ErrorCode::kLimit, "steps of {} rows are over this peer's {}", plan.max_rows,
           engine_.options().max_rows);
    const BudgetNeeds needs = engine_.needs(plan.span, plan.context, kv_type);
    const uint32_t wanted = static_cast<uint32_t>(
        std::min<uint64_t>(needs.kv.blocks * std::max(1u, plan.max_sequences), UINT32_MAX));
    const KvRoom kv = engine_.kv_room(plan.span, plan.context, kv_type, wanted);
    const std::string refusal =
        refuse_budgets(engine_.options(), least_budgets(engine_.options(), needs),
                       fmt::format("layers {} to {} and a context of {}", plan.span.first, plan.span.last - 1,
                                   plan.context));
    if (!refusal.empty()) fail(ErrorCode::kOutOfMemory, "{}", refusal);
    CHECK(kv.blocks >= needs.kv.blocks);
    prepared_.emplace(
        Prepared{plan, engine_.host(plan.span, plan.context, kv, progress_, kv_type, plan.lineage)});
    engine_.settle_wire();
    rows_.resize(size_t{engine_.options().max_rows} * engine_.spec().width);
    event.kv_blocks = kv.blocks;
    event.archive = archive_room();
    event.forecast = forecast_(plan);
  } catch (const std::exception&) {
    event.error = caught_error().message();
  }
  post_(std::move(event));
}

ArchiveRoom LocalStageRunner::archive_room() const {
  const KvCache& sequences = prepared_->hosted.stage->sequences();
  const ArchiveRoom room = sequences.archive_room();
  if (const KvArchive* archive = engine_.archive(); archive != nullptr && room.blocks == 0)
    log_warning(
        "kv_archive_too_small limit=\"{}\" reason=\"a block of {} positions of these layers needs --archive "
        "{} ({} bytes)\"",
        to_string(archive->limit()), limits::kKvBlockPositions, to_string(sequences.least_archive()),
        sequences.least_archive().count);
  return room;
}

void LocalStageRunner::run_now(const Step& step, Time queued) {
  StepDone done;
  done.ring = step.ring;
  done.epoch = step.epoch;
  done.step = step.step;
  const Time start = clock_.now();
  done.queue_ns = static_cast<uint64_t>((start - queued).count());
  try {
    if (!prepared_ || prepared_->plan.ring != step.ring || prepared_->plan.epoch != step.epoch)
      fail(ErrorCode::kUnavailable, "no stage is prepared for this epoch");
    std::span<const BlockTag> load_tags = step.load_tags;
    for (const SequenceOperation& operation : step.operations) apply(operation, load_tags);
    done.rows = run_rows(step, done);
    done.kv_blocks_free = prepared_->hosted.stage->sequences().blocks_free();
  } catch (const std::exception&) {
    done.error = caught_error().message();
  }
  done.compute_ns = static_cast<uint64_t>((clock_.now() - start).count());
  post_(std::move(done));
}

// Takes the tags of what it loads from `load_tags`.
void LocalStageRunner::apply(const SequenceOperation& operation, std::span<const BlockTag>& load_tags) {
  KvCache& cache = prepared_->hosted.stage->sequences();
  switch (operation.kind) {
    case OperationKind::kOpen:
      return cache.open(operation.sequence);
    case OperationKind::kFork:
      return cache.fork(operation.source, operation.sequence, operation.positions);
    case OperationKind::kTruncate:
      return cache.truncate(operation.sequence, operation.positions);
    case OperationKind::kClose:
      return cache.close(operation.sequence);
    case OperationKind::kMark:
      return;  // KV can be cut anywhere, so a mark needs nothing
    case OperationKind::kLoad: {
      const size_t blocks = loaded_blocks(operation);
      if (blocks > load_tags.size())
        fail(ErrorCode::kMalformed, "the step loads {} blocks and names {}", blocks, load_tags.size());
      cache.load(operation.sequence, operation.positions, load_tags.first(blocks));
      load_tags = load_tags.subspan(blocks);
      return;
    }
  }
}

// With the tags of the blocks that they complete, unless a stage before lost the sequence: what is computed
// from there on is of no use.
void LocalStageRunner::add_ranges(const Step& step) {
  ranges_.clear();
  size_t next = 0;
  for (const RowRange& range : step.ranges) {
    const size_t blocks = completed_blocks(range);
    StageRange& added = ranges_.emplace_back(StageRange{range.sequence, range.first_position, range.count});
    if (step.tags.empty()) continue;
    if (blocks > step.tags.size() - next)
      fail(ErrorCode::kMalformed, "the step completes more blocks than the {} that it names",
           step.tags.size());
    if (std::find(step.lost.begin(), step.lost.end(), range.sequence) == step.lost.end())
      added.tags = std::span(step.tags).subspan(next, blocks);
    next += blocks;
  }
}

Rows LocalStageRunner::run_rows(const Step& step, StepDone& done) {
  const StagePlan& plan = prepared_->plan;
  const uint32_t width = engine_.spec().width;
  if (step.ranges.empty()) return {plan.codec, width, 0, nullptr};
  add_ranges(step);
  uint32_t count = 0;
  for (const RowRange& range : step.ranges) count += range.count;
  if (step.rows.width != width || step.rows.count != count || count > engine_.options().max_rows ||
      !step.rows.bytes)
    fail(ErrorCode::kMalformed, "the step carries {} rows of width {} for {} of width {}", step.rows.count,
         step.rows.width, count, width);
  decode_rows(step.rows.codec, *step.rows.bytes, count, width, rows_.data());
  for (const StageFailure& failure : prepared_->hosted.stage->run(ranges_, rows_.data())) {
    if (done.lost.empty()) done.lost_reason = failure.error.message();
    done.lost.push_back(ranges_[failure.range].sequence);
    if (engine_.left_disk()) continue;  // of what was removed on purpose
    log_warning("sequence_lost sequence={} reason=\"{}\"", done.lost.back().value, failure.error.message());
  }

  uint32_t kept = count;
  if (plan.last) {
    kept = 0;
    uint32_t first = 0;
    for (const RowRange& range : step.ranges) {
      const uint32_t from = first + range.count - range.answer_count;
      std::copy_n(rows_.begin() + size_t{from} * width, size_t{range.answer_count} * width,
                  rows_.begin() + size_t{kept} * width);
      kept += range.answer_count;
      first += range.count;
    }
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(kept * encoded_row_bytes(plan.codec, width));
  encode_rows(plan.codec, rows_.data(), kept, width, bytes->data());
  return {plan.codec, width, kept, std::move(bytes)};
}

}  // namespace caravan
