#include "daemon/archive_key.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

TEST(ArchiveKey, IsMadeOnceAndForTheOwnerAlone) {
  TemporaryFolder folder, other;
  SystemRandom random;
  const auto made = load_archive_key(folder.path(), random);
  ASSERT_TRUE(made);
  EXPECT_EQ(load_archive_key(folder.path(), random), made);
  EXPECT_NE(load_archive_key(other.path(), random), made);
  struct stat status {};
  ASSERT_EQ(stat((folder.path() + "/keys/archive.key").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST(ArchiveKey, WithoutOneArchivesAreNotUsed) {
  TemporaryFolder folder;
  SystemRandom random;
  load_archive_key(folder.path(), random);
  const std::string path = folder.path() + "/keys/archive.key";
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  EXPECT_FALSE(load_archive_key(folder.path(), random)) << "others may read it";
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  fs::resize_file(path, 40);
  EXPECT_FALSE(load_archive_key(folder.path(), random)) << "damaged";
  EXPECT_EQ(fs::file_size(path), 40u) << "it is left alone";
  std::ofstream(folder.path() + "/file") << "no folder";
  EXPECT_FALSE(load_archive_key(folder.path() + "/file", random));
}

}  // namespace
}  // namespace caravan
