#include "compute/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

// Columns of one task of an element-wise loop.
constexpr uint32_t kGateColumns = 2048;

const cpu::Kernels& chosen_kernels(cpu::Isa isa) {
  const cpu::Kernels* kernels = cpu::kernels_of(isa);
  if (!kernels) fail(ErrorCode::kUnsupported, "this processor or build lacks the instruction set asked for");
  return *kernels;
}

bool is_float(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

std::span<const std::byte> row_of(const Matrix& matrix, uint64_t row) {
  const uint64_t bytes = row_bytes(matrix.type, matrix.columns);
  return {matrix.data + row * bytes, bytes};
}

// The most columns of a product, in whole blocks.
uint32_t columns_of(const CpuBackendOptions& options) {
  return (std::max(options.max_width, options.max_feed_forward) + 31) / 32 * 32;
}

uint64_t worker_bytes_of(const CpuBackendOptions& options) {
  uint64_t bytes = cpu::worker_scratch_bytes(options.max_rows, options.max_head_width);
  if (options.activations == Activations::kF32)
    bytes += uint64_t{cpu::kTileOutputs} * columns_of(options) * sizeof(float);
  return bytes;
}

}  // namespace

std::optional<cpu::Isa> isa_from_name(std::string_view name) {
  if (name == "auto") return cpu::Isa::kBest;
  if (name == "scalar") return cpu::Isa::kScalar;
  if (name == "avx2") return cpu::Isa::kAvx2;
  if (name == "avx512") return cpu::Isa::kAvx512;
  return std::nullopt;
}

CpuBackend::CpuBackend(const CpuBackendOptions& options, Budget& budget)
    : options_(options),
      kernels_(chosen_kernels(options.isa)),
      max_columns_(columns_of(options)),
      pool_(options.threads) {
  const uint64_t rows = options.max_rows, blocks = max_columns_ / cpu::kActivationBlock;
  worker_bytes_ = worker_bytes_of(options);
  const Bytes bytes = scratch_bytes(options);
  reservation_ = budget.reserve(MemoryTag::kScratch, bytes);
  scratch_ = DeviceBuffer(device_, bytes);
  normed_ = take<float>(rows * options.max_width);
  gate_ = take<float>(rows * options.max_feed_forward);
  up_ = take<float>(rows * options.max_feed_forward);
  sums_ = take<float>(rows * options.max_width);
  logits_ = take<float>(rows * options.max_experts);
  norm_weight_ = take<float>(max_columns_);
  post_weight_ = take<float>(max_columns_);
  quantized_.q = take<int8_t>(rows * max_columns_);
  quantized_.scale = take<float>(rows * blocks * 2);
  quantized_.scaled_sum = take<float>(rows * blocks);
  quantized_.start8 = take<int32_t>(rows * blocks * 2);
  quantized_.start16 = take<int32_t>(rows * blocks * 2);
  quantized_.start128 = take<int32_t>(rows * blocks * 2);
  quantized_.half_start32 = take<int32_t>(rows * blocks * 2);
  workers_ = take<uint8_t>(worker_bytes_ * options.threads);
  CHECK(scratch_used_ <= bytes.count);
  units_.reserve(options.max_rows);
}

Bytes CpuBackend::scratch_bytes(const CpuBackendOptions& options) {
  const uint64_t rows = options.max_rows, columns = columns_of(options);
  const uint64_t blocks = columns / cpu::kActivationBlock;
  const uint64_t floats = rows * (2ull * options.max_width + 2ull * options.max_feed_forward +
                                  options.max_experts + 11 * blocks) +
                          2 * columns;
  constexpr uint64_t kArrays = 16;  // each rounded up to a cache line
  return {floats * sizeof(float) + rows * columns + worker_bytes_of(options) * options.threads +
          kArrays * 64};
}

template <class T>
T* CpuBackend::take(uint64_t count) {
  T* start = reinterpret_cast<T*>(scratch_.address() + scratch_used_);
  scratch_used_ += (count * sizeof(T) + 63) / 64 * 64;
  return start;
}

uint8_t* CpuBackend::worker_scratch(uint32_t worker) {
  return workers_ + worker * worker_bytes_;
}

float* CpuBackend::exact_scratch(uint32_t worker) {
  return reinterpret_cast<float*>(worker_scratch(worker) +
                                  cpu::worker_scratch_bytes(options_.max_rows, options_.max_head_width));
}

const float* CpuBackend::norm_weight(const Norm& norm, uint32_t width, float* to) const {
  if (!norm.weight) return nullptr;
  CHECK(norm.weight.rows == 1u);
  CHECK(norm.weight.columns == width);
  CHECK(width <= max_columns_);
  dequantize(norm.weight.type, row_of(norm.weight, 0), {to, width});
  return to;
}

const float* CpuBackend::normed(const float* x, uint32_t rows, const Norm& norm, uint32_t width) {
  if (!norm.weight) return x;
  CHECK(rows <= options_.max_rows);
  CHECK(width <= options_.max_width);
  normalise(x, rows, norm, width, normed_);
  return normed_;
}

void CpuBackend::normalise(const float* x, uint32_t rows, const Norm& norm, uint32_t width, float* out) {
  const float* weight = norm_weight(norm, width, norm_weight_);
  if (!weight) {
    if (out != x) std::memmove(out, x, uint64_t{rows} * width * sizeof(float));
    return;
  }
  pool_.parallel_for(rows, 1, [&](uint64_t first, uint64_t last, uint32_t) {
    for (uint64_t r = first; r < last; ++r)
      kernels_.rms_norm(x + r * width, weight, width, norm.epsilon, out + r * width);
  });
}

// All products share x, so that it is quantized once and the workers meet once.
void CpuBackend::multiply(const float* x, uint32_t rows, uint32_t columns,
                          std::span<const Product> products) {
  CHECK(rows <= options_.max_rows);
  CHECK(columns <= max_columns_);
  uint64_t tiles = 0;
  bool quantizes = false;
  for (const Product& product : products) {
    CHECK(product.weight.columns == columns);
    CHECK(columns % traits(product.weight.type).block_elements == 0u);
    tiles += (product.weight.rows + cpu::kTileOutputs - 1) / cpu::kTileOutputs;
    quantizes |= !is_float(product.weight.type) && options_.activations == Activations::kInt8;
    counters_.weight_bytes.add(product.weight.rows * row_bytes(product.weight.type, columns));
    counters_.operations.add(2ull * rows * product.weight.rows * columns);
  }
  if (quantizes) {
    quantized_.columns = columns;
    pool_.parallel_for(rows, 1, [&](uint64_t first, uint64_t last, uint32_t) {
      for (uint64_t r = first; r < last; ++r)
        kernels_.quantize(x + r * columns, quantized_, static_cast<uint32_t>(r));
    });
  }
  const uint64_t share = std::max<uint64_t>(1, tiles / (uint64_t{pool_.threads()} * 8));
  pool_.parallel_for(tiles, share, [&](uint64_t first, uint64_t last, uint32_t worker) {
    uint64_t start = 0;
    for (const Product& product : products) {
      const uint64_t own = (product.weight.rows + cpu::kTileOutputs - 1) / cpu::kTileOutputs;
      const uint64_t from = std::max(first, start), to = std::min(last, start + own);
      if (from < to)
        multiply_tiles(product, x, rows, static_cast<uint32_t>(from - start),
                       static_cast<uint32_t>(to - start), worker);
      start += own;
    }
  });
}

void CpuBackend::multiply_tiles(const Product& product, const float* x, uint32_t rows, uint32_t first_tile,
                                uint32_t last_tile, uint32_t worker) {
  const Matrix& weight = product.weight;
  const uint32_t first = first_tile * cpu::kTileOutputs;
  const uint32_t last = std::min(weight.rows, last_tile * cpu::kTileOutputs);
  if (!is_float(weight.type) && options_.activations == Activations::kF32)
    return multiply_exact(product, x, rows, first, last, worker);
  cpu::MatmulJob job;
  job.type = weight.type;
  job.weights = reinterpret_cast<const uint8_t*>(weight.data);
  job.row_bytes = row_bytes(weight.type, weight.columns);
  job.outputs = weight.rows;
  job.columns = weight.columns;
  job.quantized = quantized_;
  job.floats = x;
  job.rows = rows;
  job.out = product.out;
  job.out_stride = weight.rows;
  kernels_.matmul(job, first, last, worker_scratch(worker));
}

// Dequantizes a few weight rows and uses them for all rows of x.
void CpuBackend::multiply_exact(const Product& product, const float* x, uint32_t rows, uint32_t first,
                                uint32_t last, uint32_t worker) {
  const Matrix& weight = product.weight;
  float* floats = exact_scratch(worker);
  for (uint32_t start = first; start < last; start += cpu::kTileOutputs) {
    const uint32_t count = std::min(cpu::kTileOutputs, last - start);
    for (uint32_t o = 0; o < count; ++o)
      dequantize(weight.type, row_of(weight, start + o),
                 {floats + uint64_t{o} * weight.columns, weight.columns});
    cpu::MatmulJob job;
    job.type = TensorType::kF32;
    job.weights = reinterpret_cast<const uint8_t*>(floats);
    job.row_bytes = uint64_t{weight.columns} * sizeof(float);
    job.outputs = count;
    job.columns = weight.columns;
    job.floats = x;
    job.rows = rows;
    job.out = product.out + start;
    job.out_stride = weight.rows;
    kernels_.matmul(job, 0, count, worker_scratch(worker));
  }
}

void CpuBackend::add_bias(const Matrix& bias, uint32_t rows, float* out) {
  if (!bias) return;
  CHECK(bias.rows == 1u);
  CHECK(bias.columns <= max_columns_);
  dequantize(bias.type, row_of(bias, 0), {post_weight_, bias.columns});
  for (uint32_t r = 0; r < rows; ++r)
    kernels_.add_scaled(post_weight_, 1.0f, bias.columns, out + uint64_t{r} * bias.columns);
}

void CpuBackend::add_residual(float* y, uint32_t rows, uint32_t width, const ResidualAdd& add) {
  const float* weight = norm_weight(add.post_norm, width, post_weight_);
  pool_.parallel_for(rows, 1, [&](uint64_t first, uint64_t last, uint32_t) {
    for (uint64_t r = first; r < last; ++r) {
      float* row = y + r * width;
      if (weight) kernels_.rms_norm(row, weight, width, add.post_norm.epsilon, row);
      kernels_.add_scaled(row, add.scale, width, add.residual + r * width);
    }
  });
}

void CpuBackend::embed(const Matrix& rows, float scale, float* out) {
  pool_.parallel_for(rows.rows, 1, [&](uint64_t first, uint64_t last, uint32_t) {
    for (uint64_t i = first; i < last; ++i) {
      float* row = out + i * rows.columns;
      dequantize(rows.type, row_of(rows, i), {row, rows.columns});
      if (scale != 1.0f)
        kernels_.widen(TensorType::kF32, reinterpret_cast<const uint8_t*>(row), scale, rows.columns, row);
    }
  });
  counters_.weight_bytes.add(rows.rows * row_bytes(rows.type, rows.columns));
}

void CpuBackend::norm_project(const float* x, uint32_t rows, const Norm& norm,
                              std::span<const Projection> projections) {
  if (projections.empty()) return;
  constexpr size_t kMostProjections = 8;
  CHECK(projections.size() <= kMostProjections);
  Product products[kMostProjections];
  for (size_t i = 0; i < projections.size(); ++i) products[i] = {projections[i].weight, projections[i].out};
  const uint32_t width = projections[0].weight.columns;
  multiply(normed(x, rows, norm, width), rows, width, {products, projections.size()});
  for (const Projection& projection : projections) {
    CHECK((!projection.bias || projection.bias.columns == projection.weight.rows));
    add_bias(projection.bias, rows, projection.out);
  }
}

void CpuBackend::project_add(const float* x, uint32_t rows, const Matrix& weight, const Matrix& bias,
                             const ResidualAdd& add) {
  CHECK(weight.rows <= options_.max_width);
  const Product product{weight, sums_};
  multiply(x, rows, weight.columns, {&product, 1});
  add_bias(bias, rows, sums_);
  add_residual(sums_, rows, weight.rows, add);
}

void CpuBackend::gated(const float* x, uint32_t rows, const FeedForward& feed_forward, float* out) {
  const uint32_t width = feed_forward.gate.columns, inner = feed_forward.gate.rows;
  CHECK(inner <= options_.max_feed_forward);
  CHECK(feed_forward.up.rows == inner);
  CHECK(feed_forward.down.columns == inner);
  const Product products[] = {{feed_forward.gate, gate_}, {feed_forward.up, up_}};
  multiply(x, rows, width, products);
  add_bias(feed_forward.gate_bias, rows, gate_);
  add_bias(feed_forward.up_bias, rows, up_);
  const uint64_t chunks = (inner + kGateColumns - 1) / kGateColumns;
  pool_.parallel_for(rows * chunks, 1, [&](uint64_t first, uint64_t last, uint32_t) {
    for (uint64_t i = first; i < last; ++i) {
      const uint64_t column = i % chunks * kGateColumns, at = i / chunks * inner + column;
      const uint64_t count = std::min<uint64_t>(kGateColumns, inner - column);
      kernels_.gate(feed_forward.activation, gate_ + at, up_ + at, static_cast<uint32_t>(count), gate_ + at);
    }
  });
  const Product down{feed_forward.down, out};
  multiply(gate_, rows, inner, {&down, 1});
  add_bias(feed_forward.down_bias, rows, out);
}

void CpuBackend::feed_forward(const float* x, uint32_t rows, const FeedForward& feed_forward,
                              const ResidualAdd& add) {
  const uint32_t width = feed_forward.gate.columns;
  CHECK(feed_forward.down.rows <= options_.max_width);
  gated(normed(x, rows, feed_forward.norm, width), rows, feed_forward, sums_);
  add_residual(sums_, rows, feed_forward.down.rows, add);
}

void CpuBackend::run_expert(const float* normed_rows, std::span<const uint32_t> row_index,
                            const FeedForward& feed_forward, float* out) {
  const uint32_t width = feed_forward.gate.columns, rows = static_cast<uint32_t>(row_index.size());
  CHECK(!feed_forward.norm.weight);
  CHECK(row_index.size() <= options_.max_rows);
  CHECK(width <= options_.max_width);
  for (uint64_t r = 0; r < rows; ++r)
    std::memcpy(normed_ + r * width, normed_rows + uint64_t{row_index[r]} * width, width * sizeof(float));
  gated(normed_, rows, feed_forward, out);
}

void CpuBackend::route(const float* x, uint32_t rows, const Route& route, float* normed_rows,
                       uint32_t* experts, float* weights) {
  const uint32_t count = route.router.rows, width = route.router.columns;
  CHECK(count <= options_.max_experts);
  CHECK(route.top_k <= count);
  normalise(x, rows, route.norm, width, normed_rows);
  const Product product{route.router, logits_};
  multiply(normed_rows, rows, width, {&product, 1});
  add_bias(route.bias, rows, logits_);
  for (uint32_t r = 0; r < rows; ++r) {
    float* probability = logits_ + uint64_t{r} * count;
    uint32_t* chosen = experts + uint64_t{r} * route.top_k;
    float* weight = weights + uint64_t{r} * route.top_k;
    kernels_.softmax(probability, count);
    float sum = 0;
    for (uint32_t k = 0; k < route.top_k; ++k) {
      uint32_t best = count;
      for (uint32_t e = 0; e < count; ++e) {
        const bool taken = std::find(chosen, chosen + k, e) != chosen + k;
        if (!taken && (best == count || probability[e] > probability[best])) best = e;
      }
      chosen[k] = best;
      weight[k] = probability[best];
      sum += weight[k];
    }
    if (route.normalise)
      for (uint32_t k = 0; k < route.top_k; ++k) weight[k] /= sum;
  }
}

void CpuBackend::combine(const float* parts, std::span<const uint32_t> slots, const float* weights,
                         uint32_t rows, uint32_t top_k, uint32_t width, const ResidualAdd& add) {
  CHECK(slots.size() == uint64_t{rows} * top_k);
  CHECK(rows <= options_.max_rows);
  CHECK(width <= options_.max_width);
  std::fill_n(sums_, uint64_t{rows} * width, 0.0f);
  for (uint64_t i = 0; i < slots.size(); ++i)
    kernels_.add_scaled(parts + uint64_t{slots[i]} * width, weights[i], width, sums_ + i / top_k * width);
  add_residual(sums_, rows, width, add);
}

void CpuBackend::output(const float* x, uint32_t rows, const Output& output, float* logits) {
  const uint32_t width = output.weight.columns;
  const Product product{output.weight, logits};
  multiply(normed(x, rows, output.norm, width), rows, width, {&product, 1});
  if (output.scale == 1.0f) return;
  for (uint32_t r = 0; r < rows; ++r) {
    float* row = logits + uint64_t{r} * output.weight.rows;
    kernels_.widen(TensorType::kF32, reinterpret_cast<const uint8_t*>(row), output.scale, output.weight.rows,
                   row);
  }
}

}  // namespace caravan
