// Attention over KV blocks: against a naive softmax in double, and the same bits however it is computed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/budget.h"
#include "base/limits.h"
#include "base/random.h"
#include "compute/cpu/cpu_backend.h"

namespace caravan {
namespace {

constexpr uint32_t kPositions = limits::kKvBlockPositions;
constexpr cpu::Isa kIsas[] = {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512};

struct Run {
  cpu::Isa isa = cpu::Isa::kScalar;
  uint32_t threads = 1;
  uint32_t rows = 1;    // a call
  uint32_t pieces = 1;  // a call
};

float uniform(Random& random) {
  return static_cast<float>(random.unit() * 4 - 2);
}

std::vector<float> uniform_values(uint64_t count, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

// The blocks of one sequence, full of NaN until written.
struct Sequence {
  std::vector<std::vector<std::byte>> memory;
  std::vector<KvBlock> blocks;

  Sequence(const HeadShape& shape, KvType type, uint32_t positions) {
    const uint64_t bytes =
        uint64_t{shape.kv_heads} * shape.head_width * kPositions * (type == KvType::kF32 ? 4 : 2);
    for (uint32_t i = 0; i < (positions + kPositions - 1) / kPositions; ++i) {
      for (int side = 0; side < 2; ++side) memory.emplace_back(bytes, std::byte{0xff});
      blocks.push_back({memory[2 * i].data(), memory[2 * i + 1].data()});
    }
  }
};

struct Case {
  HeadShape shape;
  KvType type = KvType::kF32;
  uint32_t window = 0;
  uint32_t positions = 0;      // of the sequence
  std::vector<float> queries;  // [positions][heads][head_width]
  std::vector<float> keys;     // [positions][kv_heads][head_width]
  std::vector<float> values;   // as keys
};

Case random_case(HeadShape shape, KvType type, uint32_t window, uint32_t positions, uint64_t seed) {
  SeededRandom random(seed);
  const uint64_t kv = uint64_t{positions} * shape.kv_heads * shape.head_width;
  return {shape,
          type,
          window,
          positions,
          uniform_values(uint64_t{positions} * shape.heads * shape.head_width, random),
          uniform_values(kv, random),
          uniform_values(kv, random)};
}

// Writes and mixes the rows a few at a time, as a prompt in chunks does.
std::vector<float> attend(const Case& c, const Run& run) {
  Budget budget("ram", Bytes{1u << 28});
  CpuBackend backend(
      {.threads = run.threads, .isa = run.isa, .max_rows = run.rows, .max_head_width = c.shape.head_width},
      budget);
  Sequence sequence(c.shape, c.type, c.positions);
  std::vector<float> queries = c.queries, keys = c.keys, out(c.queries.size(), std::nanf(""));
  const uint32_t width = c.shape.heads * c.shape.head_width, kv_width = c.shape.kv_heads * c.shape.head_width;
  std::vector<float> maximum(run.rows * c.shape.heads), sum(maximum.size()),
      mixed(uint64_t{run.rows} * width);
  const MixState state{maximum.data(), sum.data(), mixed.data()};
  for (uint32_t start = 0; start < c.positions; start += run.rows) {
    const uint32_t count = std::min(run.rows, c.positions - start);
    std::vector<RowState> rows;
    for (uint32_t r = 0; r < count; ++r) rows.push_back({start + r, sequence.blocks.data()});
    float* query = queries.data() + uint64_t{start} * width;
    AttentionPrepare prepare;
    prepare.shape = c.shape;
    prepare.kv_type = c.type;
    prepare.queries = query;
    prepare.keys = keys.data() + uint64_t{start} * kv_width;
    prepare.values = c.values.data() + uint64_t{start} * kv_width;
    prepare.rows = rows;
    backend.prepare_attention(prepare);
    const uint32_t pieces = (start + count - 1) / limits::kMixPiecePositions + 1;
    backend.mix_begin(c.shape, count, state);
    for (uint32_t piece = 0; piece < pieces; piece += run.pieces)
      backend.mix(
          {c.shape, c.type, 0.25f, c.window, query, rows, piece, std::min(pieces, piece + run.pieces)},
          state);
    backend.mix_end(c.shape, count, state, out.data() + uint64_t{start} * width);
  }
  return out;
}

float stored(KvType type, float value) {
  return type == KvType::kF32 ? value : half_to_float(float_to_half(value));
}

void expect_softmax(const Case& c, uint32_t position, const std::vector<float>& out) {
  const uint32_t hw = c.shape.head_width, group = c.shape.heads / c.shape.kv_heads;
  const uint32_t first = c.window && position >= c.window ? position - c.window + 1 : 0;
  for (uint32_t head = 0; head < c.shape.heads; ++head) {
    const auto at = [&](uint32_t p) { return (uint64_t{p} * c.shape.kv_heads + head / group) * hw; };
    const uint64_t query = (uint64_t{position} * c.shape.heads + head) * hw;
    std::vector<double> scores, exact(hw, 0.0);
    double largest = -1e300, sum = 0;
    for (uint32_t p = first; p <= position; ++p) {
      double score = 0;
      for (uint32_t d = 0; d < hw; ++d)
        score += double{c.queries[query + d]} * stored(c.type, c.keys[at(p) + d]);
      scores.push_back(score * 0.25);
      largest = std::max(largest, scores.back());
    }
    for (uint32_t p = first; p <= position; ++p) {
      const double weight = std::exp(scores[p - first] - largest);
      sum += weight;
      for (uint32_t d = 0; d < hw; ++d) exact[d] += weight * stored(c.type, c.values[at(p) + d]);
    }
    for (uint32_t d = 0; d < hw; ++d)
      ASSERT_NEAR(out[query + d], exact[d] / sum, 1e-4)
          << "position " << position << " head " << head << " " << d;
  }
}

void check(const Case& c) {
  SCOPED_TRACE(std::to_string(c.shape.heads) + "/" + std::to_string(c.shape.kv_heads) + " heads of " +
               std::to_string(c.shape.head_width) + ", window " + std::to_string(c.window));
  const std::vector<float> law = attend(c, {.rows = 1});
  for (uint32_t position = 0; position < c.positions; position += 1 + position / 4)
    expect_softmax(c, position, law);
  expect_softmax(c, c.positions - 1, law);
  for (cpu::Isa isa : kIsas) {
    if (!cpu::kernels_of(isa)) continue;
    for (const Run& run : {Run{isa, 1, 7, 1}, Run{isa, 2, 64, 2}, Run{isa, 2, 1, 3}}) {
      if (isa == cpu::Isa::kScalar && run.rows == 1) continue;  // the law itself
      const std::vector<float> out = attend(c, run);
      ASSERT_EQ(std::memcmp(out.data(), law.data(), out.size() * sizeof(float)), 0)
          << cpu::kernels_of(isa)->name << " with " << run.rows << " rows a call";
    }
  }
}

TEST(CpuAttention, IsASoftmaxWithTheSameBitsForEveryBatchPieceAndInstructionSet) {
  check(random_case({4, 2, 16}, KvType::kF32, 0, 530, 1));
  check(random_case({4, 4, 8}, KvType::kF16, 0, 300, 2));
  check(random_case({3, 1, 40}, KvType::kF16, 0, 270, 3));
  check(random_case({3, 1, 100}, KvType::kF32, 0, 37, 4));
  check(random_case({12, 1, 80}, KvType::kF32, 0, 70, 5));
}

TEST(CpuAttention, AWindowReachesJustSoFar) {
  for (uint32_t window : {1u, 2u, 31u, 256u, 300u}) {
    check(random_case({2, 1, 16}, KvType::kF32, window, 330, window));
    if (HasFailure()) return;
  }
}

// Rows of several sequences at once, neighbours in a batch but strangers in state.
TEST(CpuAttention, SequencesInOneCallDoNotMeet) {
  const HeadShape shape{4, 2, 32};
  std::vector<Case> cases;
  for (uint32_t i = 0; i < 3; ++i) cases.push_back(random_case(shape, KvType::kF32, 0, 3 + 150 * i, 20 + i));
  for (cpu::Isa isa : kIsas) {
    if (!cpu::kernels_of(isa)) continue;
    Budget budget("ram", Bytes{1u << 28});
    CpuBackend backend({.threads = 2, .isa = isa, .max_rows = 6, .max_head_width = 32}, budget);
    std::vector<Sequence> sequences;
    std::vector<RowState> rows;
    std::vector<float> queries, expected;
    sequences.reserve(cases.size());
    for (const Case& c : cases) {
      sequences.emplace_back(shape, c.type, c.positions);
      const std::vector<float> out = attend(c, {.isa = isa, .rows = 5});
      for (uint32_t p = 0; p < c.positions; ++p) {
        std::vector<float> query(128), key(c.keys.begin() + p * 64, c.keys.begin() + p * 64 + 64);
        const RowState row{p, sequences.back().blocks.data()};
        AttentionPrepare prepare;
        prepare.shape = shape;
        prepare.queries = query.data();
        prepare.keys = key.data();
        prepare.values = c.values.data() + p * 64;
        prepare.rows = {&row, 1};
        backend.prepare_attention(prepare);
      }
      for (uint32_t p : {c.positions - 1, c.positions - 2}) {
        rows.push_back({p, sequences.back().blocks.data()});
        queries.insert(queries.end(), c.queries.begin() + p * 128, c.queries.begin() + p * 128 + 128);
        expected.insert(expected.end(), out.begin() + p * 128, out.begin() + p * 128 + 128);
      }
    }
    std::vector<float> maximum(24), sum(24), values(6 * 128), out(6 * 128);
    const MixState state{maximum.data(), sum.data(), values.data()};
    backend.mix_begin(shape, 6, state);
    backend.mix({shape, KvType::kF32, 0.25f, 0, queries.data(), rows, 0, 2}, state);
    backend.mix_end(shape, 6, state, out.data());
    EXPECT_EQ(out, expected);
  }
}

TEST(CpuAttention, PreparationTurnsAndNormalisesHeads) {
  const HeadShape shape{2, 1, 8};
  SeededRandom random(9);
  const std::vector<float> weight = uniform_values(8, random), pairs = uniform_values(4 * 4, random);
  const std::vector<float> queries = uniform_values(16, random), keys = uniform_values(8, random);
  for (RopeLayout layout : {RopeLayout::kInterleaved, RopeLayout::kHalves}) {
    std::vector<float> q = queries, k = keys;
    Budget budget("ram", Bytes{1u << 24});
    CpuBackend backend({.max_rows = 1, .max_width = 16, .max_head_width = 8}, budget);
    Sequence sequence(shape, KvType::kF32, 4);
    const RowState row{3, sequence.blocks.data()};
    AttentionPrepare prepare;
    prepare.shape = shape;
    prepare.query_norm = prepare.key_norm = {
        {TensorType::kF32, 1, 8, reinterpret_cast<const std::byte*>(weight.data())}, 1e-5f};
    prepare.rope = layout;
    prepare.table = {pairs.data(), 4, 4};  // turns the first 4 elements
    prepare.queries = q.data();
    prepare.keys = k.data();
    prepare.values = keys.data();
    prepare.rows = {&row, 1};
    backend.prepare_attention(prepare);
    const auto expected = [&](const float* head) {
      double squares = 0;
      for (int i = 0; i < 8; ++i) squares += double{head[i]} * head[i];
      std::vector<double> y(8);
      for (int i = 0; i < 8; ++i) y[i] = head[i] / std::sqrt(squares / 8 + 1e-5) * weight[i];
      for (int i = 0; i < 2; ++i) {
        double& a = layout == RopeLayout::kHalves ? y[i] : y[2 * i];
        double& b = layout == RopeLayout::kHalves ? y[i + 2] : y[2 * i + 1];
        const double x = a, cosine = pairs[3 * 4 + 2 * i], sine = pairs[3 * 4 + 2 * i + 1];
        a = x * cosine - b * sine;
        b = x * sine + b * cosine;
      }
      return y;
    };
    const float* block_keys = reinterpret_cast<const float*>(sequence.blocks[0].keys);
    const float* block_values = reinterpret_cast<const float*>(sequence.blocks[0].values);
    for (int i = 0; i < 8; ++i) {
      EXPECT_NEAR(q[i], expected(queries.data())[i], 1e-5);
      EXPECT_NEAR(q[8 + i], expected(queries.data() + 8)[i], 1e-5);
      EXPECT_NEAR(k[i], expected(keys.data())[i], 1e-5);
      EXPECT_EQ(block_keys[i * kPositions + 3], k[i]);
      EXPECT_EQ(block_values[3 * 8 + i], keys[i]);
      EXPECT_TRUE(std::isnan(block_keys[i * kPositions + 2])) << "other positions are left alone";
    }
  }
}

}  // namespace
}  // namespace caravan
