// Quantized files against exact logits and against another engine's greedy ids.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "model/sampler.h"
#include "tests/reference/case.h"
#include "tests/support/test_model.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

struct QuantizedCase {
  const char* name;
  double fast_limit;  // relative error that llama.cpp's own fast path has on this file
};

class QuantizedFile : public testing::TestWithParam<QuantizedCase> {
 protected:
  void SetUp() override {
    gguf_ = shared_folder() / "data/gguf";
    if (!fs::is_directory(gguf_)) GTEST_SKIP() << "needs " << gguf_ << ", which is not at hand";
    file_ = gguf_ / (std::string(GetParam().name) + ".gguf");
    if (!fs::exists(file_)) file_ = shared_folder() / "demo_model" / (std::string(GetParam().name) + ".gguf");
    std::ifstream in(gguf_ / "ids.txt");
    for (TokenId id = 0; in >> id; in.ignore(1)) ids_.push_back(id);
    ASSERT_EQ(ids_.size(), 200u);
    exact_ = read_floats(gguf_ / (std::string(GetParam().name) + ".exact.f32"));
  }
  // Logits of the last 8 positions.
  std::vector<float> last_logits(TestModelOptions options) const {
    TestModel model(read_manifest(file_.string()), {3, 6}, options);
    const std::vector<float> all = model.prompt_logits(ids_, 96);
    return {all.end() - static_cast<long>(exact_.size()), all.end()};
  }
  fs::path gguf_, file_;
  std::vector<TokenId> ids_;
  std::vector<float> exact_;
};

TEST_P(QuantizedFile, ExactActivationsAgreeWithinOneInAThousand) {
  EXPECT_LE(worst_row(last_logits({.activations = Activations::kF32}), exact_, exact_.size() / 8), 1e-3);
}

TEST_P(QuantizedFile, TheFastPathIsNoWorseThanLlamaCppAndKeepsTheTopTokens) {
  const std::vector<float> fast = last_logits({});
  const size_t vocabulary = exact_.size() / 8;
  const double error = worst_row(fast, exact_, vocabulary);
  std::printf("%s: relative error %.4f (llama.cpp %.3f)\n", GetParam().name, error, GetParam().fast_limit);
  EXPECT_LE(error, GetParam().fast_limit);
  for (size_t row = 0; row < 8; ++row)
    EXPECT_EQ(greedy(std::span(fast).subspan(row * vocabulary, vocabulary)),
              greedy(std::span(exact_).subspan(row * vocabulary, vocabulary)));
}

// Distributions are flat: another order of summation may part where the margin is small, so compare up to
// there.
TEST_P(QuantizedFile, GreedyIdsAgreeUpToTheFirstSmallMargin) {
  TestModel model(read_manifest(file_.string()), {}, {.kv_blocks = 128});
  for (int i = 1; i <= 3; ++i) {
    const GreedyCase reference =
        read_greedy_case(gguf_ / (std::string(GetParam().name) + "." + std::to_string(i) + ".json"));
    size_t safe = 0;
    while (safe < reference.ids.size() && reference.margins[safe] >= 0.25) ++safe;
    const auto ids = model.greedy(reference.prompt, static_cast<uint32_t>(safe), 96);
    EXPECT_EQ(ids,
              std::vector<TokenId>(reference.ids.begin(), reference.ids.begin() + static_cast<long>(safe)));
  }
}

std::string quantized_name(const testing::TestParamInfo<QuantizedCase>& param) {
  std::string name = param.param.name;
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Files, QuantizedFile,
                         testing::Values(QuantizedCase{"demo-q4_0", 0.010},
                                         QuantizedCase{"demo-q4_k_m", 0.020},
                                         QuantizedCase{"demo-q5_k_m", 0.019},
                                         QuantizedCase{"demo-q8_0", 0.011}),
                         quantized_name);

TEST(RealFiles, Stories260KGivesLlamaCppsGreedyIds) {
  const fs::path real = shared_folder() / "data/real";
  if (!fs::is_directory(real)) GTEST_SKIP() << "needs " << real << ", which is not at hand";
  TestModel model(read_manifest((real / "stories260K/stories260K.gguf").string()), {2});
  for (int i = 1; i <= 3; ++i) {
    const GreedyCase reference = read_greedy_case(real / ("stories260K." + std::to_string(i) + ".json"));
    EXPECT_EQ(model.greedy(reference.prompt, static_cast<uint32_t>(reference.ids.size()), 32), reference.ids)
        << i;
  }
}

TEST(RealFiles, AOneLayerModelOfWidthEightRuns) {
  const fs::path file = shared_folder() / "data/real/tiny-random-llama-2/llama-2-tiny-random.gguf";
  if (!fs::exists(file)) GTEST_SKIP() << "needs " << file << ", which is not at hand";
  TestModel model(read_manifest(file.string()));
  EXPECT_EQ(model.greedy({1, 2, 3}, 5, 2), model.greedy({1, 2, 3}, 5, 3));
}

}  // namespace
}  // namespace caravan
