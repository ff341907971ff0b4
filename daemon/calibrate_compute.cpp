#include "daemon/calibrate_compute.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "base/budget.h"
#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/thread_pool.h"

namespace caravan {

namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ8_0,
                                 TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};
constexpr uint32_t kColumns = 2048;
constexpr uint32_t kManyRows = 256;     // of activations
constexpr uint32_t kManyOutputs = 512;  // of the matrix that meets them
constexpr uint64_t kSliceBytes = 64u << 20;
constexpr int kRepeats = 5;
constexpr double kEnough = 0.06;  // seconds after which a measurement is not repeated
// Every format reads this byte, over and over, as blocks of small normal numbers.
constexpr int kFill = 0x2c;

constexpr HeadShape kHeads{16, 4, 128};
constexpr uint32_t kOneRowPositions = 4096;
constexpr uint32_t kManyAttentionRows = 32;
constexpr uint32_t kManyPositions = 1024;
constexpr uint64_t kStateElements = uint64_t{2} * kHeads.kv_heads * kHeads.head_width;  // of a position

}  // namespace

struct ComputeProbe::State {
  State(const Clock& system_clock, cpu::Isa instruction_set, uint32_t all, uint64_t bytes)
      : clock(system_clock),
        isa(instruction_set),
        threads(all),
        budget("calibration", Bytes{UINT64_MAX}),
        weights(bytes / sizeof(uint64_t)),
        one(make_backend(1)),
        many(all > 1 ? make_backend(all) : nullptr),
        x(uint64_t{kManyRows} * kColumns, 0.01f),
        out(std::max<uint64_t>(uint64_t{kManyRows} * kManyOutputs,
                               kSliceBytes / row_bytes(TensorType::kQ4_0, kColumns) + 1)) {
    std::memset(weights.data(), kFill, weights.size() * sizeof(uint64_t));
  }

  std::unique_ptr<CpuBackend> make_backend(uint32_t count) {
    CpuBackendOptions options;
    options.threads = count;
    options.isa = isa;
    options.max_rows = kManyRows;
    options.max_width = kColumns;
    options.max_feed_forward = kColumns;
    options.max_head_width = kHeads.head_width;
    return std::make_unique<CpuBackend>(options, budget);
  }
  CpuBackend& all() { return many ? *many : *one; }

  // The shortest of a few runs, in seconds: what else the machine does only ever lengthens one.
  template <class Work>
  double seconds_of(Work&& work) {
    double best = std::numeric_limits<double>::infinity(), spent = 0;
    for (int i = 0; i < kRepeats && spent < kEnough; ++i) {
      const Time start = clock.now();
      work();
      const double elapsed = seconds(clock.now() - start);
      best = std::min(best, elapsed);
      spent += elapsed;
    }
    return std::max(1e-9, best);
  }

  uint64_t weight_bytes() const { return weights.size() * sizeof(uint64_t); }
  // Slices follow one another round the buffer, so that each is long out of the caches when it comes again.
  const std::byte* slice(uint64_t bytes) {
    if (next + bytes > weight_bytes()) next = 0;
    const std::byte* from = reinterpret_cast<const std::byte*>(weights.data()) + next;
    next += (bytes + 63) / 64 * 64;
    return from;
  }

  // All of it, once; the bytes.
  uint64_t read_all(cpu::ThreadPool& pool, uint32_t count) const {
    constexpr uint64_t kChunkWords = (1u << 20) / sizeof(uint64_t);
    const uint64_t chunks = weights.size() / kChunkWords;
    std::vector<uint64_t> sums(count);
    pool.parallel_for(chunks, 1, [&](uint64_t first, uint64_t last, uint32_t worker) {
      const uint64_t* from = weights.data() + first * kChunkWords;
      const uint64_t* const end = weights.data() + last * kChunkWords;
      uint64_t lanes[32] = {};
      for (; from != end; from += 32)
        for (int k = 0; k < 32; ++k) lanes[k] |= from[k];
      for (uint64_t lane : lanes) sums[worker] |= lane;
    });
    uint64_t seen = 0;
    for (uint64_t sum : sums) seen |= sum;
    CHECK(seen == weights[0]);  // else the loop would not have been run
    return chunks * kChunkWords * sizeof(uint64_t);
  }

  double read_memory(uint32_t count) {
    cpu::ThreadPool pool(count);
    uint64_t bytes = 0;
    const double elapsed = seconds_of([&] { bytes = read_all(pool, count); });
    return static_cast<double>(bytes) / elapsed;
  }

  // Bytes a second of `work`, which returns how many it did, over and over for so long.
  template <class Work>
  double rate_of(double lasting, Work&& work) const {
    const Time start = clock.now();
    uint64_t bytes = 0;
    double elapsed = 0;
    do {
      bytes += work();
      elapsed = seconds(clock.now() - start);
    } while (elapsed < lasting);
    return static_cast<double>(bytes) / elapsed;
  }

  template <class Hash>
  double long_hash_rate(double lasting, Hash&& hash) const {
    constexpr uint64_t kBytes = 1u << 20;  // what the store sums at once
    const auto memory = std::as_bytes(std::span(weights));
    uint64_t at = 0;
    return rate_of(lasting, [&] {
      hash(memory.subspan(at, kBytes));
      at = at + 2 * kBytes <= memory.size() ? at + kBytes : 0;
      return kBytes;
    });
  }

  // One row against as many outputs as a slice holds; the bytes.
  uint64_t multiply_row(CpuBackend& backend, TensorType type) {
    const uint64_t row = row_bytes(type, kColumns);
    const uint64_t bytes = std::min(kSliceBytes, weight_bytes());
    const auto outputs = static_cast<uint32_t>(std::min<uint64_t>(bytes / row, out.size()));
    const Projection projection{{type, outputs, kColumns, slice(outputs * row)}, {}, out.data()};
    backend.norm_project(x.data(), 1, {}, {&projection, 1});
    return outputs * row;
  }

  double row_bytes_rate(CpuBackend& backend, TensorType type) {
    uint64_t bytes = 0;
    const double elapsed = seconds_of([&] { bytes = multiply_row(backend, type); });
    return static_cast<double>(bytes) / elapsed;
  }

  double many_rate(CpuBackend& backend, TensorType type) {
    const Projection projection{
        {type, kManyOutputs, kColumns, slice(kManyOutputs * row_bytes(type, kColumns))}, {}, out.data()};
    const double elapsed = seconds_of([&] {
      backend.norm_project(x.data(), kManyRows, {}, {&projection, 1});
    });
    return 2.0 * kManyRows * kManyOutputs * kColumns / elapsed;
  }

  KernelRates kernel(TensorType type) {
    KernelRates rates;
    rates.row_bytes = {row_bytes_rate(*one, type), row_bytes_rate(all(), type)};
    rates.many_operations = {many_rate(*one, type), many_rate(all(), type)};
    return rates;
  }

  // Seconds for `rows` rows that each look at `positions` positions of one sequence.
  double attend(CpuBackend& backend, KvType type, uint32_t rows, uint32_t positions) {
    const uint64_t block_bytes = kStateElements / 2 * limits::kKvBlockPositions *
                                 (type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t));
    std::vector<KvBlock> blocks(positions / limits::kKvBlockPositions);
    for (KvBlock& block : blocks) {
      block.keys = const_cast<std::byte*>(slice(block_bytes));
      block.values = const_cast<std::byte*>(slice(block_bytes));
    }
    const std::vector<RowState> states(rows, {positions - 1, blocks.data()});
    const uint64_t heads = uint64_t{rows} * kHeads.heads;
    std::vector<float> queries(heads * kHeads.head_width, 0.01f), mixed(queries.size()), sums(2 * heads);
    const MixState state{sums.data(), sums.data() + heads, mixed.data()};
    Mix mix;
    mix.shape = kHeads;
    mix.kv_type = type;
    mix.queries = queries.data();
    mix.rows = states;
    mix.last_piece = positions / limits::kMixPiecePositions;
    return seconds_of([&] {
      backend.mix_begin(kHeads, rows, state);
      backend.mix(mix, state);
      backend.mix_end(kHeads, rows, state, queries.data());
    });
  }

  KernelRates attention(KvType type) {
    const double bytes = static_cast<double>(kStateElements) * kOneRowPositions *
                         (type == KvType::kF32 ? sizeof(float) : sizeof(uint16_t));
    const double operations = 4.0 * kHeads.heads * kHeads.head_width * kManyPositions * kManyAttentionRows;
    KernelRates rates;
    rates.row_bytes = {bytes / attend(*one, type, 1, kOneRowPositions),
                       bytes / attend(all(), type, 1, kOneRowPositions)};
    rates.many_operations = {operations / attend(*one, type, kManyAttentionRows, kManyPositions),
                             operations / attend(all(), type, kManyAttentionRows, kManyPositions)};
    return rates;
  }

  double call() {
    constexpr int kCalls = 256;
    constexpr uint32_t kTiny = 256;
    const Projection projection{
        {TensorType::kQ8_0, kTiny, kTiny, slice(kTiny * row_bytes(TensorType::kQ8_0, kTiny))},
        {},
        out.data()};
    return seconds_of([&] {
             for (int i = 0; i < kCalls; ++i) all().norm_project(x.data(), 1, {}, {&projection, 1});
           }) /
           kCalls;
  }

  template <class Hash>
  double hash_rate(Hash&& hash) {
    constexpr uint64_t kBytes = 8u << 20;
    const std::span<const std::byte> bytes{slice(kBytes), kBytes};
    return static_cast<double>(kBytes) / seconds_of([&] { hash(bytes); });
  }

  const Clock& clock;
  const cpu::Isa isa;
  const uint32_t threads;
  Budget budget;
  std::vector<uint64_t> weights;
  uint64_t next = 0;  // of the weights' bytes
  std::unique_ptr<CpuBackend> one, many;
  std::vector<float> x, out;
};

namespace {

cpu::Isa parse_isa(const std::string& name) {
  const std::optional<cpu::Isa> isa = isa_from_name(name);
  if (!isa) fail(ErrorCode::kInvalidArgument, "\"{}\" is no instruction set", name);
  return *isa;
}

}  // namespace

ComputeProbe::ComputeProbe(const Clock& clock, std::string isa, uint32_t threads, uint64_t most_bytes) {
  constexpr uint64_t kLeast = 16u << 20, kMost = 384u << 20;
  state_ = std::make_unique<State>(clock, parse_isa(isa), std::max(1u, threads),
                                   std::clamp(most_bytes, kLeast, kMost));
}

ComputeProbe::~ComputeProbe() = default;

const char* ComputeProbe::isa_name() const {
  return state_->one->isa_name();
}

void ComputeProbe::measure(Measurements& measurements,
                           const std::function<void(const std::string& what)>& next) {
  State& state = *state_;
  measurements.threads = state.threads;
  next("memory");
  measurements.memory = {state.read_memory(1), state.read_memory(state.threads)};
  for (TensorType type : kTypes) {
    next("products with " + std::string(name(type)));
    measurements.kernels[type] = state.kernel(type);
  }
  next("attention");
  measurements.attention_f32 = state.attention(KvType::kF32);
  measurements.attention_f16 = state.attention(KvType::kF16);
  measurements.call_seconds = state.call();
  next("hashes");
  measurements.sha256 = state.hash_rate([](std::span<const std::byte> bytes) { (void)sha256(bytes); });
  volatile uint64_t sink = 0;
  measurements.xxh3 = state.hash_rate([&](std::span<const std::byte> bytes) { sink = xxh3(bytes); });
  (void)sink;
}

double ComputeProbe::row_rate(double lasting) {
  State& state = *state_;
  return state.rate_of(lasting, [&] { return state.multiply_row(state.all(), TensorType::kQ8_0); });
}

double ComputeProbe::memory_rate(double lasting) {
  cpu::ThreadPool pool(state_->threads);
  return state_->rate_of(lasting, [&] { return state_->read_all(pool, state_->threads); });
}

double ComputeProbe::checksum_rate(double lasting) const {
  volatile uint64_t sink = 0;
  return state_->long_hash_rate(lasting,
                                [&](std::span<const std::byte> bytes) { sink = sink ^ xxh3(bytes); });
}

double ComputeProbe::sha256_rate(double lasting) const {
  return state_->long_hash_rate(lasting, [](std::span<const std::byte> bytes) { (void)sha256(bytes); });
}

}  // namespace caravan
