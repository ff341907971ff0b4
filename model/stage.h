#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/budget.h"
#include "cache/kv_cache.h"
#include "compute/backend.h"
#include "compute/device.h"
#include "model/spec.h"
#include "model/weights.h"

namespace caravan {

struct StageOptions {
  UnitSpan span;  // any units; layers among them have state
  KvType kv_type = KvType::kF32;
  uint32_t context = 0;               // positions of one sequence
  uint32_t kv_blocks = 0;             // of all sequences
  std::optional<KvSpill> spill = {};  // where blocks go that its frames do not hold
  std::optional<KvSharing> sharing = {};
  uint32_t max_rows = 0;        // of one call
  uint32_t pieces_per_mix = 8;  // softmax pieces that attention takes at a time
};

// Consecutive rows of one sequence.
struct StageRange {
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t count = 0;
  std::span<const BlockTag> tags = {};  // of the KV blocks that they complete, or none: not to be archived
};

// A range whose state could not be brought into memory or kept: its rows are of no use, and its sequence is
// refused from now on.
struct StageFailure {
  size_t range = 0;
  Error error;
};

// The stage loop: runs a span of units over rows of many sequences. Weights come by lease, layer by layer;
// state lies in its KvCache. The device's compute thread owns it.
class Stage {
 public:
  // Everything handed in outlives the stage. Throws kOutOfMemory when the budget has no room for state or
  // scratch.
  Stage(const ModelSpec& spec, const ModelWeights& weights, Backend& backend, Device& device, Budget& budget,
        StageOptions options);
  // What a stage reserves beside its state.
  static Bytes scratch_bytes(const ModelSpec& spec, const StageOptions& options);

  KvCache& sequences() { return cache_; }
  const StageOptions& options() const { return options_; }

  // Unit 0: rows [ids.size(), width].
  void embed(std::span<const TokenId> ids, float* rows);
  // The layers of the span, in place on rows [sum of counts, width], in the ranges' order. Each range
  // continues its open sequence (kInvalidArgument otherwise). Throws kOutOfMemory when no KV block is free;
  // nothing has changed then. Rows whose blocks do not fit the frames of the cache together run one part
  // after the other. What disk keeps from a range ends that range alone.
  std::vector<StageFailure> run(std::span<const StageRange> ranges, float* rows);
  // Unit L+1: logits [count, vocabulary].
  void output(const float* rows, uint32_t count, float* logits);
  // Its norm alone: what enters the head matrix, [count, width].
  void normalise(const float* rows, uint32_t count, float* out);

 private:
  // Rows of a range that run together with others.
  struct Part {
    size_t range = 0;
    StageRange rows;
    uint32_t first_row = 0;  // among those that run together
  };
  void admit(std::span<const StageRange> ranges);
  // Takes as many of the rows from `range` and `done` (rows of it) on as can run together; returns them.
  uint32_t take_parts(std::span<const StageRange> ranges, size_t& range, uint32_t& done);
  void run_parts(float* rows);
  void fail_range(size_t range, SequenceId sequence, const Error& error);
  void fill_row_states(uint32_t cache_layer);
  void attention(const LayerSpec& layer, uint32_t index, float* rows);
  void mix(const AttentionSpec& spec, uint32_t cache_layer);
  void mix_resident(const AttentionSpec& spec, uint32_t first_row, uint32_t last_row);
  void mix_part(const AttentionSpec& spec, uint32_t cache_layer, size_t part);
  void mix_rows(const AttentionSpec& spec, uint32_t first_row, uint32_t last_row, uint32_t first_piece,
                uint32_t last_piece);
  MixState mix_state(const HeadShape& shape, uint32_t first_row) const;
  void feed_forward(const LayerSpec& layer, uint32_t index, float* rows);
  void experts(const LayerSpec& layer, uint32_t index, const Matrix& router, const Norm& norm,
               const ResidualAdd& add, const float* rows);
  uint32_t row_count() const { return static_cast<uint32_t>(row_states_.size()); }
  Norm norm(const Matrix& weight) const { return {weight, spec_.norm_epsilon}; }
  float* scratch(size_t floats);

  const ModelSpec& spec_;
  const ModelWeights& weights_;
  Backend& backend_;
  const StageOptions options_;
  const uint32_t first_layer_, last_layer_;  // layer indices, [first, last)
  KvCache cache_;
  Reservation reservation_;
  DeviceBuffer rope_pairs_;
  RopeTable rope_;
  DeviceBuffer scratch_;
  size_t scratch_used_ = 0;  // floats, while the constructor hands them out
  float *queries_ = nullptr, *keys_ = nullptr, *values_ = nullptr, *mixed_ = nullptr;
  MixState mix_state_;
  float *normed_ = nullptr, *parts_ = nullptr, *expert_weights_ = nullptr;
  std::vector<uint32_t> expert_ids_, slots_;
  std::vector<std::vector<uint32_t>> rows_of_expert_;
  std::vector<RowState> row_states_;
  std::vector<Part> together_;  // that run together
  std::vector<StageFailure> failures_;
};

}  // namespace caravan
