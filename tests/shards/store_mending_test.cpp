#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fixtures.h"
#include "shards/store_verify.h"
#include "store_fixture.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// Of what is damaged in the store, what other models' files hold. The first model, "x", is copied and its
// files are gone.
class MendingTest : public StoreTest {
 protected:
  // Also of the other model, by reference, if there is one.
  void import_both(const RandomModel& first, const RandomModel* second = nullptr) {
    open();
    const std::string x = write(first, "x");
    original_ = read_manifest(write(first, "kept"));
    import(x);
    if (second) {
      other_ = write(*second, "y");
      import(other_, false);
    }
    fs::remove_all(x);
  }
  void damage_all() {
    for (const std::string& key : bulk_->keys()) bulk_->value(key)->back() ^= std::byte{4};
  }
  std::vector<Finding> verify() { return verify_model(*store_, *store_->find_model("x"), {}); }
  size_t noted() const {
    size_t count = 0;
    records_->scan("damaged/", [&](std::string_view, std::string_view) { return ++count, true; });
    return count;
  }
  void expect_unreadable() {
    const Manifest manifest = opened(store_, "x");
    std::vector<std::byte> some(8);
    expect_error(ErrorCode::kMalformed,
                 {"embed of x", "chunk 0", "import the model again from a good file, under any name"},
                 [&] { manifest.source->read(0, 0, some); });
  }

  // Each group is read as it was, or refused as damaged.
  size_t groups_refused(const Manifest& manifest) const {
    size_t refused = 0;
    for (uint32_t i = 0; i < original_.groups.size(); ++i) {
      std::vector<std::byte> expected(original_.groups[i].bytes().count), found(expected.size());
      read_content(*original_.source, original_.groups[i], 0, expected);
      try {
        manifest.source->read(i, 0, found);
        EXPECT_TRUE(found == expected);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kMalformed);
        ++refused;
      }
    }
    return refused;
  }

  Manifest original_;
  std::string other_;
};

TEST_F(MendingTest, AGroupIsReadAndMendedFromAnotherModelsFile) {
  const RandomModel model{.tied = true, .layers = 2, .vocabulary = 9000, .width = 64};
  import_both(model, &model);
  damage_all();
  expect_same_model(original_, opened(store_, "x"));
  const auto findings = verify();
  EXPECT_GE(findings.size(), original_.groups.size());
  for (const Finding& finding : findings)
    EXPECT_EQ(finding.mended, "written again from " + other_ + "/model.safetensors") << finding.group;
  EXPECT_TRUE(verify().empty());
  fs::remove_all(other_);
  expect_same_model(original_, opened(store_, "x"));
}

TEST_F(MendingTest, WhatAnotherModelSharesIsMendedAndTheRestIsNoted) {
  const RandomModel model{.layers = 2}, less{.layers = 1};
  import_both(model, &less);
  damage_all();
  size_t mended = 0;
  for (const Finding& finding : verify()) mended += !finding.mended.empty();
  EXPECT_EQ(mended, 4u) << "embed, two of a layer, output";
  EXPECT_EQ(noted(), 2u);
}

TEST_F(MendingTest, FilesThatAreNotAsTheyWereAreNoPlaceToReadFrom) {
  const RandomModel model;
  import_both(model, &model);
  damage_all();
  std::ofstream(other_ + "/model.safetensors", std::ios::app) << " ";
  expect_unreadable();
  for (const Finding& finding : verify()) EXPECT_TRUE(finding.mended.empty()) << finding.group;
}

// The second half of a model's bytes are others, and its time is as it was.
void change_behind_the_time(const std::string& folder) {
  const std::string file = folder + "/model.safetensors";
  const auto time = fs::last_write_time(file);
  std::string bytes;
  {
    std::ifstream in(file, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  for (size_t i = bytes.size() / 2; i < bytes.size(); ++i) bytes[i] = static_cast<char>(bytes[i] ^ 1);
  std::ofstream(file, std::ios::binary) << bytes;
  fs::last_write_time(file, time);
}

TEST_F(MendingTest, FilesWithOtherBytesBehindTheSameTimeAreNoPlaceToReadFrom) {
  const RandomModel model;
  import_both(model, &model);
  const std::string third = write(model, "z");
  import(third, false);
  damage_all();
  change_behind_the_time(other_);
  expect_same_model(original_, opened(store_, "x"));
  change_behind_the_time(third);
  const Manifest manifest = opened(store_, "x");
  const size_t refused = groups_refused(manifest);
  EXPECT_GT(refused, 0u);
  EXPECT_LT(refused, original_.groups.size());
}

TEST_F(MendingTest, AFileThatIsWrittenToWhileItStandsInIsLeft) {
  const RandomModel model;
  import_both(model, &model);
  const std::string third = write(model, "z");
  import(third, false);
  damage_all();
  const Manifest manifest = opened(store_, "x");
  expect_same_model(original_, manifest);
  change_behind_the_time(other_);
  EXPECT_GT(groups_refused(manifest), 0u);
  EXPECT_EQ(groups_refused(manifest), 0u) << "the third has it";
}

TEST_F(MendingTest, WhatTheDiskDoesNotGiveOutIsReadFromAnotherModelsFile) {
  const RandomModel model;
  import_both(model, &model);
  inject_ = [](MemoryBulk::Operation operation, std::string_view) {
    return operation == MemoryBulk::Operation::kRead ? MemoryBulk::Fault::kIo : MemoryBulk::Fault::kNone;
  };
  expect_same_model(original_, opened(store_, "x"));
}

TEST_F(MendingTest, FilesWithOtherBytesBehindTheSameTimeMendNothing) {
  const RandomModel model;
  import_both(model, &model);
  damage_all();
  change_behind_the_time(other_);
  size_t mended = 0, left = 0;
  for (const Finding& finding : verify()) ++(finding.mended.empty() ? left : mended);
  EXPECT_GT(mended, 0u);
  EXPECT_GT(left, 0u);
  EXPECT_EQ(verify().size(), left) << "wrong bytes were stored";
}

TEST_F(MendingTest, AnImportByAnyNameIsTheWayOut) {
  const RandomModel model;
  import_both(model);
  damage_all();
  expect_unreadable();
  other_ = write(model, "y");
  import(other_, false);
  expect_same_model(original_, opened(store_, "x"));
  for (const Finding& finding : verify()) EXPECT_FALSE(finding.mended.empty()) << finding.group;
  EXPECT_TRUE(verify().empty());
}

// Also in another life of the store, and with no more room than it takes.
TEST_F(MendingTest, ACopyWritesAnewWhatVerifyCalledDamaged) {
  const RandomModel model{.tied = true, .layers = 2, .width = 32};
  import_both(model);
  const uint64_t whole = bulk_->bytes().count;
  damage_all();
  EXPECT_EQ(import(write(model, "y")).copied_bytes, 0u) << "nobody has looked";
  fs::remove_all(folder_.path() + "/y");
  for (const Finding& finding : verify()) EXPECT_TRUE(finding.mended.empty()) << finding.group;
  open();
  const Manifest good = read_manifest(write(model, "z"));
  ImportOptions options;
  options.copy = true;
  options.limit = whole + whole / 2;
  expect_error(ErrorCode::kOutOfMemory, {"would be copied"}, [&] { import_model(*store_, good, options); });
  options.limit = whole * 9 / 4;
  EXPECT_EQ(import_model(*store_, good, options).copied_bytes, whole - 8 * bulk_->keys().size());
  EXPECT_EQ(bulk_->bytes().count, whole) << "the damaged bytes are still there";
  fs::remove_all(good.path);
  EXPECT_TRUE(verify().empty());
  expect_same_model(original_, opened(store_, "x"));
  open();
  EXPECT_EQ(noted(), 0u);
  EXPECT_EQ(import(write(model, "last")).copied_bytes, 0u);
}

TEST_F(MendingTest, OfAGroupThatIsGoneOrGoodAgainNoDamageIsNoted) {
  const RandomModel model;
  import_both(model);
  damage_all();
  verify();
  EXPECT_EQ(noted(), original_.groups.size());
  damage_all();  // which takes it back
  EXPECT_TRUE(verify().empty());
  EXPECT_EQ(noted(), 0u);
  damage_all();
  verify();
  remove_model(*store_, *store_->find_model("x"));
  open();
  EXPECT_EQ(noted(), 0u);
}

}  // namespace
}  // namespace caravan
