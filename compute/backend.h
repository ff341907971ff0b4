#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compute/format.h"

namespace caravan {

// Operands. All memory belongs to the backend's device; weights are leased and stay in their stored format.
struct Matrix {  // rows outputs of `columns` inputs, row-major blocks; may be unaligned. A vector is a matrix
                 // of one row
  TensorType type = TensorType::kF32;
  uint32_t rows = 0;
  uint32_t columns = 0;
  const std::byte* data = nullptr;
  explicit operator bool() const { return data != nullptr; }
};

enum class Activation : uint8_t { kSilu, kGelu /* tanh form */, kGeluErf };
enum class RopeLayout : uint8_t {
  kNone,
  kInterleaved /* pairs (2i, 2i+1) */,
  kHalves /* pairs (i, i + width/2) */
};
enum class KvType : uint8_t { kF32, kF16 };

// RMS norm: x / sqrt(mean(x^2) + epsilon) * weight. Without weight data: no norm, x passes as it is.
struct Norm {
  Matrix weight;
  float epsilon = 0;
};

struct Projection {
  Matrix weight;         // [out, in]
  Matrix bias;           // [1, out] or none
  float* out = nullptr;  // [rows, out]
};

// What a sublayer does with its result y: residual += scale * norm(y).
struct ResidualAdd {
  float* residual = nullptr;  // [rows, width]
  Norm post_norm;             // none for most families
  float scale = 1;
};

// One KV block of one layer: kKvBlockPositions positions p.
// keys [kv_heads][head_width][p], so that one query runs along 32 positions at once; values
// [kv_heads][p][head_width].
struct KvBlock {
  std::byte* keys = nullptr;
  std::byte* values = nullptr;
};

// A row's place: its position, and the blocks of its sequence, block b holding positions 32 b to 32 b + 31.
struct RowState {
  uint32_t position = 0;
  const KvBlock* blocks = nullptr;
};

struct HeadShape {
  uint32_t heads = 0;       // of queries
  uint32_t kv_heads = 0;    // divides heads
  uint32_t head_width = 0;  // of queries, keys and values
};

// cos and sin of every position and frequency, computed by backend-independent code (compute/rope.h):
// [position][width / 2] pairs (cos, sin), for the first `width` elements of a head.
struct RopeTable {
  const float* pairs = nullptr;
  uint32_t positions = 0;
  uint32_t width = 0;
};

struct AttentionPrepare {
  HeadShape shape;
  Norm query_norm,
      key_norm;  // weight columns == head_width: per head; == heads * head_width: over the whole projection
  RopeLayout rope = RopeLayout::kNone;
  RopeTable table;
  KvType kv_type = KvType::kF32;
  float* queries = nullptr;       // [rows, heads, head_width], changed in place
  float* keys = nullptr;          // [rows, kv_heads, head_width], changed in place
  const float* values = nullptr;  // [rows, kv_heads, head_width]
  std::span<const RowState> rows;
};

// Softmax carried between runs of blocks, for every (row, head): running maximum, sum and weighted values.
struct MixState {
  float* maximum = nullptr;  // [rows, heads]
  float* sum = nullptr;      // [rows, heads]
  float* values = nullptr;   // [rows, heads, head_width]
};

struct Mix {
  HeadShape shape;
  KvType kv_type = KvType::kF32;
  float scale = 1;      // of the scores
  uint32_t window = 0;  // 0: full; w: positions p - w + 1 to p
  const float* queries = nullptr;
  std::span<const RowState> rows;
  // Pieces of kMixPiecePositions, aligned to position 0: [first_piece, last_piece). Calls go up without gaps
  // from mix_begin; pieces outside a row's reach leave it unchanged. RowState.blocks need be valid for those
  // pieces only.
  uint32_t first_piece = 0;
  uint32_t last_piece = 0;
};

struct FeedForward {
  Norm norm;
  Matrix gate, up;  // [ff, width]
  Matrix down;      // [width, ff]
  Activation activation = Activation::kSilu;
  Matrix gate_bias = {}, up_bias = {};  // [1, ff] or none
  Matrix down_bias = {};                // [1, width] or none
};

struct Route {
  Norm norm;
  Matrix router;  // [experts, width]
  Matrix bias;    // none
  uint32_t top_k = 0;
  bool normalise = true;  // the chosen weights sum to 1
};

struct Output {
  Norm norm;
  Matrix weight;  // [vocabulary, width]
  float scale = 1;
};

// The operations of a stage. A small set of coarse ones, not a tensor library; each gives, for every row, the
// same bits whatever other rows are there (law 3). Called by the device's compute thread alone. Shapes are
// checked by CHECK: they were proved when the model was bound.
class Backend {
 public:
  virtual ~Backend() = default;

  // out = scale * rows, of the embedding table
  virtual void embed(const Matrix& rows, float scale, float* out) = 0;
  // Every projection of norm(x); x [rows, width].
  virtual void norm_project(const float* x, uint32_t rows, const Norm& norm,
                            std::span<const Projection> projections) = 0;
  // Per-head norms, rope, and the write of keys and values into the rows' blocks.
  virtual void prepare_attention(const AttentionPrepare& prepare) = 0;
  virtual void mix_begin(const HeadShape& shape, uint32_t rows, const MixState& state) = 0;
  virtual void mix(const Mix& mix, const MixState& state) = 0;
  // out [rows, heads * head_width] = values / sum
  virtual void mix_end(const HeadShape& shape, uint32_t rows, const MixState& state, float* out) = 0;
  // residual += scale * post_norm(weight x + bias); x [rows, weight.columns]
  virtual void project_add(const float* x, uint32_t rows, const Matrix& weight, const Matrix& bias,
                           const ResidualAdd& add) = 0;
  // residual += scale * post_norm(down (activation(gate n) * (up n))), n = norm(x); biases added where given
  virtual void feed_forward(const float* x, uint32_t rows, const FeedForward& feed_forward,
                            const ResidualAdd& add) = 0;
  // normed [rows, width] = norm(x); experts and weights [rows, top_k], by falling probability (softmax over
  // all experts), ties to the lower expert. The choice is visible when the call returns.
  virtual void route(const float* x, uint32_t rows, const Route& route, float* normed, uint32_t* experts,
                     float* weights) = 0;
  // out[i] = expert(normed[row_index[i]]), [row_index.size(), width]; feed_forward.norm is none.
  virtual void run_expert(const float* normed, std::span<const uint32_t> row_index,
                          const FeedForward& feed_forward, float* out) = 0;
  // residual[r] += scale * post_norm(sum over k in order of weights[r][k] * parts[slots[r][k]]); parts [any,
  // width]
  virtual void combine(const float* parts, std::span<const uint32_t> slots, const float* weights,
                       uint32_t rows, uint32_t top_k, uint32_t width, const ResidualAdd& add) = 0;
  // logits [rows, vocabulary] = scale * weight norm(x)
  virtual void output(const float* x, uint32_t rows, const Output& output, float* logits) = 0;
  // out [rows, width] = norm(x)
  virtual void normalise(const float* x, uint32_t rows, const Norm& norm, uint32_t width, float* out) = 0;
};

}  // namespace caravan
