#include "daemon/running.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace caravan {
namespace {

struct RunningTest : ::testing::Test {
  RunningTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "caravan_running_XXXXXX").string();
    folder = ::mkdtemp(pattern.data());
  }
  ~RunningTest() override { std::filesystem::remove_all(folder); }
  void write(const std::string& text) { std::ofstream(folder + "/running.json") << text; }
  RunningHead head(int64_t pid) const { return {pid, "127.0.0.1:8080", "127.0.0.1:9000", "tales"}; }

  std::string folder;
};

TEST_F(RunningTest, AHeadIsFoundWhileItRuns) {
  EXPECT_FALSE(find_running(folder));
  {
    RunningFile file(folder, head(::getpid()));
    EXPECT_EQ(find_running(folder), head(::getpid()));
    EXPECT_EQ(require_running(folder), head(::getpid()));
    struct stat info {};
    ASSERT_EQ(::stat((folder + "/running.json").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0600u);
  }
  EXPECT_FALSE(find_running(folder));
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

// Its process id may be another's by now, or that of one that nobody has waited for.
TEST_F(RunningTest, TheFileOfAKilledHeadCountsAsNoneWhoeverHasItsId) {
  const pid_t child = ::fork();
  if (child == 0) {
    const RunningFile file(folder, head(::getppid()));
    ::raise(SIGKILL);
  }
  siginfo_t ended{};
  ::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT);
  ASSERT_TRUE(std::filesystem::exists(folder + "/running.json"));
  EXPECT_FALSE(find_running(folder));
  RunningFile file(folder, head(::getpid()));
  EXPECT_EQ(find_running(folder), head(::getpid()));
  ::waitpid(child, nullptr, 0);
}

TEST_F(RunningTest, ASecondHeadIsRefusedNamingTheFirst) {
  RunningFile file(folder, head(::getppid()));
  try {
    RunningFile second(folder, head(::getpid()));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kRefused);
    EXPECT_NE(error.message().find(std::to_string(::getppid())), std::string::npos);
    EXPECT_NE(error.message().find("--state"), std::string::npos);
  }
  EXPECT_EQ(find_running(folder)->pid, ::getppid());
}

TEST_F(RunningTest, TheFileOfALaterHeadIsLeftAlone) {
  {
    RunningFile file(folder, head(::getpid()));
    write(R"({"pid":1,"api":"127.0.0.1:1"})");
  }
  EXPECT_TRUE(std::filesystem::exists(folder + "/running.json"));
}

TEST_F(RunningTest, WithoutAHeadTheErrorSaysHowToStartOne) {
  try {
    require_running(folder);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_NE(error.message().find("caravan serve"), std::string::npos);
  }
}

TEST_F(RunningTest, ABrokenFileIsAnErrorButDoesNotStopANewHead) {
  for (const char* text :
       {"", "{", "[]", "{\"pid\":\"x\",\"api\":\"\"}", "{\"pid\":1}", "{\"pid\":1,\"api\":2}"}) {
    write(text);
    EXPECT_THROW(find_running(folder), Error) << text;
    EXPECT_NO_THROW(RunningFile(folder, head(::getpid()))) << text;
  }
}

TEST_F(RunningTest, AFolderThatCannotBeWrittenIsNamedWithTheFlag) {
  try {
    RunningFile file(folder + "/absent", head(::getpid()));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(error.message().find("--state"), std::string::npos);
  }
}

}  // namespace
}  // namespace caravan
