#include "daemon/process_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "base/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

class ProcessFolderTest : public ::testing::Test {
 protected:
  ProcessFolderTest() { fs::create_directories(parent_); }
  ~ProcessFolderTest() override { fs::remove_all(parent_); }
  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(parent_)) found.insert(entry.path().filename());
    return found;
  }
  // A folder as that process would have it.
  void leave(const std::string& prefix, pid_t pid) const {
    fs::create_directories(parent_ + "/" + prefix + std::to_string(pid));
    std::ofstream(parent_ + "/" + prefix + std::to_string(pid) + "/file") << "text";
  }
  static pid_t dead_process() {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(0);
    ::waitpid(pid, nullptr, 0);
    return pid;
  }
  const std::string parent_ = fs::temp_directory_path() / ("process-folder-" + std::to_string(::getpid()));
  const std::string own_ = "bench-" + std::to_string(::getpid());
};

TEST_F(ProcessFolderTest, IsEmptyAndGoesWithItsOwner) {
  leave("bench-", ::getpid());  // of a process before this one that had its number
  {
    const ProcessFolder folder(parent_, "bench-");
    EXPECT_EQ(folder.path(), parent_ + "/" + own_);
    EXPECT_TRUE(fs::is_empty(folder.path()));
    std::ofstream(folder.path() + "/file") << "text";
  }
  EXPECT_TRUE(names().empty());
}

TEST_F(ProcessFolderTest, TakesWhatTheKilledLeftAndNothingElse) {
  const pid_t dead = dead_process();
  leave("bench-", dead);
  leave("local-", dead);
  leave("bench-", ::getppid());
  leave("bench-x", dead);
  const ProcessFolder folder(parent_, "bench-");
  EXPECT_EQ(names(), (std::set<std::string>{own_, "local-" + std::to_string(dead),
                                            "bench-" + std::to_string(::getppid()),
                                            "bench-x" + std::to_string(dead)}));
}

TEST_F(ProcessFolderTest, SaysWhatToDoWhereNothingCanBeMade) {
  std::ofstream(parent_ + "/file") << "text";
  try {
    const ProcessFolder folder(parent_ + "/file", "bench-");
    FAIL() << "a folder in a file";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(error.message().find("--state"), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace caravan
