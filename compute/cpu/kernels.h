#pragma once

#include <cstddef>
#include <cstdint>

#include "compute/backend.h"
#include "compute/format.h"

// What one instruction set offers. The sums below have one order each, which belongs to the format and not to
// the instruction set, the number of rows or the number of threads (law 3):
//
//  - Activations for quantized weights are int8 with a scale for every 16: d = max|x| / 127, q = x * (1 / d)
//    rounded to even, kept within +-127. A scale that is no normal number counts as zero. A row with an
//    infinity or a NaN among the 16 gives NaN there. (One scale for 32 was tried: it loses an eighth more,
//    which puts Q4_0 behind llama.cpp; docs/decisions/0002-activation-scales.md.)
//  - Q4_0, Q5_0, Q8_0: each half of a block of 32 is summed exactly in integers, offset included;
//    both = fma(float(second), dx2, float(first) * dx1), acc = fma(both, dw, acc), block after block.
//  - Q4_1, Q5_1: the same, then acc = fma(m, dx1 * float(sum of q) + dx2 * float(sum of q), acc).
//  - Q4_K, Q5_K: the same by sub-blocks of 32, with dw = d * float(scale), m = -(dmin * float(min)).
//  - Q6_K: sub-blocks of 32; both 16-wide scales multiply their exact sums in integers; dw = d.
//  - After 512 weights (16 blocks) acc is added to the total, total = total + acc, and starts at zero again.
//  - F32, F16, BF16: sum l of 16 takes the columns l, l + 16, ... in order, acc = fma(w, x, acc), columns
//    beyond the last counting as 0 * 0; then sums l and l + 8 are added, of these l and l + 4, l + 2, l + 1.
//  - Sums of squares (RMS norm) and of exponentials (softmax): 16 interleaved sums and the same tree.
//  - Attention: pieces of 256 positions aligned to position 0. A score runs along the head's width in order
//  by
//    fma, then times the scale; p = exp(score - maximum of the piece); the sum of p in 16 interleaved sums;
//    values by fma(p, v, acc) in order of positions. Pieces are merged in order: with m the larger maximum,
//    total = fma(piece, exp(piece maximum - m), total * exp(total maximum - m)).
//  - exp is our own: compute/cpu/exp_constants.h.
namespace caravan::cpu {

inline constexpr uint32_t kTileOutputs = 16;      // outputs that a kernel handles together
inline constexpr uint32_t kSegmentColumns = 512;  // weights between two additions to the total
inline constexpr uint32_t kActivationBlock = 32;
inline constexpr uint32_t kMaxQueryBatch = 8;  // queries that share one load of keys and values
inline constexpr uint32_t kQueriesAUnit = 32;  // queries that find keys and values in the cache

// Quantized activations of several rows; every array is row-major.
struct QuantizedRows {
  uint32_t columns = 0;         // a multiple of 32
  int8_t* q = nullptr;          // [rows][columns]
  float* scale = nullptr;       // [rows][columns / 16]
  float* scaled_sum = nullptr;  // [rows][columns / 32]: both halves' scale * float(sum of q)
  // Where the integer sums of formats with an offset start: minus the offset times the sum of q.
  int32_t* start8 = nullptr;        // [rows][columns / 16]
  int32_t* start16 = nullptr;       // [rows][columns / 16]
  int32_t* start128 = nullptr;      // [rows][columns / 16]
  int32_t* half_start32 = nullptr;  // [rows][columns / 16]
};

// out[r][o] = weights[o] . x[r]
struct MatmulJob {
  TensorType type = TensorType::kF32;
  const uint8_t* weights = nullptr;  // any alignment
  uint64_t row_bytes = 0;
  uint32_t outputs = 0;
  uint32_t columns = 0;
  QuantizedRows quantized;        // for quantized weights
  const float* floats = nullptr;  // [rows][columns], for F32, F16 and BF16
  uint32_t rows = 0;
  float* out = nullptr;
  uint64_t out_stride = 0;  // elements between rows of out
};

// Queries that share a KV head and the blocks of one sequence.
struct MixUnit {
  const Mix* mix = nullptr;
  const MixState* state = nullptr;
  uint32_t first_row = 0;
  uint32_t rows = 0;  // all with the same RowState::blocks
  uint32_t kv_head = 0;
};

// Bytes of scratch that one worker needs.
uint64_t worker_scratch_bytes(uint32_t max_rows, uint32_t max_head_width);

struct Kernels {
  const char* name;
  void (*quantize)(const float* x, const QuantizedRows& to, uint32_t row);
  // Outputs [first, last), first a multiple of kTileOutputs; `scratch` is the worker's, 64-byte aligned.
  void (*matmul)(const MatmulJob& job, uint32_t first, uint32_t last, uint8_t* scratch);
  // out = x / sqrt(mean(x^2) + epsilon) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, uint32_t width, float epsilon, float* out);
  // out = activation(gate) * up; out may be gate.
  void (*gate)(Activation activation, const float* gate, const float* up, uint32_t count, float* out);
  void (*softmax)(float* values, uint32_t count);
  void (*rope)(RopeLayout layout, const float* pairs, uint32_t width, float* head);
  // One position of one KV head into its block.
  void (*store_state)(KvType type, const float* key, const float* value, uint32_t head_width, uint32_t slot,
                      std::byte* keys, std::byte* values);
  void (*mix)(const MixUnit& unit, uint8_t* scratch);
  // out = values / sum
  void (*divide)(const float* values, float sum, uint32_t count, float* out);
  // to = fma(scale, y, to)
  void (*add_scaled)(const float* y, float scale, uint32_t count, float* to);
  // Elements of F32, F16 or BF16 as f32, times scale.
  void (*widen)(TensorType type, const uint8_t* from, float scale, uint32_t count, float* to);
};

// Sets of kernels, in rising speed. Null when this build or this processor lacks them.
enum class Isa : uint8_t { kBest, kScalar, kAvx2, kAvx512 };
const Kernels* kernels_of(Isa isa);

}  // namespace caravan::cpu
