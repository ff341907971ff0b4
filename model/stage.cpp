#include "model/stage.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"
#include "compute/rope.h"

namespace caravan {

namespace {

// The layers of a span of units, as indices.
uint32_t first_layer(const ModelSpec& spec, UnitSpan span) {
  return std::clamp(span.first, 1u, spec.layer_count() + 1) - 1;
}
uint32_t last_layer(const ModelSpec& spec, UnitSpan span) {
  return std::max(first_layer(spec, span), std::clamp(span.last, 1u, spec.layer_count() + 1) - 1);
}

std::vector<KvLayerShape> kv_shapes(const ModelSpec& spec, UnitSpan span) {
  std::vector<KvLayerShape> shapes;
  for (uint32_t i = first_layer(spec, span); i < last_layer(spec, span); ++i)
    shapes.push_back({spec.layers[i].attention.shape.kv_heads, spec.layers[i].attention.shape.head_width,
                      spec.layers[i].attention.window});
  return shapes;
}

// The widest need of any layer of the span, a row.
struct Widths {
  size_t query = 0, kv = 0, heads = 0, experts_per_token = 0;
};

Widths widths(const ModelSpec& spec, uint32_t first, uint32_t last) {
  Widths most;
  for (uint32_t i = first; i < last; ++i) {
    const HeadShape& shape = spec.layers[i].attention.shape;
    most.query = std::max<size_t>(most.query, size_t{shape.heads} * shape.head_width);
    most.kv = std::max<size_t>(most.kv, size_t{shape.kv_heads} * shape.head_width);
    most.heads = std::max<size_t>(most.heads, shape.heads);
    most.experts_per_token =
        std::max<size_t>(most.experts_per_token, spec.layers[i].feed_forward.experts_per_token);
  }
  return most;
}

// Floats rounded up to a cache line.
size_t aligned(size_t floats) {
  return (floats + 15) / 16 * 16;
}

size_t scratch_floats(const ModelSpec& spec, const Widths& most, size_t rows) {
  return 3 * aligned(rows * most.query) + 2 * aligned(rows * most.kv) + 2 * aligned(rows * most.heads) +
         (most.experts_per_token == 0
              ? 0
              : aligned(rows * spec.width) + aligned(rows * most.experts_per_token * spec.width) +
                    aligned(rows * most.experts_per_token));
}

Bytes rope_bytes(const ModelSpec& spec, uint32_t context) {
  return {uint64_t{context} * spec.rope.width * sizeof(float)};  // (cos, sin) of width / 2 frequencies
}

}  // namespace

Bytes Stage::scratch_bytes(const ModelSpec& spec, const StageOptions& options) {
  const uint32_t first = first_layer(spec, options.span), last = last_layer(spec, options.span);
  if (first == last) return {};
  return rope_bytes(spec, options.context) +
         Bytes{scratch_floats(spec, widths(spec, first, last), options.max_rows) * sizeof(float)};
}

Stage::Stage(const ModelSpec& spec, const ModelWeights& weights, Backend& backend, Device& device,
             Budget& budget, StageOptions options)
    : spec_(spec),
      weights_(weights),
      backend_(backend),
      options_(options),
      first_layer_(first_layer(spec, options.span)),
      last_layer_(last_layer(spec, options.span)),
      cache_(device, budget, kv_shapes(spec, options.span), options.kv_type, options.kv_blocks, options.spill,
             options.sharing) {
  if (first_layer_ == last_layer_) return;
  const Widths most = widths(spec, first_layer_, last_layer_);
  const size_t rows = options.max_rows;
  const std::vector<float> pairs =
      rope_pairs(spec.rope.inverse_frequencies, spec.rope.magnitude, options.context);
  CHECK(pairs.size() * sizeof(float) == rope_bytes(spec, options.context).count);
  const Bytes floats{scratch_floats(spec, most, rows) * sizeof(float)};
  reservation_ = budget.reserve(MemoryTag::kScratch, scratch_bytes(spec, options));
  rope_pairs_ = DeviceBuffer(device, rope_bytes(spec, options.context));
  device.copy_in(rope_pairs_.address(), std::as_bytes(std::span(pairs)));
  rope_ = {reinterpret_cast<const float*>(rope_pairs_.address()), options.context, spec.rope.width};
  scratch_ = DeviceBuffer(device, floats);
  queries_ = scratch(rows * most.query);
  mixed_ = scratch(rows * most.query);
  mix_state_.values = scratch(rows * most.query);
  keys_ = scratch(rows * most.kv);
  values_ = scratch(rows * most.kv);
  mix_state_.maximum = scratch(rows * most.heads);
  mix_state_.sum = scratch(rows * most.heads);
  if (most.experts_per_token > 0) {
    normed_ = scratch(rows * spec.width);
    parts_ = scratch(rows * most.experts_per_token * spec.width);
    expert_weights_ = scratch(rows * most.experts_per_token);
    expert_ids_.resize(rows * most.experts_per_token);
    slots_.resize(rows * most.experts_per_token);
  }
}

float* Stage::scratch(size_t floats) {
  float* start = reinterpret_cast<float*>(scratch_.address()) + scratch_used_;
  scratch_used_ += aligned(floats);
  CHECK(scratch_used_ * sizeof(float) <= scratch_.bytes().count);
  return start;
}

void Stage::embed(std::span<const TokenId> ids, float* rows) {
  for (TokenId id : ids)
    if (id >= spec_.vocabulary)
      fail(ErrorCode::kInvalidArgument, "token {} is not among the {} of the vocabulary", id,
           spec_.vocabulary);
  backend_.embed(weights_.embedding(ids).rows, spec_.embedding_scale, rows);
}

std::vector<StageFailure> Stage::run(std::span<const StageRange> ranges, float* rows) {
  admit(ranges);
  failures_.clear();
  if (first_layer_ == last_layer_) return {};
  size_t range = 0;
  uint32_t done = 0;
  while (range < ranges.size()) {
    cache_.begin_step();
    const uint32_t taken = take_parts(ranges, range, done);
    if (!together_.empty()) run_parts(rows);
    cache_.end_step();
    rows += size_t{taken} * spec_.width;
  }
  return std::move(failures_);
}

// A range that fails ends what runs together: its rows lie between the others'.
uint32_t Stage::take_parts(std::span<const StageRange> ranges, size_t& range, uint32_t& done) {
  together_.clear();
  uint32_t taken = 0;
  while (range < ranges.size()) {
    const StageRange& from = ranges[range];
    uint32_t count = 0;
    try {
      count = cache_.add_rows(from.sequence, from.first_position + done, from.count - done);
    } catch (const Error& error) {
      if (!together_.empty()) return taken;  // it fails again as the first of the next
      fail_range(range, from.sequence, error);
      taken = from.count - done;
      ++range;
      done = 0;
      return taken;
    }
    if (count == 0) return taken;
    together_.push_back({range, {from.sequence, from.first_position + done, count}, taken});
    taken += count;
    done += count;
    if (done < from.count) return taken;
    ++range;
    done = 0;
  }
  return taken;
}

void Stage::run_parts(float* rows) {
  cache_.start_reading();
  for (uint32_t i = first_layer_; i < last_layer_; ++i) {
    fill_row_states(i - first_layer_);
    attention(spec_.layers[i], i, rows);
    feed_forward(spec_.layers[i], i, rows);
  }
}

void Stage::fail_range(size_t range, SequenceId sequence, const Error& error) {
  cache_.spoil(sequence, error);
  const auto told = [range](const StageFailure& failure) { return failure.range == range; };
  if (std::none_of(failures_.begin(), failures_.end(), told)) failures_.push_back({range, error});
}

// All ranges are checked and all blocks counted before any state changes.
void Stage::admit(std::span<const StageRange> ranges) {
  uint64_t rows = 0, blocks = 0;
  for (const StageRange& range : ranges) {
    const uint32_t have = cache_.positions(range.sequence);
    if (range.first_position != have || range.count == 0)
      fail(ErrorCode::kInvalidArgument, "sequence {} has {} positions; {} rows from {} do not continue it",
           range.sequence.value, have, range.count, range.first_position);
    if (uint64_t{range.first_position} + range.count > options_.context)
      fail(ErrorCode::kLimit, "sequence {} would grow to {} positions, over the context of {}",
           range.sequence.value, uint64_t{range.first_position} + range.count, options_.context);
    const auto blocks_for = [](uint64_t positions) {
      return (positions + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
    };
    blocks += blocks_for(uint64_t{have} + range.count) - blocks_for(have);
    rows += range.count;
  }
  if (rows > options_.max_rows)
    fail(ErrorCode::kLimit, "{} rows in one step, over {}", rows, options_.max_rows);
  if (first_layer_ != last_layer_ && blocks > cache_.blocks_free())
    fail(ErrorCode::kOutOfMemory, "{} KV blocks are needed, {} of {} are free", blocks, cache_.blocks_free(),
         cache_.block_count());
  for (const StageRange& range : ranges) {
    cache_.tag(range.sequence, range.first_position, range.count, range.tags);
    cache_.extend(range.sequence, range.first_position + range.count);
  }
}

void Stage::fill_row_states(uint32_t cache_layer) {
  row_states_.clear();
  for (const Part& part : together_) {
    const KvBlock* blocks = cache_.blocks(part.rows.sequence, cache_layer);
    for (uint32_t i = 0; i < part.rows.count; ++i)
      row_states_.push_back({part.rows.first_position + i, blocks});
  }
}

void Stage::attention(const LayerSpec& layer, uint32_t index, float* rows) {
  const AttentionSpec& spec = layer.attention;
  const uint32_t count = row_count();
  const GroupLease lease = weights_.acquire({GroupId::Kind::kAttention, index, 0});
  const Projection projections[] = {{lease[Role::kQuery], lease[Role::kQueryBias], queries_},
                                    {lease[Role::kKey], lease[Role::kKeyBias], keys_},
                                    {lease[Role::kValue], lease[Role::kValueBias], values_}};
  backend_.norm_project(rows, count, norm(lease[Role::kAttentionNorm]), projections);
  backend_.prepare_attention({spec.shape, norm(lease[Role::kQueryNorm]), norm(lease[Role::kKeyNorm]),
                              spec.rope, rope_, options_.kv_type, queries_, keys_, values_, row_states_});

  backend_.mix_begin(spec.shape, count, mix_state_);
  mix(spec, index - first_layer_);
  backend_.mix_end(spec.shape, count, mix_state_, mixed_);
  backend_.project_add(mixed_, count, lease[Role::kAttentionOutput], lease[Role::kAttentionOutputBias],
                       {rows, norm(lease[Role::kAttentionPostNorm]), layer.residual_scale});
}

// Neighbouring parts that lie in memory whole are mixed together, the others one by one, as their blocks
// come.
void Stage::mix(const AttentionSpec& spec, uint32_t cache_layer) {
  uint32_t resident = 0;  // first row of a run of parts in memory
  for (size_t i = 0; i < together_.size(); ++i) {
    if (cache_.all_resident(i)) continue;
    mix_resident(spec, resident, together_[i].first_row);
    mix_part(spec, cache_layer, i);
    resident = together_[i].first_row + together_[i].rows.count;
  }
  mix_resident(spec, resident, row_count());
}

void Stage::mix_resident(const AttentionSpec& spec, uint32_t first_row, uint32_t last_row) {
  if (first_row == last_row) return;
  uint32_t last_position = 0;
  for (uint32_t row = first_row; row < last_row; ++row)
    last_position = std::max(last_position, row_states_[row].position);
  const uint32_t pieces = last_position / limits::kMixPiecePositions + 1;
  for (uint32_t piece = 0; piece < pieces; piece += options_.pieces_per_mix)
    mix_rows(spec, first_row, last_row, piece, std::min(pieces, piece + options_.pieces_per_mix));
}

void Stage::mix_part(const AttentionSpec& spec, uint32_t cache_layer, size_t index) {
  const Part& part = together_[index];
  const uint32_t last_row = part.first_row + part.rows.count;
  const uint32_t pieces = (part.rows.first_position + part.rows.count - 1) / limits::kMixPiecePositions + 1;
  try {
    for (uint32_t piece = cache_.first_piece(index, cache_layer); piece < pieces;) {
      const KvStager::Reach reach = cache_.reach(index, cache_layer, piece, options_.pieces_per_mix);
      for (uint32_t row = part.first_row; row < last_row; ++row) row_states_[row].blocks = reach.blocks;
      mix_rows(spec, part.first_row, last_row, piece, reach.last_piece);
      piece = reach.last_piece;
    }
  } catch (const Error& error) {
    fail_range(part.range, part.rows.sequence, error);
    // Numbers to go on with; nobody sees what comes of them.
    const MixState state = mix_state(spec.shape, part.first_row);
    const size_t heads = size_t{part.rows.count} * spec.shape.heads;
    std::fill_n(state.sum, heads, 1.0f);
    std::fill_n(state.values, heads * spec.shape.head_width, 0.0f);
  }
}

void Stage::mix_rows(const AttentionSpec& spec, uint32_t first_row, uint32_t last_row, uint32_t first_piece,
                     uint32_t last_piece) {
  const size_t width = size_t{spec.shape.heads} * spec.shape.head_width;
  backend_.mix({spec.shape, options_.kv_type, spec.scale, spec.window, queries_ + first_row * width,
                std::span(row_states_).subspan(first_row, last_row - first_row), first_piece, last_piece},
               mix_state(spec.shape, first_row));
}

MixState Stage::mix_state(const HeadShape& shape, uint32_t first_row) const {
  const size_t heads = size_t{first_row} * shape.heads;
  return {mix_state_.maximum + heads, mix_state_.sum + heads, mix_state_.values + heads * shape.head_width};
}

void Stage::feed_forward(const LayerSpec& layer, uint32_t index, float* rows) {
  const GroupLease lease = weights_.acquire({GroupId::Kind::kFeedForward, index, 0});
  const Norm before = norm(lease[Role::kFeedForwardNorm]);
  const ResidualAdd add{rows, norm(lease[Role::kFeedForwardPostNorm]), layer.residual_scale};
  if (layer.feed_forward.experts > 0) return experts(layer, index, lease[Role::kRouter], before, add, rows);
  backend_.feed_forward(
      rows, row_count(),
      {before, lease[Role::kGate], lease[Role::kUp], lease[Role::kDown], layer.feed_forward.activation,
       lease[Role::kGateBias], lease[Role::kUpBias], lease[Role::kDownBias]},
      add);
}

// The router speaks first; then each chosen expert is leased once and runs all rows that chose it. In which
// order they run is free: what they give is added up in the order of the choice.
void Stage::experts(const LayerSpec& layer, uint32_t index, const Matrix& router, const Norm& before,
                    const ResidualAdd& add, const float* rows) {
  const FeedForwardSpec& spec = layer.feed_forward;
  const uint32_t count = row_count(), top_k = spec.experts_per_token;
  backend_.route(rows, count, {before, router, {}, top_k, spec.normalise}, normed_, expert_ids_.data(),
                 expert_weights_);

  rows_of_expert_.assign(spec.experts, {});
  for (uint32_t i = 0; i < count * top_k; ++i) rows_of_expert_[expert_ids_[i]].push_back(i);
  std::vector<uint32_t> row_index, wanted;
  for (uint32_t expert = 0; expert < spec.experts; ++expert)
    if (!rows_of_expert_[expert].empty()) wanted.push_back(expert);
  weights_.want_experts(index, wanted, count >= kScanRows);
  uint32_t part = 0;
  for (const uint32_t expert : wanted) {
    const std::vector<uint32_t>& chosen = rows_of_expert_[expert];
    row_index.clear();
    for (uint32_t slot : chosen) row_index.push_back(slot / top_k);
    const GroupLease lease = weights_.acquire({GroupId::Kind::kExpert, index, expert});
    backend_.run_expert(normed_, row_index,
                        {{}, lease[Role::kGate], lease[Role::kUp], lease[Role::kDown], spec.activation},
                        parts_ + size_t{part} * spec_.width);
    for (uint32_t slot : chosen) slots_[slot] = part++;
  }
  backend_.combine(parts_, std::span(slots_).first(size_t{count} * top_k), expert_weights_, count, top_k,
                   spec_.width, add);
}

void Stage::output(const float* rows, uint32_t count, float* logits) {
  const GroupLease lease = weights_.acquire({GroupId::Kind::kOutput, 0, 0});
  backend_.output(rows, count, {norm(lease[Role::kOutputNorm]), lease[Role::kOutput], spec_.logit_scale},
                  logits);
}

void Stage::normalise(const float* rows, uint32_t count, float* out) {
  const GroupLease lease = weights_.acquire({GroupId::Kind::kOutput, 0, 0});
  backend_.normalise(rows, count, norm(lease[Role::kOutputNorm]), spec_.width, out);
}

}  // namespace caravan
