#include "daemon/archive_folder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

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

TEST_F(ArchiveFolder, TheSecondGoesWithout) {
  const auto first = open();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(open(), nullptr);
}

}  // namespace
}  // namespace caravan
