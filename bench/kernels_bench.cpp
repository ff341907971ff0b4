// Prints what the processor's kernels reach beside what its memory gives: GB/s of weights for one row, GOP/s
// for many, per format and number of threads. Best of several rounds, since other work may share the machine.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <string_view>
#include <vector>

#include "base/budget.h"
#include "base/limits.h"
#include "base/random.h"
#include "compute/cpu/cpu_backend.h"

namespace caravan {
namespace {

constexpr uint32_t kWidth = 2048, kInner = 5632, kHeads = 32, kKvHeads = 4;  // of the 1.1B shape
constexpr uint64_t kWeightBytes = 256u << 20;                                // more than the caches hold
constexpr uint32_t kManyRows = 512;

// With one thread the time of the process, which other work on the machine adds little to; else time itself.
double seconds(uint32_t threads) {
  timespec now{};
  clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Work>
double best_of(uint32_t threads, int rounds, Work work) {
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const double start = seconds(threads);
    work();
    best = std::min(best, seconds(threads) - start);
  }
  return best;
}

CpuBackendOptions options(uint32_t threads, cpu::Isa isa, Activations activations) {
  return {.threads = threads,
          .isa = isa,
          .activations = activations,
          .max_rows = kManyRows,
          .max_width = kWidth,
          .max_feed_forward = kInner,
          .max_head_width = kWidth / kHeads};
}

double read_bandwidth(uint32_t threads, const std::vector<std::byte>& bytes) {
  cpu::ThreadPool pool(threads);
  std::vector<uint64_t> sums(threads);
  const double best = best_of(threads, 7, [&] {
    constexpr uint64_t kChunk = 1u << 20;
    pool.parallel_for(bytes.size() / kChunk, 1, [&](uint64_t first, uint64_t, uint32_t worker) {
      const std::byte* from = bytes.data() + first * kChunk;
      uint64_t lane[32] = {};
      for (uint64_t at = 0; at < kChunk; at += sizeof(lane)) {
        uint64_t words[32];
        std::memcpy(words, from + at, sizeof(words));
        for (int i = 0; i < 32; ++i) lane[i] |= words[i];
      }
      sums[worker] += std::accumulate(lane, lane + 32, uint64_t{0});
    });
  });
  if (std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == 1) fmt::print("\n");
  return static_cast<double>(bytes.size()) / best / 1e9;
}

struct Bench {
  uint32_t threads;
  cpu::Isa isa;
  Activations activations;
  Budget budget{"ram", Bytes{4ull << 30}};

  // Matrices of one format that fill kWeightBytes, from few random blocks.
  std::vector<std::byte> weights(TensorType type) const {
    SeededRandom random(1);
    std::vector<float> values(kWidth * 16);
    for (float& value : values) value = static_cast<float>(random.unit() - 0.5);
    std::vector<std::byte> some(row_bytes(type, values.size())), all(kWeightBytes);
    quantize(type, values, some);
    for (uint64_t at = 0; at < all.size(); at += some.size())
      std::memcpy(all.data() + at, some.data(), std::min(some.size(), all.size() - at));
    return all;
  }

  void matmul(TensorType type, double bandwidth) {
    const std::vector<std::byte> all = weights(type);
    const uint64_t bytes = kInner * row_bytes(type, kWidth);
    const uint64_t matrices = all.size() / bytes;
    CpuBackend backend(options(threads, isa, activations), budget);
    std::vector<float> x(uint64_t{kManyRows} * kWidth), out(uint64_t{kManyRows} * kInner);
    SeededRandom random(2);
    for (float& value : x) value = static_cast<float>(random.unit() - 0.5);
    const auto multiply = [&](uint64_t matrix, uint32_t rows) {
      const Projection projection{{type, kInner, kWidth, all.data() + matrix * bytes}, {}, out.data()};
      backend.norm_project(x.data(), rows, {}, {&projection, 1});
    };
    const double one = best_of(threads, 7, [&] {
      for (uint64_t m = 0; m < matrices; ++m) multiply(m, 1);
    });
    const double many = best_of(threads, 3, [&] { multiply(0, kManyRows); });
    const double eight = best_of(threads, 3, [&] {
      for (uint64_t m = 0; m < matrices; ++m) multiply(m, 8);
    });
    const double rate = static_cast<double>(matrices * bytes) / one / 1e9;
    fmt::print("{:5} {:7} {:8.1f} {:8.2f} {:10.0f} {:10.0f} {:12.1f}\n", name(type), threads, rate,
               rate / bandwidth, 2.0 * kManyRows * kInner * kWidth / many / 1e9,
               2.0 * 8 * kInner * kWidth * static_cast<double>(matrices) / eight / 1e9,
               kManyRows * one / static_cast<double>(matrices) / many);
  }

  void attention(KvType type, uint32_t context) {
    const HeadShape shape{kHeads, kKvHeads, kWidth / kHeads};
    const uint64_t bytes =
        uint64_t{kKvHeads} * shape.head_width * limits::kKvBlockPositions * (type == KvType::kF32 ? 4 : 2);
    std::vector<std::byte> memory(bytes * 2 * (context / limits::kKvBlockPositions));
    std::vector<KvBlock> blocks;
    for (uint64_t at = 0; at < memory.size(); at += 2 * bytes)
      blocks.push_back({memory.data() + at, memory.data() + at + bytes});
    CpuBackend backend(options(threads, isa, activations), budget);
    std::vector<float> queries(uint64_t{kManyRows} * kWidth, 0.01f), maximum(kManyRows * kHeads),
        sum(maximum.size());
    std::vector<float> values(queries.size());
    const MixState state{maximum.data(), sum.data(), values.data()};
    for (uint32_t count : {1u, kManyRows}) {
      std::vector<RowState> rows;
      for (uint32_t r = 0; r < count; ++r) rows.push_back({context - count + r, blocks.data()});
      const double time = best_of(threads, 5, [&] {
        backend.mix_begin(shape, count, state);
        backend.mix({shape, type, 0.125f, 0, queries.data(), rows, 0, context / limits::kMixPiecePositions},
                    state);
      });
      const double operations = 4.0 * count * kWidth * (context - (count - 1) / 2.0);
      fmt::print("attention {} of {} rows at {}, {} threads: {:.3f} ms, {:.0f} GOP/s, {:.1f} GB/s\n",
                 type == KvType::kF32 ? "f32" : "f16", count, context, threads, time * 1e3,
                 operations / time / 1e9, static_cast<double>(memory.size()) / time / 1e9);
    }
  }
};

}  // namespace
}  // namespace caravan

// caravan-kernels [auto|scalar|avx2|avx512] [int8|f32] [FORMAT]
int main(int argc, char** argv) {
  using namespace caravan;
  const cpu::Isa isa = isa_from_name(argc > 1 ? argv[1] : "auto").value_or(cpu::Isa::kBest);
  const bool exact = argc > 2 && std::string_view(argv[2]) == "f32";
  const std::vector<std::byte> bytes(kWeightBytes, std::byte{1});
  fmt::print("{} kernels, {} activations\n", cpu::kernels_of(isa) ? cpu::kernels_of(isa)->name : "no such",
             exact ? "f32" : "int8");
  if (!cpu::kernels_of(isa)) return 2;
  for (uint32_t threads : {1u, 2u}) {
    const double bandwidth = read_bandwidth(threads, bytes);
    fmt::print("memory, {} threads: {:.1f} GB/s read\n", threads, bandwidth);
    fmt::print("type  threads 1: GB/s  of read 512: GOP/s   8: GOP/s  prefill/decode\n");
    Bench bench{threads, isa, exact ? Activations::kF32 : Activations::kInt8};
    for (TensorType type : {TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1,
                            TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K,
                            TensorType::kF16, TensorType::kBF16, TensorType::kF32})
      if (argc <= 3 || name(type) == argv[3]) bench.matmul(type, bandwidth);
    if (argc > 3) continue;
    for (KvType type : {KvType::kF32, KvType::kF16}) bench.attention(type, 2048);
  }
}
