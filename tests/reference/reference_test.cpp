// What other implementations compute for tiny models, against ours: logits and hidden states within 1e-3 at
// every row, greedy ids equal. Cases in tests/reference/cases always run; those of the folder that
// CARAVAN_REFERENCE names (default ../shared/data/reference) run beside them when it is there. Families that
// are not known are listed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "model/families.h"
#include "tests/reference/case.h"
#include "tests/support/test_model.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-3;

struct Param {
  fs::path folder;
  bool old_spelling;
};

void PrintTo(const Param& param, std::ostream* out) {
  *out << param.folder.string() << (param.old_spelling ? " (config.v4.json)" : "");
}

fs::path reference_folder() {
  const char* given = std::getenv("CARAVAN_REFERENCE");
  return given ? fs::path(given) : shared_folder() / "data/reference";
}

// A folder that was asked for must be there.
TEST(ReferenceFolder, IsThereWhenItIsNamed) {
  if (std::getenv("CARAVAN_REFERENCE")) {
    EXPECT_TRUE(fs::is_directory(reference_folder())) << "CARAVAN_REFERENCE: " << reference_folder();
  }
  EXPECT_TRUE(fs::is_directory(fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases"));
}

std::vector<Param> find_cases() {
  std::vector<Param> params;
  std::set<std::string> others;
  for (const fs::path& root : {fs::path(CARAVAN_SOURCE_DIR) / "tests/reference/cases", reference_folder()}) {
    if (!fs::is_directory(root)) continue;
    std::set<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(root))
      if (fs::exists(entry.path() / "case.json")) folders.insert(entry.path());
    for (const fs::path& folder : folders) {
      // A broken case of a known family fails by itself.
      if (!family_is_known(model_type(folder))) {
        others.insert(folder.filename().string());
        continue;
      }
      params.push_back({folder, false});
      if (fs::exists(folder / "config.v4.json")) params.push_back({folder, true});
    }
  }
  if (!others.empty()) {
    std::printf("cases of families that are not known here:");
    for (const std::string& name : others) std::printf(" %s", name.c_str());
    std::printf("\n");
  }
  return params;
}

// The folder itself, or one with links to its files and the old config in the place of the new.
class CaseFolder {
 public:
  explicit CaseFolder(const Param& param) : path_(fs::absolute(param.folder)) {
    if (!param.old_spelling) return;
    std::string pattern = (fs::temp_directory_path() / "caravan-case-XXXXXX").string();
    const fs::path made = mkdtemp(pattern.data());
    for (const auto& entry : fs::directory_iterator(path_)) {
      const std::string name = entry.path().filename();
      if (name == "config.json") continue;
      fs::create_symlink(entry.path(), made / (name == "config.v4.json" ? "config.json" : name));
    }
    path_ = made_ = made;
  }
  ~CaseFolder() {
    if (!made_.empty()) fs::remove_all(made_);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_, made_;
};

class Reference : public testing::TestWithParam<Param> {};

TEST_P(Reference, LogitsAndHiddenStatesAgreeAtEveryRow) {
  const CaseFolder folder(GetParam());
  const Manifest manifest = read_manifest(folder.path().string());
  const ReferenceCase reference = read_case(folder.path());
  const Expected expected(folder.path());
  const uint32_t layers = manifest.layer_count;
  std::vector<uint32_t> cuts;  // one layer a stage, so that every hidden state is seen
  for (uint32_t i = 1; i < layers; ++i) cuts.push_back(i);
  TestModel model(manifest, cuts);
  for (size_t i = 0; i < reference.inputs.size(); ++i) {
    std::vector<std::vector<float>> stages;
    model.open(1);
    const auto rows = model.rows({{1, 0, reference.inputs[i]}}, &stages);
    model.close(1);
    const std::string suffix = "." + std::to_string(i);
    const std::vector<float> hidden = expected.tensor("hidden" + suffix);
    const size_t layer_size = rows.size();
    for (uint32_t k = 0; k < layers; ++k) {
      const std::vector<float> want(hidden.begin() + static_cast<long>(k * layer_size),
                                    hidden.begin() + static_cast<long>((k + 1) * layer_size));
      EXPECT_LE(worst_row(stages[k], want, model.spec().width), kTolerance)
          << "hidden state " << k << " of input " << i;
    }
    EXPECT_LE(worst_row(rows, expected.tensor("prenorm" + suffix), model.spec().width), kTolerance)
        << "input " << i;
    const std::vector<float> last(hidden.begin() + static_cast<long>(layers * layer_size), hidden.end());
    EXPECT_LE(worst_row(model.final_norm(rows), last, model.spec().width), kTolerance) << "input " << i;
    EXPECT_LE(worst_row(model.logits(rows), expected.tensor("logits" + suffix), model.spec().vocabulary),
              kTolerance)
        << "input " << i;
  }
}

TEST_P(Reference, GreedyIdsAreEqualTokenByTokenInChunksAndWhole) {
  const CaseFolder folder(GetParam());
  const Manifest manifest = read_manifest(folder.path().string());
  const ReferenceCase reference = read_case(folder.path());
  TestModel model(manifest);
  for (size_t i = 0; i < reference.inputs.size(); ++i)
    for (uint32_t chunk : {1u, 13u, 96u})
      EXPECT_EQ(model.greedy(reference.inputs[i], 24, chunk), reference.greedy[i])
          << "input " << i << " chunk " << chunk;
}

std::string test_name(const testing::TestParamInfo<Param>& info) {
  std::string name = info.param.folder.filename().string() + (info.param.old_spelling ? "_v4" : "") + "_" +
                     std::to_string(info.index);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Cases, Reference, testing::ValuesIn(find_cases()), test_name);

}  // namespace
}  // namespace caravan
