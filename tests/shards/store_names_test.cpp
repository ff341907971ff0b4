// Names, fingerprints and paths by which the store knows a model.
#include <gtest/gtest.h>

#include <filesystem>

#include "shards/store_verify.h"
#include "store_fixture.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

TEST_F(StoreTest, NamesAndFingerprintsFindOneModel) {
  open();
  const ModelRecord one = import(write({.weights = 1}, "one"), false).record;
  import(write({.weights = 2}, "two"), false);
  EXPECT_EQ(store_->find_model("two")->name(), "two");
  EXPECT_EQ(store_->find_model(to_string(one.fingerprint).substr(0, 8))->name(), "one");
  EXPECT_FALSE(store_->find_model(to_string(one.fingerprint).substr(0, 7)));
  EXPECT_FALSE(store_->find_model("three"));
  ImportOptions options;
  options.name = "one";
  expect_error(ErrorCode::kInvalidArgument, {"one", "--name"},
               [&] { import_model(*store_, read_manifest(folder_.path() + "/two"), options); });
  options.name = "a/b";
  expect_error(ErrorCode::kInvalidArgument, {"a/b"},
               [&] { import_model(*store_, read_manifest(folder_.path() + "/two"), options); });
  options.name = "other";
  import_model(*store_, read_manifest(folder_.path() + "/two"), options);
  EXPECT_TRUE(store_->find_model("other"));
  EXPECT_TRUE(store_->find_model("two")) << "a second name takes nothing away";
  import(folder_.path() + "/two");
  EXPECT_THROW(import_model(*store_, opened(store_, "two"), {.copy = true}), Error)
      << "copies nothing of a copy";
}

TEST_F(StoreTest, TheSameContentKeepsEveryNameItWasImportedUnder) {
  open();
  const std::string one = write({}, "one"), two = write({}, "two");
  import(one, false);
  const ImportResult second = import(two, false);
  EXPECT_FALSE(second.earlier);
  ASSERT_EQ(second.others.size(), 1u);
  EXPECT_EQ(second.others[0].name(), "one");
  EXPECT_EQ(opened(store_, "one").path, fs::canonical(one).string()) << "the first path stays its own";
  EXPECT_EQ(opened(store_, "two").path, fs::canonical(two).string());
  const std::string digits = to_string(second.record.fingerprint).substr(0, 8);
  expect_error(ErrorCode::kInvalidArgument, {"one", "two", digits}, [&] { store_->find_model(digits); });
  // A copy is made once, and is that name's alone.
  import(two);
  EXPECT_FALSE(store_->find_model("one")->copied);
  const uint64_t once = bulk_->bytes().count;
  EXPECT_EQ(import(one).copied_bytes, 0u);
  EXPECT_EQ(bulk_->bytes().count, once);
  EXPECT_EQ(remove_model(*store_, *store_->find_model("one")), 0u);
  EXPECT_EQ(store_->find_model(digits)->name(), "two");
  expect_same_model(read_manifest(two), opened(store_, "two"));
  EXPECT_EQ(remove_model(*store_, *store_->find_model("two")), once);
}

TEST_F(StoreTest, AnImportExchangesNoFileThatIsAsItWas) {
  open();
  const std::string path = write({}, "here/model"), other = write({}, "there/model");
  import(path, false);
  ImportResult again = import(path, false);
  ASSERT_TRUE(again.earlier);
  EXPECT_EQ(again.changed, "");
  again = import(other);
  EXPECT_EQ(again.record.manifest.path, fs::canonical(path).string());
  EXPECT_EQ(again.earlier->manifest.path, again.record.manifest.path);
  EXPECT_TRUE(again.record.copied) << "what was asked for is done all the same";
  fs::rename(path, path + "-away");
  again = import(other, false);
  EXPECT_NE(again.changed.find("model.safetensors"), std::string::npos) << again.changed;
  EXPECT_EQ(again.record.manifest.path, fs::canonical(other).string());
  EXPECT_TRUE(again.record.copied) << "a copy stays one";
  ASSERT_EQ(store_->models().size(), 1u);
}

TEST_F(StoreTest, ARecordWhoseKeyHasNoNameIsReplacedInPlace) {
  open();
  const std::string path = write({}, "model");
  const ModelRecord record = import(path, false).record;
  const std::string key = "model/" + to_string(record.fingerprint);
  records_->put(key, encode_model_record(record));
  records_->erase(key + "/model");
  import(path);
  ASSERT_EQ(store_->models().size(), 1u);
  EXPECT_TRUE(store_->find_model("model")->copied);
  remove_model(*store_, *store_->find_model("model"));
  EXPECT_TRUE(store_->models().empty());
}

// What takes little to be written again makes the room for what takes more, wherever it stands.
TEST_F(StoreTest, RemovingNeedsNoMoreRoomThanItFrees) {
  constexpr uint64_t kRoom = 900'000;
  bulk_ = std::make_shared<MemoryBulk>(nullptr, Bytes{kRoom});
  open(300'000);
  const RandomModel small{.layers = 1, .vocabulary = 500, .width = 64};
  RandomModel large = small;
  large.layers = 4;  // the same groups, and others between them in the same tables
  import(write(large, "large"));
  EXPECT_EQ(import(write(small, "small")).copied_bytes, 0u);
  const uint64_t before = bulk_->bytes().count;
  EXPECT_LT(kRoom - before, 200'000u) << "there is room to write the first table again";
  remove_model(*store_, *store_->find_model("large"));
  EXPECT_EQ(store_->unused_bytes(store_->find_model("small")->hashes), 0u);
  expect_same_model(read_manifest(folder_.path() + "/small"), opened(store_, "small"));
}

}  // namespace
}  // namespace caravan
