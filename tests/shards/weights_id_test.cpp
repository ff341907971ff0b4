#include "shards/weights_id.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "store_fixture.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// Each file goes, and one with the same size and times comes in its place.
void replace_files(const std::string& folder) {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // file systems count in fewer steps than we
  const std::string copies = folder + ".copies";
  fs::copy(folder, copies);
  for (const auto& copy : fs::directory_iterator(copies)) {
    const fs::path place = fs::path(folder) / copy.path().filename();
    const auto modified = fs::last_write_time(place);
    fs::remove(place);
    fs::rename(copy.path(), place);
    fs::last_write_time(place, modified);
  }
  fs::remove_all(copies);
}

// One of the two may have been damaged where nobody looked.
TEST_F(StoreTest, WeightsInFilesAreOthersOnceAFileWasReplaced) {
  open();
  const std::string path = write({}, "one");
  const Hash256 by_path = weights_id(read_manifest(path));
  EXPECT_EQ(weights_id(read_manifest(path)), by_path);
  replace_files(path);
  EXPECT_NE(weights_id(read_manifest(path)), by_path);

  import(path, false);
  const Hash256 by_name = weights_id(opened(store_, "one"));
  EXPECT_EQ(weights_id(opened(store_, "one")), by_name);
  replace_files(path);
  EXPECT_NE(weights_id(opened(store_, "one")), by_name);
}

TEST_F(StoreTest, WeightsInAStoreAreTheirContent) {
  open();
  const std::string path = write({}, "one");
  import(path);
  const Hash256 before = weights_id(opened(store_, "one"));
  replace_files(path);
  EXPECT_EQ(weights_id(opened(store_, "one")), before);
  fs::remove_all(path);
  EXPECT_EQ(weights_id(opened(store_, "one")), before);
  import(write({.weights = 2}, "two"));
  EXPECT_NE(weights_id(opened(store_, "two")), before);
}

}  // namespace
}  // namespace caravan
