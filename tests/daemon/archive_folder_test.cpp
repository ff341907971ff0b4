#include "daemon/archive_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "store/rocks_store.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

class ArchiveFolder : public testing::Test {
 protected:
  std::unique_ptr<KvArchive> open() {
    return open_archive({folder_.path() + "/archive", Bytes{1u << 20}, std::nullopt}, clock_);
  }
  std::string store() const { return folder_.path() + "/archive/store"; }
  void overwrite(const std::string& name, const std::string& text) {
    for (const auto& entry : fs::directory_iterator(store()))
      if (entry.path().filename().string().rfind(name, 0) == 0)
        std::ofstream(entry.path(), std::ios::trunc) << text;
  }

  test::TemporaryFolder folder_;
  SystemClock clock_;
};

TEST_F(ArchiveFolder, ADamagedOneIsBegunAnew) {
  EXPECT_NE(open(), nullptr);
  overwrite("MANIFEST", "not a manifest, whatever it is called");
  EXPECT_NE(open(), nullptr);
  EXPECT_NE(open(), nullptr);
}

TEST_F(ArchiveFolder, OneOfAnotherVersionIsLeftAsItIs) {
  EXPECT_NE(open(), nullptr);
  overwrite("CARAVAN", "caravan store 999\n");
  EXPECT_EQ(open(), nullptr);
  EXPECT_TRUE(fs::exists(store() + "/CURRENT"));
}

TEST_F(ArchiveFolder, OneOfAnOlderVersionIsBegunAnew) {
  EXPECT_NE(open(), nullptr);
  {
    RocksStore rocks(folder_.path() + "/archive", {"bulk.kv", "index"});
    rocks.family("index")->put("meta", "caravan kv archive 1\n0 0 0 1");
  }
  EXPECT_NE(open(), nullptr);
  RocksStore rocks(folder_.path() + "/archive", {"bulk.kv", "index"});
  EXPECT_EQ(rocks.family("index")->get("meta")->rfind("caravan kv archive 3\n", 0), 0u);
}

TEST_F(ArchiveFolder, WhatIsOfNoProcessHereAnyMoreGoes) {
  const std::string archive = folder_.path() + "/archive";
  const auto there = [&](const std::string& name) { return fs::exists(archive + name + "/store/CURRENT"); };
  for (const char* name : {"", "/peer-1", "/peer-2", "/peer-10", "/peer-2b"})
    RocksStore(archive + name, {"bulk.kv", "index"});
  remove_other_archives(archive, true, 2);
  EXPECT_TRUE(there("") && there("/peer-1") && there("/peer-2") && there("/peer-2b"));
  EXPECT_FALSE(fs::exists(archive + "/peer-10"));
  remove_other_archives(archive, false, 1);
  EXPECT_TRUE(there("/peer-1") && there("/peer-2b"));
  EXPECT_FALSE(there("") || there("/peer-2"));
  EXPECT_NO_THROW(remove_other_archives(folder_.path() + "/nothing", false, 0));
}

TEST_F(ArchiveFolder, TheSecondGoesWithout) {
  const auto first = open();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(open(), nullptr);
}

}  // namespace
}  // namespace caravan
