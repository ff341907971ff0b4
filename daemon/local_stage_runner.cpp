#include "daemon/local_stage_runner.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "compute/codec.h"

namespace caravan {

LocalStageRunner::LocalStageRunner(Engine& engine, ComputeThread& thread, const Clock& clock,
                                   LoadProgress progress, Post post)
    : engine_(engine),
      thread_(thread),
      clock_(clock),
      progress_(std::move(progress)),
      post_(std::move(post)) {}

LocalStageRunner::~LocalStageRunner() = default;

void LocalStageRunner::prepare(const StagePlan& plan) {
  thread_.post([this, plan] { prepare_now(plan); });
}

void LocalStageRunner::submit(std::vector<Step> steps) {
  const Time queued = clock_.now();
  for (Step& step : steps) thread_.post([this, queued, step = std::move(step)] { run_now(step, queued); });
}

void LocalStageRunner::release(RingId ring, EpochId epoch) {
  thread_.post([this, ring, epoch] {
    if (prepared_ && prepared_->plan.ring == ring && prepared_->plan.epoch <= epoch) prepared_.reset();
  });
}

void LocalStageRunner::prepare_now(const StagePlan& plan) {
  StagePrepared event{plan.ring, plan.epoch, 0, ""};
  try {
    prepared_.reset();
    if (plan.kv_type > static_cast<uint8_t>(KvType::kF16))
      fail(ErrorCode::kUnsupported, "the ring keeps KV as type {}, which this peer does not know",
           plan.kv_type);
    const auto kv_type = static_cast<KvType>(plan.kv_type);
    if (plan.max_rows > engine_.options().max_rows)
      fail(ErrorCode::kLimit, "steps of {} rows are over this peer's {}", plan.max_rows,
           engine_.options().max_rows);
    const uint64_t blocks_a_sequence =
        (uint64_t{plan.context} + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
    const uint32_t wanted = static_cast<uint32_t>(
        std::min<uint64_t>(blocks_a_sequence * std::max(1u, plan.max_sequences), UINT32_MAX));
    const KvRoom kv =
        engine_.kv_room(plan.span, plan.context, kv_type, static_cast<uint32_t>(blocks_a_sequence), wanted);
    if (kv.blocks < blocks_a_sequence) {
      const Bytes disk = engine_.kv_disk();
      fail(
          ErrorCode::kOutOfMemory,
          "KV of one sequence of {} positions needs {} blocks, the budget of {} has room for {}{}; give more "
          "with --ram, --kv-ram or --disk, or a smaller --context",
          plan.context, blocks_a_sequence, to_string(engine_.budget().limit()), kv.blocks,
          disk.count == 0
              ? ""
              : fmt::format(" and {} of disk for the rest, with at least {} in memory", to_string(disk),
                            to_string(engine_.least_kv_memory(plan.span, kv_type))));
    }
    prepared_.emplace(Prepared{plan, engine_.host(plan.span, plan.context, kv, progress_, kv_type)});
    rows_.resize(size_t{engine_.options().max_rows} * engine_.spec().width);
    event.kv_blocks = kv.blocks;
  } catch (const Error& error) {
    event.error = error.message();
  }
  post_(std::move(event));
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
    for (const SequenceOperation& operation : step.operations) apply(operation);
    done.rows = run_rows(step, done);
    done.kv_blocks_free = prepared_->hosted.stage->sequences().blocks_free();
  } catch (const Error& error) {
    done.error = error.message();
  }
  done.compute_ns = static_cast<uint64_t>((clock_.now() - start).count());
  post_(std::move(done));
}

void LocalStageRunner::apply(const SequenceOperation& operation) {
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
    case OperationKind::kLoad:
      fail(ErrorCode::kUnsupported, "this peer has no archive to load a sequence from");
  }
}

Rows LocalStageRunner::run_rows(const Step& step, StepDone& done) {
  const StagePlan& plan = prepared_->plan;
  const uint32_t width = engine_.spec().width;
  if (step.ranges.empty()) return {plan.codec, width, 0, nullptr};
  ranges_.clear();
  uint32_t count = 0;
  for (const RowRange& range : step.ranges) {
    ranges_.push_back({range.sequence, range.first_position, range.count});
    count += range.count;
  }
  if (step.rows.width != width || step.rows.count != count || count > engine_.options().max_rows ||
      !step.rows.bytes)
    fail(ErrorCode::kMalformed, "the step carries {} rows of width {} for {} of width {}", step.rows.count,
         step.rows.width, count, width);
  decode_rows(step.rows.codec, *step.rows.bytes, count, width, rows_.data());
  for (const StageFailure& failure : prepared_->hosted.stage->run(ranges_, rows_.data())) {
    if (done.lost.empty()) done.lost_reason = failure.error.message();
    done.lost.push_back(ranges_[failure.range].sequence);
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
