// A reference folder written as GGUF (shards/quantize) computes what the folder does: the keys, the rotary
// layout and the fused experts of every family mean the same to the reader of either.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>

#include "base/error.h"
#include "shards/quantize.h"
#include "tests/reference/case.h"
#include "tests/support/test_model.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-3;

// Cases with a setting that GGUF has no words for: refused, not written wrongly.
const std::set<std::string> kBeyondGguf = {"odd_qwen3_window_upper", "odd_smollm3_window_unroped"};

class Converted : public testing::TestWithParam<fs::path> {};

TEST_P(Converted, LogitsOfTheGgufFileAgreeAtEveryRow) {
  const fs::path file =
      fs::temp_directory_path() / fs::path("caravan-converted-" + std::to_string(::getpid()) + ".gguf");
  QuantizeOptions options;
  options.type = TensorType::kF32;
  const Manifest manifest = read_manifest(GetParam().string());
  if (kBeyondGguf.count(GetParam().filename().string())) {
    EXPECT_THROW(quantize_model(manifest, file.string(), options), Error);
    EXPECT_FALSE(fs::exists(file));
    return;
  }
  quantize_model(manifest, file.string(), options);
  TestModel model(read_manifest(file.string()));
  const ReferenceCase reference = read_case(GetParam());
  const Expected expected(GetParam());
  for (size_t i = 0; i < reference.inputs.size(); ++i) {
    model.open(1);
    const auto rows = model.rows({{1, 0, reference.inputs[i]}});
    model.close(1);
    EXPECT_LE(worst_row(model.logits(rows), expected.tensor("logits." + std::to_string(i)),
                        model.spec().vocabulary),
              kTolerance)
        << "input " << i;
  }
  fs::remove(file);
}

std::vector<fs::path> folders() {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases"))
    if (entry.is_directory()) found.push_back(entry.path());
  return found;
}

INSTANTIATE_TEST_SUITE_P(Cases, Converted, testing::ValuesIn(folders()),
                         [](const auto& test) { return test.param.filename().string(); });

}  // namespace
}  // namespace caravan
