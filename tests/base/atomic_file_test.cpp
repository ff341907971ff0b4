#include "base/atomic_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/error.h"

namespace caravan {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string content(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

class AtomicFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "caravan-atomic-" + std::to_string(::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  std::string folder_;
};

TEST_F(AtomicFileTest, AppearsWholeAndReplacesWhatWasThere) {
  const std::string path = folder_ + "/file";
  for (const std::string text : {"first", "second, which is longer"}) {
    AtomicFile file(path);
    file.append(bytes_of(text.substr(0, 3)));
    file.append(bytes_of(text.substr(3)));
    EXPECT_NE(content(path), text);
    EXPECT_EQ(file.bytes(), text.size());
    file.commit();
    EXPECT_EQ(content(path), text);
    EXPECT_EQ(entries(), 1u);
  }
}

TEST_F(AtomicFileTest, LeavesNothingWithoutCommit) {
  {
    AtomicFile file(folder_ + "/file");
    file.append(bytes_of("half of it"));
  }
  EXPECT_EQ(entries(), 0u);
}

TEST_F(AtomicFileTest, NamesWhatCannotBeWritten) {
  try {
    AtomicFile file(folder_ + "/missing/file");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(error.message().find("missing/file"), std::string::npos);
  }
  EXPECT_THROW(AtomicFile{folder_}, Error);
}

}  // namespace
}  // namespace caravan
