#include "model/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/random.h"

namespace caravan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TokenId sample_once(const std::vector<float>& logits, const SamplingOptions& options, uint64_t position = 0,
                    const std::vector<TokenId>& history = {}) {
  SamplerScratch scratch;
  return sample(logits, options, history, position, scratch);
}

// How often each token comes over many positions.
std::vector<double> shares(const std::vector<float>& logits, const SamplingOptions& options,
                           const std::vector<TokenId>& history = {}) {
  constexpr uint64_t kDraws = 40'000;
  SamplerScratch scratch;
  std::vector<double> counts(logits.size());
  for (uint64_t position = 0; position < kDraws; ++position) {
    ++counts[sample(logits, options, history, position, scratch)];
  }
  for (double& count : counts) count /= kDraws;
  return counts;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> out;
  double sum = 0;
  for (const float logit : logits)
    sum += out.emplace_back(std::exp(static_cast<double>(logit) / temperature));
  for (double& share : out) share /= sum;
  return out;
}

// Five standard deviations of a count of 40,000.
void expect_near(const std::vector<double>& got, const std::vector<double>& wanted) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_NEAR(got[i], wanted[i], 5 * std::sqrt(wanted[i] * (1 - wanted[i]) / 40'000) + 1e-9)
        << "token " << i;
  }
}

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, 0.5f, -1.0f};  // best first: 1 2 0 3 4

TEST(Sampler, DrawsByTheProbabilities) {
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplingOptions options;
    options.temperature = temperature;
    expect_near(shares(kLogits, options), softmax(kLogits, static_cast<double>(temperature)));
    options.seed = 99;
    expect_near(shares(kLogits, options), softmax(kLogits, static_cast<double>(temperature)));
  }
}

TEST(Sampler, IsAFunctionOfSeedAndPosition) {
  const std::vector<float> even(1000, 0.0f);
  SamplingOptions options;
  SamplerScratch used;
  std::map<TokenId, int> differing;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t position = 0; position < 20; ++position) {
      options.seed = seed;
      const TokenId id = sample_once(even, options, position);
      EXPECT_EQ(sample(even, options, {}, position, used), id);
      ++differing[id];
    }
  }
  // 400 draws out of 1000: no token comes often, and seed and position cannot be exchanged.
  for (const auto& [id, count] : differing) EXPECT_LE(count, 6) << id;
  options.seed = 3;
  const TokenId a = sample_once(even, options, 7);
  options.seed = 7;
  EXPECT_NE(sample_once(even, options, 3), a);
}

TEST(Sampler, TakesTheMemoryThatItTells) {
  const std::vector<float> even(1001, 0.0f);
  SamplerScratch scratch;
  scratch.reserve(even.size());
  SamplingOptions options;
  for (const float top_p : {1.0f, 0.5f}) {
    options.top_p = top_p;
    sample(even, options, {}, 0, scratch);
    top_logprobs(even, 20, scratch);
    const size_t bytes = scratch.logits.capacity() * sizeof(scratch.logits[0]) +
                         scratch.kept.capacity() * sizeof(scratch.kept[0]) +
                         scratch.sums.capacity() * sizeof(scratch.sums[0]);
    EXPECT_EQ(bytes, SamplerScratch::bytes(even.size()));
  }
}

TEST(Sampler, KeepsTheBestK) {
  SamplingOptions options;
  options.top_k = 2;
  const std::vector<double> got = shares(kLogits, options);
  const double sum = std::exp(3) + std::exp(2);
  expect_near(got, {0, std::exp(3) / sum, std::exp(2) / sum, 0, 0});
  options.top_k = 1;
  EXPECT_EQ(shares(kLogits, options)[1], 1.0);
  options.top_k = 100;
  expect_near(shares(kLogits, options), softmax(kLogits, 1));
}

TEST(Sampler, KeepsTheFewestThatHaveTheShare) {
  const std::vector<double> p = softmax(kLogits, 1);
  SamplingOptions options;
  options.top_p = static_cast<float>(p[1] + p[2] - 0.01);
  expect_near(shares(kLogits, options), {0, p[1] / (p[1] + p[2]), p[2] / (p[1] + p[2]), 0, 0});
  options.top_p = static_cast<float>(p[1] + p[2] + 0.01);
  EXPECT_GT(shares(kLogits, options)[0], 0);
  options.top_p = 0;
  EXPECT_EQ(shares(kLogits, options)[1], 1.0);
}

// More tokens are needed than are sorted at first.
TEST(Sampler, KeepsTheShareOfManyEqualTokens) {
  const std::vector<float> even(10'000, 1.0f);
  SamplingOptions options;
  options.top_p = 0.5f;
  SamplerScratch scratch;
  TokenId highest = 0;
  for (uint64_t position = 0; position < 200; ++position) {
    highest = std::max(highest, sample(even, options, {}, position, scratch));
  }
  EXPECT_GE(highest, 4750u);
  EXPECT_LT(highest, 5001u);
}

TEST(Sampler, KeepsWhatIsNotFarBelowTheBest) {
  const std::vector<double> p = softmax(kLogits, 1);
  SamplingOptions options;
  options.min_p = static_cast<float>(p[0] / p[1] * 0.99);
  const double sum = p[0] + p[1] + p[2];
  expect_near(shares(kLogits, options), {p[0] / sum, p[1] / sum, p[2] / sum, 0, 0});
  options.min_p = static_cast<float>(p[0] / p[1] * 1.01);
  EXPECT_EQ(shares(kLogits, options)[0], 0);
  options.min_p = 1;
  EXPECT_EQ(shares(kLogits, options)[1], 1.0);
}

TEST(Sampler, PenalizesWhatOccurred) {
  SamplingOptions options;
  options.temperature = 0;
  options.repetition_penalty = 2;
  // 3 becomes 1.5, and 2 is the best; a negative logit is pushed down, not up.
  EXPECT_EQ(sample_once(kLogits, options, 0, {1}), 2u);
  EXPECT_EQ(sample_once({-1.0f, -1.5f}, options, 0, {0}), 1u);
  options.repetition_penalty = 1;
  options.presence_penalty = 1.5f;
  EXPECT_EQ(sample_once(kLogits, options, 0, {1, 1, 1}), 2u);
  options.presence_penalty = 0.5f;
  EXPECT_EQ(sample_once(kLogits, options, 0, {1, 1, 1}), 1u);
  options.presence_penalty = 0;
  options.frequency_penalty = 0.4f;
  EXPECT_EQ(sample_once(kLogits, options, 0, {1, 1}), 1u);
  EXPECT_EQ(sample_once(kLogits, options, 0, {1, 1, 1}), 2u);
  // The penalties look at the window only, and tokens that are not there do no harm.
  options.penalty_window = 2;
  EXPECT_EQ(sample_once(kLogits, options, 0, {1, 1, 1}), 1u);
  EXPECT_EQ(sample_once(kLogits, options, 0, {1000, 1u << 31}), 1u);
  options.penalty_window = 0;
  EXPECT_EQ(sample_once(kLogits, options, 0, {1, 1, 1, 0, 0, 0, 0}), 2u);
}

TEST(Sampler, AddsBias) {
  SamplingOptions options;
  options.temperature = 0;
  options.logit_bias = {{4, 5.0f}, {1000, 5.0f}};
  EXPECT_EQ(sample_once(kLogits, options), 4u);
  options.temperature = 1;
  options.logit_bias = {{1, -kInfinity}, {2, -kInfinity}};
  const std::vector<double> got = shares(kLogits, options);
  EXPECT_EQ(got[1] + got[2], 0);
}

TEST(Sampler, GreedyTakesTheLowerIdAndNeverNan) {
  EXPECT_EQ(greedy(std::vector<float>{1, 5, 5, 2}), 1u);
  EXPECT_EQ(greedy(std::vector<float>{kNan, 1, kNan, 1}), 1u);
  EXPECT_EQ(greedy(std::vector<float>{-kInfinity, -1e30f}), 1u);
  EXPECT_EQ(greedy(std::vector<float>{0, kInfinity}), 1u);
  EXPECT_THROW(greedy(std::vector<float>{kNan, -kInfinity}), Error);
  EXPECT_THROW(greedy({}), Error);
}

TEST(Sampler, SurvivesExtremeLogits) {
  SamplingOptions options;
  const float most = std::numeric_limits<float>::max();
  for (const float temperature : {1e-30f, 1e-3f, 1.0f, 100.0f}) {
    options.temperature = temperature;
    for (uint64_t position = 0; position < 200; ++position) {
      EXPECT_EQ(sample_once({most, -most, kNan, -kInfinity}, options, position), 0u);
      EXPECT_EQ(sample_once({kNan, kInfinity, 1}, options, position), 1u);
    }
  }
  options.temperature = 1e-30f;
  EXPECT_EQ(sample_once({1.0f, 1.001f, 0.999f}, options), 1u);
  options.temperature = 1;
  EXPECT_THROW(sample_once({kNan, kNan}, options), Error);
}

TEST(Sampler, NamesTheFieldThatIsOutOfRange) {
  const auto message = [](const std::function<void(SamplingOptions&)>& change) {
    SamplingOptions options;
    change(options);
    try {
      validate(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.message();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message([](auto&) {}), "accepted");
  EXPECT_NE(message([](auto& o) { o.temperature = -1; }).find("temperature"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.temperature = kNan; }).find("temperature"), std::string::npos);
  EXPECT_EQ(message([](auto& o) { o.top_p = 0; }), "accepted");
  EXPECT_NE(message([](auto& o) { o.top_p = -0.1f; }).find("top_p"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.top_p = 1.1f; }).find("top_p"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.min_p = -0.1f; }).find("min_p"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.repetition_penalty = 0; }).find("repetition_penalty"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.presence_penalty = kInfinity; }).find("presence_penalty"),
            std::string::npos);
  EXPECT_NE(message([](auto& o) { o.frequency_penalty = kNan; }).find("frequency_penalty"),
            std::string::npos);
  EXPECT_NE(message([](auto& o) { o.logit_bias = {{3, kNan}}; }).find("logit_bias"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.logit_bias.resize(5000); }).find("logit_bias"), std::string::npos);
}

TEST(Logprobs, AreTheLogarithmsOfTheShares) {
  SamplerScratch scratch;
  const std::vector<Candidate> best = top_logprobs(kLogits, 3, scratch);
  const std::vector<double> p = softmax(kLogits, 1);
  ASSERT_EQ(best.size(), 3u);
  const std::vector<TokenId> order = {1, 2, 0};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(best[i].id, order[i]);
    EXPECT_EQ(best[i].logit, kLogits[order[i]]);
    EXPECT_NEAR(static_cast<double>(best[i].logprob), std::log(p[order[i]]), 1e-6);
    EXPECT_EQ(logprob(kLogits, order[i]), best[i].logprob);
  }
  EXPECT_EQ(top_logprobs(kLogits, 100, scratch).size(), kLogits.size());
  EXPECT_THROW(logprob(kLogits, 5), Error);
}

TEST(Logprobs, AreStableAndOrdered) {
  const std::vector<float> huge = {3e38f, 3e38f, -3e38f, kNan, -kInfinity};
  SamplerScratch scratch;
  const std::vector<Candidate> best = top_logprobs(huge, 5, scratch);
  EXPECT_EQ(best[0].id, 0u);
  EXPECT_EQ(best[1].id, 1u);
  EXPECT_NEAR(best[0].logprob, -std::log(2.0f), 1e-6f);
  EXPECT_EQ(best[4].logprob, -kInfinity);
  EXPECT_EQ(logprob(huge, 3), -kInfinity);
}

}  // namespace
}  // namespace caravan
