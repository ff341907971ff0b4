#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/budget.h"
#include "compute/backend.h"
#include "compute/counters.h"
#include "compute/cpu/cpu_device.h"
#include "compute/cpu/kernels.h"
#include "compute/cpu/thread_pool.h"

namespace caravan {

// How activations meet quantized weights: as int8, or as f32 with the weights dequantized (slower, exact to
// f32 rounding). The two are different numerics classes.
enum class Activations : uint8_t { kInt8, kF32 };

struct CpuBackendOptions {
  uint32_t threads = 1;
  cpu::Isa isa = cpu::Isa::kBest;
  Activations activations = Activations::kInt8;
  // The largest shapes that calls will have; scratch is allocated for them once.
  uint32_t max_rows = 1;
  uint32_t max_width = 0;         // of x and of what is added to the residual; heads * head_width too
  uint32_t max_feed_forward = 0;  // of one feed-forward or expert
  uint32_t max_head_width = 0;
  uint32_t max_experts = 0;
};

// "auto", "scalar", "avx2" or "avx512"; nothing for other names. Whether it is there: cpu::kernels_of.
std::optional<cpu::Isa> isa_from_name(std::string_view name);

// Backend on the processor: the same bits for every instruction set, number of threads and batch (the orders
// of summation stand in compute/cpu/kernels.h). Called by one thread; it owns a pool of options.threads - 1
// more.
class CpuBackend final : public Backend {
 public:
  // Throws kUnsupported for an instruction set that is not there, kOutOfMemory when scratch does not fit.
  CpuBackend(const CpuBackendOptions& options, Budget& budget);

  // What a back end of these options reserves.
  static Bytes scratch_bytes(const CpuBackendOptions& options);
  const char* isa_name() const { return kernels_.name; }
  const ComputeCounters& counters() const { return counters_; }

  void embed(const Matrix& rows, float scale, float* out) override;
  void norm_project(const float* x, uint32_t rows, const Norm& norm,
                    std::span<const Projection> projections) override;
  void prepare_attention(const AttentionPrepare& prepare) override;
  void mix_begin(const HeadShape& shape, uint32_t rows, const MixState& state) override;
  void mix(const Mix& mix, const MixState& state) override;
  void mix_end(const HeadShape& shape, uint32_t rows, const MixState& state, float* out) override;
  void project_add(const float* x, uint32_t rows, const Matrix& weight, const Matrix& bias,
                   const ResidualAdd& add) override;
  void feed_forward(const float* x, uint32_t rows, const FeedForward& feed_forward,
                    const ResidualAdd& add) override;
  void route(const float* x, uint32_t rows, const Route& route, float* normed, uint32_t* experts,
             float* weights) override;
  void run_expert(const float* normed, std::span<const uint32_t> row_index, const FeedForward& feed_forward,
                  float* out) override;
  void combine(const float* parts, std::span<const uint32_t> slots, const float* weights, uint32_t rows,
               uint32_t top_k, uint32_t width, const ResidualAdd& add) override;
  void output(const float* x, uint32_t rows, const Output& output, float* logits) override;
  void normalise(const float* x, uint32_t rows, const Norm& norm, uint32_t width, float* out) override;

 private:
  struct Product {
    Matrix weight;
    float* out;  // [rows][weight.rows]
  };

  template <class T>
  T* take(uint64_t count);
  uint8_t* worker_scratch(uint32_t worker);
  float* exact_scratch(uint32_t worker);

  // Norm weights as f32 in `to`; null for no norm.
  const float* norm_weight(const Norm& norm, uint32_t width, float* to) const;
  // norm(x) or x itself.
  const float* normed(const float* x, uint32_t rows, const Norm& norm, uint32_t width);
  void multiply(const float* x, uint32_t rows, uint32_t columns, std::span<const Product> products);
  void multiply_tiles(const Product& product, const float* x, uint32_t rows, uint32_t first_tile,
                      uint32_t last_tile, uint32_t worker);
  void multiply_exact(const Product& product, const float* x, uint32_t rows, uint32_t first, uint32_t last,
                      uint32_t worker);
  void gated(const float* x, uint32_t rows, const FeedForward& feed_forward, float* out);
  void add_bias(const Matrix& bias, uint32_t rows, float* out);
  void add_residual(float* y, uint32_t rows, uint32_t width, const ResidualAdd& add);
  void group_rows(const Mix& mix, const MixState& state);

  // Constant after construction.
  const CpuBackendOptions options_;
  const cpu::Kernels& kernels_;
  const uint32_t max_columns_;
  CpuDevice device_;
  Reservation reservation_;
  DeviceBuffer scratch_;
  uint64_t scratch_used_ = 0;
  uint64_t worker_bytes_ = 0;

  // Scratch, all inside scratch_.
  float* normed_ = nullptr;       // [max_rows][max_width]
  float* gate_ = nullptr;         // [max_rows][max_feed_forward]
  float* up_ = nullptr;           // [max_rows][max_feed_forward]
  float* sums_ = nullptr;         // [max_rows][max_width]
  float* logits_ = nullptr;       // [max_rows][max_experts]
  float* norm_weight_ = nullptr;  // [max_width], of the norm before
  float* post_weight_ = nullptr;  // [max_width], of the norm after; and biases
  cpu::QuantizedRows quantized_;  // [max_rows][max_columns_]
  uint8_t* workers_ = nullptr;    // [threads][worker_bytes_]
  std::vector<cpu::MixUnit> units_;

  ComputeCounters counters_;
  cpu::ThreadPool pool_;
};

}  // namespace caravan
