// The other operations of the back end, against double arithmetic, with the same bits for every instruction
// set.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "base/budget.h"
#include "base/error.h"
#include "base/random.h"
#include "compute/cpu/cpu_backend.h"
#include "compute/math.h"

namespace caravan {
namespace {

constexpr cpu::Isa kIsas[] = {cpu::Isa::kScalar, cpu::Isa::kAvx2, cpu::Isa::kAvx512};

std::vector<float> uniform_values(uint64_t count, Random& random, float range = 2) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.unit() * 2 - 1) * range;
  return values;
}

Matrix f32(const std::vector<float>& values, uint32_t rows) {
  return {TensorType::kF32, rows, static_cast<uint32_t>(values.size() / rows),
          reinterpret_cast<const std::byte*>(values.data())};
}

// Runs `compute` with every instruction set, on one and two threads, and gives the bits that all agree on.
std::vector<float> on_all(const std::function<std::vector<float>(CpuBackend&)>& compute) {
  std::vector<float> law;
  for (cpu::Isa isa : kIsas) {
    if (!cpu::kernels_of(isa)) continue;
    for (uint32_t threads : {1u, 2u}) {
      Budget budget("ram", Bytes{1u << 28});
      CpuBackend backend({.threads = threads,
                          .isa = isa,
                          .max_rows = 8,
                          .max_width = 128,
                          .max_feed_forward = 5000,
                          .max_head_width = 16,
                          .max_experts = 16},
                         budget);
      EXPECT_GT(budget.used(MemoryTag::kScratch).count, 0u);
      const std::vector<float> out = compute(backend);
      if (law.empty()) law = out;
      EXPECT_EQ(std::memcmp(out.data(), law.data(), out.size() * sizeof(float)), 0) << backend.isa_name();
    }
  }
  return law;
}

std::vector<double> normed(const float* x, const std::vector<float>& weight, double epsilon) {
  double squares = 0;
  for (size_t i = 0; i < weight.size(); ++i) squares += double{x[i]} * x[i];
  std::vector<double> out;
  for (size_t i = 0; i < weight.size(); ++i)
    out.push_back(x[i] / std::sqrt(squares / static_cast<double>(weight.size()) + epsilon) * weight[i]);
  return out;
}

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
      return x / 2 * std::erfc(-x / std::sqrt(2));
  }
}

TEST(CpuBackend, VectorExpHasTheBitsOfTheScalarFunction) {
  // Softmax of (x, 0): exp(x - 0) and 1, whose quotient shows every bit of exp.
  SeededRandom random(1);
  std::vector<float> x;
  for (int i = 0; i < 20000; ++i) x.push_back(-static_cast<float>(random.unit()) * 110);
  for (cpu::Isa isa : kIsas) {
    const cpu::Kernels* kernels = cpu::kernels_of(isa);
    if (!kernels) continue;
    for (float value : x) {
      float pair[2] = {value, 0.0f};
      kernels->softmax(pair, 2);
      const float e = exp_f32(value);
      ASSERT_EQ(pair[0], e / (e + 1.0f)) << value << " by " << kernels->name;
    }
  }
}

TEST(CpuBackend, NormaliseAndEmbed) {
  SeededRandom random(2);
  const std::vector<float> x = uniform_values(3 * 100, random), weight = uniform_values(100, random);
  const std::vector<float> out = on_all([&](CpuBackend& backend) {
    std::vector<float> result(300);
    backend.normalise(x.data(), 3, {f32(weight, 1), 1e-6f}, 100, result.data());
    return result;
  });
  for (int r = 0; r < 3; ++r)
    for (int i = 0; i < 100; ++i)
      EXPECT_NEAR(out[r * 100 + i], normed(x.data() + r * 100, weight, 1e-6)[i], 1e-5);

  const std::vector<float> rows = on_all([&](CpuBackend& backend) {
    std::vector<float> result(300);
    backend.embed(f32(x, 3), 3.0f, result.data());
    return result;
  });
  for (int i = 0; i < 300; ++i) EXPECT_EQ(rows[i], 3.0f * x[i]);
}

TEST(CpuBackend, FeedForwardIsGatedAndAddedToTheResidual) {
  for (Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluErf}) {
    SeededRandom random(3);
    constexpr uint32_t kWidth = 24, kInner = 4100, kRows = 3;
    const std::vector<float> x = uniform_values(kRows * kWidth, random),
                             norm = uniform_values(kWidth, random);
    const std::vector<float> gate = uniform_values(kInner * kWidth, random),
                             up = uniform_values(kInner * kWidth, random);
    const std::vector<float> down = uniform_values(kWidth * kInner, random, 0.05f),
                             post = uniform_values(kWidth, random);
    const std::vector<float> out = on_all([&](CpuBackend& backend) {
      std::vector<float> residual = x;
      backend.feed_forward(
          residual.data(), kRows,
          {{f32(norm, 1), 1e-5f}, f32(gate, kInner), f32(up, kInner), f32(down, kWidth), activation},
          {residual.data(), {f32(post, 1), 1e-5f}, 0.5f});
      return residual;
    });
    for (uint32_t r = 0; r < kRows; ++r) {
      const std::vector<double> n = normed(x.data() + r * kWidth, norm, 1e-5);
      std::vector<float> y(kWidth);
      std::vector<double> sum(kWidth, 0.0);
      for (uint32_t i = 0; i < kInner; ++i) {
        double g = 0, u = 0;
        for (uint32_t k = 0; k < kWidth; ++k)
          g += n[k] * gate[i * kWidth + k], u += n[k] * up[i * kWidth + k];
        for (uint32_t o = 0; o < kWidth; ++o) sum[o] += activated(activation, g) * u * down[o * kInner + i];
      }
      for (uint32_t o = 0; o < kWidth; ++o) y[o] = static_cast<float>(sum[o]);
      const std::vector<double> post_normed = normed(y.data(), post, 1e-5);
      for (uint32_t o = 0; o < kWidth; ++o)
        EXPECT_NEAR(out[r * kWidth + o], x[r * kWidth + o] + 0.5 * post_normed[o], 2e-4);
    }
  }
}

TEST(CpuBackend, ProjectionsTakeBiasesAndOutputsAScale) {
  SeededRandom random(4);
  const std::vector<float> x = uniform_values(2 * 20, random), a = uniform_values(7 * 20, random);
  const std::vector<float> b = uniform_values(33 * 20, random), bias = uniform_values(33, random);
  const std::vector<float> out = on_all([&](CpuBackend& backend) {
    std::vector<float> result(2 * 7 + 2 * 33 + 2 * 7 + 2 * 33);
    const Projection projections[] = {{f32(a, 7), {}, result.data()},
                                      {f32(b, 33), f32(bias, 1), &result[14]}};
    backend.norm_project(x.data(), 2, {}, projections);
    backend.output(x.data(), 2, {{}, f32(a, 7), 0.125f}, &result[80]);
    backend.project_add(x.data(), 2, f32(b, 33), f32(bias, 1), {&result[94], {}, 2.0f});
    return result;
  });
  for (int r = 0; r < 2; ++r) {
    for (int o = 0; o < 7; ++o) {
      double sum = 0;
      for (int k = 0; k < 20; ++k) sum += double{a[o * 20 + k]} * x[r * 20 + k];
      EXPECT_NEAR(out[r * 7 + o], sum, 1e-4);
      EXPECT_EQ(out[80 + r * 7 + o], 0.125f * out[r * 7 + o]);
    }
    for (int o = 0; o < 33; ++o) {
      double sum = bias[o];
      for (int k = 0; k < 20; ++k) sum += double{b[o * 20 + k]} * x[r * 20 + k];
      EXPECT_NEAR(out[14 + r * 33 + o], sum, 1e-4);
      EXPECT_EQ(out[94 + r * 33 + o], 2.0f * out[14 + r * 33 + o]);
    }
  }
}

TEST(CpuBackend, RouterChoosesByProbabilityAndTiesGoToTheLowerExpert) {
  // Experts 1 and 3 are alike, so are 0 and 2.
  const std::vector<float> router = {1, 0, 2, 0, 1, 0, 2, 0}, x = {1, 5, -1, 5};
  for (bool normalise : {true, false}) {
    std::vector<uint32_t> experts(6);
    const std::vector<float> weights = on_all([&](CpuBackend& backend) {
      std::vector<float> result(6), normed_rows(4);
      backend.route(x.data(), 2, {{}, f32(router, 4), {}, 3, normalise}, normed_rows.data(), experts.data(),
                    result.data());
      EXPECT_EQ(normed_rows, x);
      return result;
    });
    EXPECT_EQ(experts, (std::vector<uint32_t>{1, 3, 0, 0, 2, 1}));
    const double all = 2 * std::exp(1.0) + 2 * std::exp(2.0), chosen = std::exp(1.0) + 2 * std::exp(2.0);
    EXPECT_NEAR(weights[0], std::exp(2.0) / (normalise ? chosen : all), 1e-6);
    EXPECT_EQ(weights[0], weights[1]);
    EXPECT_NEAR(weights[2], std::exp(1.0) / (normalise ? chosen : all), 1e-6);
  }
}

TEST(CpuBackend, ExpertsRunOnGatheredRowsAndAreCombinedInOrder) {
  SeededRandom random(6);
  const std::vector<float> rows = uniform_values(4 * 32, random), gate = uniform_values(48 * 32, random);
  const std::vector<float> down = uniform_values(32 * 48, random), residual = uniform_values(2 * 32, random);
  const FeedForward expert{{}, f32(gate, 48), f32(gate, 48), f32(down, 32), Activation::kSilu};
  const std::vector<float> out = on_all([&](CpuBackend& backend) {
    std::vector<float> parts(3 * 32), alone(32), sum = residual;
    backend.run_expert(rows.data(), std::vector<uint32_t>{3, 0, 2}, expert, parts.data());
    backend.run_expert(rows.data(), std::vector<uint32_t>{2}, expert, alone.data());
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), parts.begin() + 64))
        << "a row's bits hang on its neighbours";
    backend.combine(parts.data(), std::vector<uint32_t>{0, 1, 2, 0}, std::vector<float>{0.5f, 2, 1, 4}.data(),
                    2, 2, 32, {sum.data(), {}, 1.0f});
    sum.insert(sum.end(), parts.begin(), parts.end());
    return sum;
  });
  const float* parts = out.data() + 64;
  for (int i = 0; i < 32; ++i) {
    EXPECT_NEAR(out[i], residual[i] + 0.5 * parts[i] + 2.0 * parts[32 + i], 1e-3);
    EXPECT_NEAR(out[32 + i], residual[32 + i] + parts[64 + i] + 4.0 * parts[i], 1e-3);
  }
}

TEST(CpuBackend, CountsWhatItReadsAndDoes) {
  Budget budget("ram", Bytes{1u << 24});
  CpuBackend backend({.max_rows = 4, .max_width = 64}, budget);
  const std::vector<float> x(4 * 64, 1.0f), weight(16 * 64, 1.0f);
  std::vector<float> out(4 * 16);
  const Projection projection{f32(weight, 16), {}, out.data()};
  backend.norm_project(x.data(), 4, {}, {&projection, 1});
  EXPECT_EQ(backend.counters().weight_bytes.value(), 16u * 64 * 4);
  EXPECT_EQ(backend.counters().operations.value(), 2u * 4 * 16 * 64);
}

TEST(CpuBackend, ScratchThatDoesNotFitIsAnError) {
  Budget budget("ram", Bytes{1000});
  EXPECT_THROW(CpuBackend({.max_rows = 4, .max_width = 64}, budget), Error);
  EXPECT_EQ(budget.used().count, 0u);
}

TEST(CpuBackend, InstructionSetsHaveNames) {
  for (cpu::Isa isa : kIsas)
    if (const cpu::Kernels* kernels = cpu::kernels_of(isa)) {
      EXPECT_EQ(isa_from_name(kernels->name), isa);
    }
  EXPECT_EQ(isa_from_name("auto"), cpu::Isa::kBest);
  EXPECT_EQ(isa_from_name("avx3"), std::nullopt);
}

TEST(ThreadPool, EveryIndexIsVisitedOnceByAKnownWorker) {
  for (uint32_t threads : {1u, 2u, 5u}) {
    cpu::ThreadPool pool(threads);
    for (uint64_t count : {0u, 1u, 2u, 7u, 1000u})
      for (uint64_t grain : {1u, 3u, 4000u}) {
        std::vector<std::atomic<int>> visits(count);
        pool.parallel_for(count, grain, [&](uint64_t first, uint64_t last, uint32_t worker) {
          EXPECT_LT(worker, threads);
          EXPECT_LE(last - first, grain);
          for (uint64_t i = first; i < last; ++i) visits[i].fetch_add(1);
        });
        for (const auto& visit : visits) ASSERT_EQ(visit.load(), 1);
      }
  }
}

TEST(ThreadPool, ManyShortLoopsGiveEachOneItsOwnWork) {
  cpu::ThreadPool pool(3);
  uint64_t expected = 0;
  std::atomic<uint64_t> sum{0};
  for (uint64_t loop = 0; loop < 3000; ++loop) {
    pool.parallel_for(5, 1, [&](uint64_t first, uint64_t, uint32_t) { sum.fetch_add(first * loop); });
    expected += 10 * loop;
    ASSERT_EQ(sum.load(), expected);
  }
}

}  // namespace
}  // namespace caravan
