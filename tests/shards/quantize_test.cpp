#include "shards/quantize.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "fixtures.h"
#include "shards/gguf.h"
#include "shards/manifest.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

std::string out_path(const std::string& name) {
  return testing::TempDir() + "caravan-quantize-" + name + ".gguf";
}

std::vector<float> values_of(const Manifest& manifest, const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.extent.length);
  manifest.source->read(tensor.extent.file, tensor.extent.offset, bytes);
  std::vector<float> values(uint64_t{tensor.rows} * tensor.columns);
  dequantize(tensor.type, bytes, values);
  return values;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(a[i]), 2);
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

// The same groups with the same roles and shapes; those of `except` may be missing in `before`.
void expect_same_shapes(const Manifest& before, const Manifest& after, Role except = Role::kRopeFactors) {
  ASSERT_EQ(before.groups.size(), after.groups.size());
  EXPECT_EQ(before.layer_count, after.layer_count);
  for (size_t i = 0; i < before.groups.size(); ++i) {
    EXPECT_EQ(before.groups[i].id, after.groups[i].id);
    size_t added = 0;
    for (const Tensor& tensor : after.groups[i].tensors) {
      const Tensor* same = before.groups[i].find(tensor.role);
      if (!same && tensor.role == except) {
        ++added;
        continue;
      }
      ASSERT_TRUE(same) << tensor.name;
      EXPECT_EQ(same->rows, tensor.rows) << tensor.name;
      EXPECT_EQ(same->columns, tensor.columns) << tensor.name;
    }
    EXPECT_EQ(before.groups[i].tensors.size() + added, after.groups[i].tensors.size());
  }
}

bool is_turned(Role role) {
  return role == Role::kQuery || role == Role::kKey || role == Role::kQueryBias || role == Role::kKeyBias;
}

TEST(Quantize, MakesTheDemoModelFromItsFolderBitForBit) {
  const std::string folder = shared_folder() + "/demo_model";
  if (!std::filesystem::exists(folder))
    GTEST_SKIP() << "no demo folder at " << folder << " (set CARAVAN_SHARED)";
  const Manifest source = read_manifest(folder);
  uint64_t advanced = 0;
  QuantizeOptions options;
  options.name = "caravan demo tales 8M";
  options.advance = [&advanced](uint64_t bytes) { advanced += bytes; };
  options.note = [](const std::string& message) { ADD_FAILURE() << message; };
  const std::string path = out_path("demo");
  quantize_model(source, path, options);
  EXPECT_EQ(advanced, quantize_bytes(source));
  const auto expected_bytes = read_bytes(folder + "/demo-q8_0.gguf"), bytes = read_bytes(path);
  const GgufFile expected = read_gguf(expected_bytes, "expected"), ours = read_gguf(bytes, "ours");
  ASSERT_EQ(ours.tensors.size(), expected.tensors.size());
  std::map<std::string, const GgufTensor*> by_name;
  for (const GgufTensor& tensor : ours.tensors) by_name[tensor.name] = &tensor;
  for (const GgufTensor& tensor : expected.tensors) {
    const GgufTensor* same = by_name[tensor.name];
    ASSERT_TRUE(same) << tensor.name;
    EXPECT_EQ(same->type, tensor.type) << tensor.name;
    EXPECT_EQ(same->dimensions, tensor.dimensions) << tensor.name;
    EXPECT_EQ(std::memcmp(bytes.data() + same->offset, expected_bytes.data() + tensor.offset, tensor.bytes),
              0)
        << tensor.name;
  }
  for (const auto& [key, value] : expected.metadata.values()) {
    if (key == "general.license") continue;
    const auto found = ours.metadata.values().find(key);
    ASSERT_TRUE(found != ours.metadata.values().end()) << key;
    EXPECT_TRUE(found->second == value) << key;
  }
  std::remove(path.c_str());
}

TEST(Quantize, MakesOneGgufFromAnother) {
  const Manifest source = read_manifest(demo_gguf());
  for (const TensorType type : {TensorType::kF16, TensorType::kQ4_0, TensorType::kQ8_0, TensorType::kQ6_K}) {
    if (test::kSanitized && type != TensorType::kQ8_0) continue;
    const std::string path = out_path("again");
    QuantizeOptions options;
    options.type = type;
    quantize_model(source, path, options);
    const Manifest after = read_manifest(path);
    expect_same_shapes(source, after);
    for (size_t i = 0; i < source.groups.size(); ++i)
      for (const Tensor& tensor : after.groups[i].tensors) {
        EXPECT_EQ(tensor.type, tensor.rows == 1 ? TensorType::kF32 : type) << tensor.name;
        const auto before = values_of(source, *source.groups[i].find(tensor.role));
        const double bound = type == TensorType::kQ4_0 ? 0.12 : type == TensorType::kQ6_K ? 0.03 : 0.001;
        EXPECT_LE(relative_error(before, values_of(after, tensor)), bound) << tensor.name;
      }
    for (const auto& [key, value] : source.metadata.values()) {
      if (key == "general.file_type") continue;
      EXPECT_TRUE(after.metadata.values().at(key) == value) << key;
    }
    std::remove(path.c_str());
  }
}

// The number of threads is no input.
TEST(Quantize, WritesTheSameFileWithAnyNumberOfThreads) {
  const Manifest source = read_manifest(demo_gguf());
  std::vector<std::vector<std::byte>> files;
  for (const uint32_t threads : {1u, 2u, 5u}) {
    if (test::kSanitized && threads == 5) continue;
    QuantizeOptions options;
    options.type = test::kSanitized ? TensorType::kF16 : TensorType::kQ4_0;
    options.threads = threads;
    const std::string path = out_path("threads");
    quantize_model(source, path, options);
    files.push_back(read_bytes(path));
    std::remove(path.c_str());
  }
  for (const auto& file : files) {
    ASSERT_EQ(file.size(), files[0].size());
    EXPECT_EQ(std::memcmp(file.data(), files[0].data(), file.size()), 0);
  }
}

TEST(Quantize, KeepsEveryReferenceFamily) {
  const std::string folder = CARAVAN_SOURCE_DIR "/tests/reference/cases/";
  for (const std::string family :
       {"llama", "llama_linear", "llama_tied", "llama_yarn", "mistral", "mixtral", "qwen2", "qwen3",
        "qwen3_moe", "qwen3_moe_rawprob", "granite", "smollm3", "olmo2"}) {
    const Manifest source = read_manifest(folder + family);
    const std::string path = out_path(family);
    QuantizeOptions options;
    options.type = TensorType::kF32;
    quantize_model(source, path, options);
    const Manifest after = read_manifest(path);
    expect_same_shapes(source, after);
    EXPECT_EQ(after.find({GroupId::Kind::kEmbed})->find(Role::kRopeFactors) != nullptr, family == "llama");
    const bool turned = family != "olmo2" && family.substr(0, 4) != "qwen";
    for (const WeightGroup& group : source.groups)
      for (const Tensor& tensor : group.tensors) {
        const auto before = values_of(source, tensor);
        const auto now = values_of(after, *after.find(group.id)->find(tensor.role));
        EXPECT_EQ(before == now, !(turned && is_turned(tensor.role))) << family << " " << tensor.name;
      }
    std::remove(path.c_str());
  }
}

// Row 2 i + j of a head in the file is row i + j * half of that head in the folder.
TEST(Quantize, TurnsRotaryHalvesIntoPairs) {
  const std::string folder = CARAVAN_SOURCE_DIR "/tests/reference/cases/mistral";
  const Manifest source = read_manifest(folder);
  const std::string path = out_path("turned");
  QuantizeOptions options;
  options.type = TensorType::kF32;
  quantize_model(source, path, options);
  const Manifest after = read_manifest(path);
  const GroupId id{GroupId::Kind::kAttention, 1};
  for (const Role role : {Role::kQuery, Role::kKey}) {
    const Tensor& tensor = *source.find(id)->find(role);
    const auto before = values_of(source, tensor), now = values_of(after, *after.find(id)->find(role));
    const size_t half = 8, columns = tensor.columns;
    for (size_t row = 0; row < tensor.rows; ++row) {
      const size_t head = row / 16 * 16, i = (row - head) / 2, j = row % 2;
      EXPECT_EQ(std::memcmp(&now[row * columns], &before[(head + i + j * half) * columns], 4 * columns), 0);
    }
  }
  std::remove(path.c_str());
}

TEST(Quantize, LeavesNothingWhenItFails) {
  const std::string path = testing::TempDir() + "no-such-folder/x.gguf";
  const Manifest source = read_manifest(demo_gguf());
  expect_error(ErrorCode::kNotFound, {"no-such-folder"}, [&] { quantize_model(source, path, {}); });
  Manifest broken = read_manifest(demo_gguf());
  for (WeightGroup& group : broken.groups) group.tensors.clear();
  broken.groups.clear();
  EXPECT_THROW(quantize_model(broken, out_path("broken"), {}), Error);
  EXPECT_FALSE(std::filesystem::exists(out_path("broken")));
}

}  // namespace
}  // namespace caravan
