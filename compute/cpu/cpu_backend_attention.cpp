#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/limits.h"
#include "compute/cpu/cpu_backend.h"

namespace caravan {
namespace {

uint64_t element_bytes(KvType type) {
  return type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t);
}

// Norm weights of `columns`: per head, or over the whole projection.
void normalise_heads(const cpu::Kernels& kernels, float* row, uint32_t heads, uint32_t head_width,
                     const float* weight, uint32_t columns, float epsilon) {
  if (!weight) return;
  for (uint32_t start = 0; start < heads * head_width; start += columns)
    kernels.rms_norm(row + start, weight, columns, epsilon, row + start);
}

}  // namespace

void CpuBackend::prepare_attention(const AttentionPrepare& prepare) {
  const HeadShape& shape = prepare.shape;
  const uint32_t width = shape.head_width, query_width = shape.heads * width,
                 kv_width = shape.kv_heads * width;
  const uint32_t query_columns = prepare.query_norm.weight.columns,
                 key_columns = prepare.key_norm.weight.columns;
  CHECK((!prepare.query_norm.weight || query_columns == width || query_columns == query_width));
  CHECK((!prepare.key_norm.weight || key_columns == width || key_columns == kv_width));
  CHECK(prepare.table.width <= width);
  const float* query_weight = norm_weight(prepare.query_norm, query_columns, norm_weight_);
  const float* key_weight = norm_weight(prepare.key_norm, key_columns, post_weight_);
  pool_.parallel_for(prepare.rows.size(), 1, [&](uint64_t first, uint64_t last, uint32_t) {
    for (uint64_t r = first; r < last; ++r) {
      const RowState& row = prepare.rows[r];
      float* queries = prepare.queries + r * query_width;
      float* keys = prepare.keys + r * kv_width;
      const float* values = prepare.values + r * kv_width;
      normalise_heads(kernels_, queries, shape.heads, width, query_weight, query_columns,
                      prepare.query_norm.epsilon);
      normalise_heads(kernels_, keys, shape.kv_heads, width, key_weight, key_columns,
                      prepare.key_norm.epsilon);
      if (prepare.rope != RopeLayout::kNone) {
        CHECK(row.position < prepare.table.positions);
        const float* pairs = prepare.table.pairs + uint64_t{row.position} * prepare.table.width;
        for (uint32_t h = 0; h < shape.heads; ++h)
          kernels_.rope(prepare.rope, pairs, prepare.table.width, queries + h * width);
        for (uint32_t h = 0; h < shape.kv_heads; ++h)
          kernels_.rope(prepare.rope, pairs, prepare.table.width, keys + h * width);
      }
      const KvBlock& block = row.blocks[row.position / limits::kKvBlockPositions];
      const uint64_t head_bytes =
          uint64_t{limits::kKvBlockPositions} * width * element_bytes(prepare.kv_type);
      for (uint32_t h = 0; h < shape.kv_heads; ++h)
        kernels_.store_state(prepare.kv_type, keys + h * width, values + h * width, width,
                             row.position % limits::kKvBlockPositions, block.keys + h * head_bytes,
                             block.values + h * head_bytes);
    }
  });
  counters_.state_bytes.add(2 * prepare.rows.size() * kv_width * element_bytes(prepare.kv_type));
}

void CpuBackend::mix_begin(const HeadShape& shape, uint32_t rows, const MixState& state) {
  const uint64_t heads = uint64_t{rows} * shape.heads;
  std::fill_n(state.maximum, heads, -std::numeric_limits<float>::infinity());
  std::fill_n(state.sum, heads, 0.0f);
  std::fill_n(state.values, heads * shape.head_width, 0.0f);
}

// Neighbouring rows of one sequence share the reading of its keys and values.
void CpuBackend::group_rows(const Mix& mix, const MixState& state) {
  const uint32_t group = mix.shape.heads / mix.shape.kv_heads;
  // Fewer where the threads would run out of units.
  const uint64_t share = mix.rows.size() * mix.shape.kv_heads / (2 * pool_.threads());
  const uint32_t most = std::max(1u, std::min(cpu::kQueriesAUnit / group, static_cast<uint32_t>(share)));
  units_.clear();
  for (uint32_t r = 0; r < mix.rows.size(); ++r) {
    if (!units_.empty() && units_.back().rows < most &&
        mix.rows[units_.back().first_row].blocks == mix.rows[r].blocks) {
      ++units_.back().rows;
    } else {
      units_.push_back({&mix, &state, r, 1, 0});
    }
  }
}

void CpuBackend::mix(const Mix& mix, const MixState& state) {
  CHECK(mix.rows.size() <= options_.max_rows);
  CHECK(mix.shape.head_width <= options_.max_head_width);
  CHECK(mix.shape.heads % mix.shape.kv_heads == 0u);
  group_rows(mix, state);
  pool_.parallel_for(units_.size() * mix.shape.kv_heads, 1,
                     [&](uint64_t first, uint64_t last, uint32_t worker) {
                       for (uint64_t i = first; i < last; ++i) {
                         cpu::MixUnit unit = units_[i / mix.shape.kv_heads];
                         unit.kv_head = static_cast<uint32_t>(i % mix.shape.kv_heads);
                         kernels_.mix(unit, worker_scratch(worker));
                       }
                     });
  uint64_t positions = 0;
  for (const RowState& row : mix.rows) {
    const uint64_t stop =
        std::min<uint64_t>(uint64_t{row.position} + 1, uint64_t{mix.last_piece} * limits::kMixPiecePositions);
    uint64_t start = uint64_t{mix.first_piece} * limits::kMixPiecePositions;
    if (mix.window && row.position >= mix.window)
      start = std::max<uint64_t>(start, row.position - mix.window + 1);
    if (stop > start) positions += stop - start;
  }
  counters_.mix_operations.add(4 * positions * mix.shape.heads * mix.shape.head_width);
  counters_.state_bytes.add(2 * positions * mix.shape.kv_heads * mix.shape.head_width *
                            element_bytes(mix.kv_type));
}

void CpuBackend::mix_end(const HeadShape& shape, uint32_t rows, const MixState& state, float* out) {
  pool_.parallel_for(uint64_t{rows}, 1, [&](uint64_t first, uint64_t last, uint32_t) {
    for (uint64_t i = first * shape.heads; i < last * shape.heads; ++i)
      kernels_.divide(state.values + i * shape.head_width, state.sum[i], shape.head_width,
                      out + i * shape.head_width);
  });
}

}  // namespace caravan
