// Products with weights: every format, instruction set, number of threads and batch gives the same bits, and
// these are near the exact sum.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/budget.h"
#include "base/random.h"
#include "compute/cpu/cpu_backend.h"

namespace caravan {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ4_0,
                                 TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};
constexpr cpu::Isa kIsas[] = {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512};

bool is_float(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

// Rows of a matrix, one byte past an aligned address. Quantized ones are any bytes with tame scales.
struct Weights {
  TensorType type;
  uint32_t rows, columns;
  std::vector<std::byte> bytes;

  Matrix matrix() const { return {type, rows, columns, bytes.data() + 1}; }
  std::vector<float> row(uint32_t index) const {
    std::vector<float> values(columns);
    const uint64_t size = row_bytes(type, columns);
    dequantize(type, {bytes.data() + 1 + index * size, size}, values);
    return values;
  }
};

void put_half(std::byte* at, float value) {
  const uint16_t bits = float_to_half(value);
  std::memcpy(at, &bits, sizeof(bits));
}

float normal(Random& random) {
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += random.unit();
  return static_cast<float>(sum);
}

void tame_scales(TensorType type, std::byte* block, Random& random) {
  const auto scale = [&] { return static_cast<float>(random.unit() - 0.5) * 0.02f; };
  if (type == TensorType::kQ6_K) return put_half(block + 208, scale() / 16);
  put_half(block, scale());
  if (type != TensorType::kQ4_0 && type != TensorType::kQ5_0 && type != TensorType::kQ8_0)
    put_half(block + 2, scale());
}

Weights random_weights(TensorType type, uint32_t rows, uint32_t columns, Random& random) {
  Weights weights{type, rows, columns, {}};
  weights.bytes.resize(1 + rows * row_bytes(type, columns));
  const std::span<std::byte> body = std::span(weights.bytes).subspan(1);
  if (is_float(type)) {
    std::vector<float> values(uint64_t{rows} * columns);
    for (float& value : values) value = normal(random);
    quantize(type, values, body);
    return weights;
  }
  random.fill({reinterpret_cast<uint8_t*>(body.data()), body.size()});
  for (uint64_t at = 0; at < body.size(); at += traits(type).block_bytes)
    tame_scales(type, body.data() + at, random);
  return weights;
}

// Rows with blocks of zeros, tiny and large values among usual ones.
std::vector<float> random_rows(uint32_t rows, uint32_t columns, Random& random) {
  std::vector<float> x(uint64_t{rows} * columns);
  float scale = 1;
  for (uint64_t i = 0; i < x.size(); ++i) {
    if (i % 32 == 0) {
      const uint64_t kind = random.below(8);
      scale = kind == 0 ? 0.0f : kind == 1 ? 1e-39f : kind == 2 ? 1e6f : 1.0f;
    }
    x[i] = normal(random) * scale;
  }
  return x;
}

struct Run {
  cpu::Isa isa = cpu::Isa::kScalar;
  uint32_t threads = 1;
  uint32_t batch = 1;  // rows a call
  Activations activations = Activations::kInt8;
};

std::vector<float> product(const Run& run, const Weights& weights, const std::vector<float>& x) {
  Budget budget("ram", Bytes{1u << 30});
  const uint32_t rows = static_cast<uint32_t>(x.size() / weights.columns);
  CpuBackend backend({.threads = run.threads,
                      .isa = run.isa,
                      .activations = run.activations,
                      .max_rows = run.batch,
                      .max_width = weights.columns},
                     budget);
  std::vector<float> out(uint64_t{rows} * weights.rows, std::nanf(""));
  for (uint32_t r = 0; r < rows; r += run.batch) {
    const Projection projection{weights.matrix(), {}, out.data() + uint64_t{r} * weights.rows};
    backend.norm_project(x.data() + uint64_t{r} * weights.columns, std::min(run.batch, rows - r), {},
                         {&projection, 1});
  }
  return out;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(float)), 0)
        << what << " at " << i << ": " << a[i] << ", " << b[i];
}

// Half of a quantization step of the activations, times the weights, and f32 rounding.
double bound(TensorType type, Activations activations, const std::vector<float>& weights, const float* x) {
  double steps = 0, products = 0;
  for (size_t block = 0; block < weights.size(); block += 32) {
    double largest = 0, sum = 0;
    for (size_t i = block; i < std::min(weights.size(), block + 32); ++i) {
      largest = std::max<double>(largest, std::fabs(x[i]));
      sum += std::fabs(weights[i]);
      products += std::fabs(double{weights[i]} * x[i]);
    }
    steps += largest / 254 * 1.0001 * sum + 127 * 0x1p-126 * sum;
  }
  return 1e-5 * products + (is_float(type) || activations == Activations::kF32 ? 0 : steps) + 1e-30;
}

void expect_near_exact(const Weights& weights, Activations activations, const std::vector<float>& x,
                       const std::vector<float>& out) {
  for (uint32_t o = 0; o < weights.rows; ++o) {
    const std::vector<float> row = weights.row(o);
    for (uint64_t r = 0; r < x.size() / weights.columns; ++r) {
      const float* input = x.data() + r * weights.columns;
      double exact = 0;
      for (uint32_t k = 0; k < weights.columns; ++k) exact += double{row[k]} * input[k];
      ASSERT_NEAR(out[r * weights.rows + o], exact, bound(weights.type, activations, row, input))
          << name(weights.type) << " row " << r << " output " << o;
    }
  }
}

void check_shape(TensorType type, uint32_t outputs, uint32_t columns, uint32_t rows, uint64_t seed) {
  SCOPED_TRACE(std::string(name(type)) + " " + std::to_string(outputs) + "x" + std::to_string(columns) +
               ", " + std::to_string(rows) + " rows");
  SeededRandom random(seed);
  const Weights weights = random_weights(type, outputs, columns, random);
  const std::vector<float> x = random_rows(rows, columns, random);
  const std::vector<float> law = product({}, weights, x);
  expect_near_exact(weights, Activations::kInt8, x, law);
  for (cpu::Isa isa : kIsas) {
    if (!cpu::kernels_of(isa)) continue;
    const char* isa_name = cpu::kernels_of(isa)->name;
    for (uint32_t threads : {1u, 2u}) {
      for (uint32_t batch : {rows, 1 + static_cast<uint32_t>(random.below(rows))})
        expect_same_bits(law, product({isa, threads, batch}, weights, x), isa_name);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(CpuMatmul, EveryFormatShapeBatchAndInstructionSetGivesTheScalarTwinsBits) {
  SeededRandom random(7);
  for (TensorType type : kTypes) {
    const uint32_t block = traits(type).block_elements;
    // One block, a segment and its neighbours, and what the models have.
    const uint32_t step = std::max(block, 32u);
    for (uint32_t columns :
         {step, std::max(512u, step), 512u + step, step * (1 + uint32_t(random.below(1000 / step)))})
      check_shape(type, 1 + static_cast<uint32_t>(random.below(40)), columns,
                  1 + static_cast<uint32_t>(random.below(19)), random.next());
    if (HasFailure()) return;
  }
}

TEST(CpuMatmul, LongRowsAndManyOfThem) {
  for (TensorType type : {TensorType::kQ8_0, TensorType::kQ4_K, TensorType::kF16}) {
    check_shape(type, 19, 2816, 3, 11);
    check_shape(type, 33, 256, 40, 12);
    if (HasFailure()) return;
  }
}

TEST(CpuMatmul, FloatRowsOfAnyWidth) {
  SeededRandom random(3);
  for (TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16})
    for (uint32_t columns : {1u, 8u, 15u, 17u, 100u, 333u}) {
      check_shape(type, 1 + static_cast<uint32_t>(random.below(70)), columns,
                  1 + static_cast<uint32_t>(random.below(9)), random.next());
      if (HasFailure()) return;
    }
}

TEST(CpuMatmul, ExactActivationsAreWithinRoundingOfTheDequantizedProduct) {
  SeededRandom random(5);
  for (TensorType type : kTypes) {
    const Weights weights = random_weights(type, 21, 512, random);
    const std::vector<float> x = random_rows(5, 512, random);
    const std::vector<float> law = product({.activations = Activations::kF32}, weights, x);
    expect_near_exact(weights, Activations::kF32, x, law);
    for (cpu::Isa isa : kIsas)
      if (cpu::kernels_of(isa))
        expect_same_bits(law, product({isa, 2, 5, Activations::kF32}, weights, x), "exact activations");
    if (HasFailure()) return;
  }
}

TEST(CpuMatmul, AnActivationThatIsNotFiniteIsNotHidden) {
  SeededRandom random(6);
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()})
    for (TensorType type : {TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ6_K})
      for (cpu::Isa isa : kIsas) {
        if (!cpu::kernels_of(isa)) continue;
        const Weights weights = random_weights(type, 3, 512, random);
        std::vector<float> x = random_rows(2, 512, random);
        x[300] = bad;
        const std::vector<float> out = product({isa, 1, 2}, weights, x);
        for (int o = 0; o < 3; ++o) {
          EXPECT_FALSE(std::isfinite(out[o]));
          EXPECT_TRUE(std::isfinite(out[3 + o])) << "the other row is not touched";
        }
      }
}

}  // namespace
}  // namespace caravan
