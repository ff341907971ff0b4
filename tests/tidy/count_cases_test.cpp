// tools/count_cases.sh decides whether ./check may call itself green; it is shown reports of every kind here.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRan = R"(<testcase name="Ran" status="run" result="completed" classname="S" />)";
constexpr const char* kSkipped = R"(<testcase name="Skipped" status="run" result="skipped" classname="S">)";
constexpr const char* kDisabled =
    R"(<testcase name="DISABLED_It" status="notrun" result="suppressed" classname="S" />)";

struct Run {
  std::vector<std::string> cases;  // lines of the one report
  std::string allowed;             // the list of allowed skips
  int programs = 1;                // how many should report
  bool ci = true;
};

bool accepts(const Run& run) {
  const test::TemporaryFolder temporary;
  const fs::path folder = temporary.path();
  fs::create_directories(folder / "results/rel");
  std::ofstream report(folder / "results/rel/one.xml");
  for (const std::string& line : run.cases) report << line << "\n";
  report.close();
  std::ofstream(folder / "results/rel.programs") << run.programs << "\n";
  std::ofstream(folder / "allowed") << run.allowed;
  const std::string command = std::string("CI=") + (run.ci ? "true" : "") + " '" CARAVAN_SOURCE_DIR +
                              "/tools/count_cases.sh' '" + (folder / "results").string() + "' '" +
                              (folder / "allowed").string() + "' >/dev/null";
  return std::system(command.c_str()) == 0;
}

TEST(CountCases, ARunInWhichEverythingRanIsGood) {
  EXPECT_TRUE(accepts({{kRan}, ""}));
}

TEST(CountCases, NothingExecutedIsAFailure) {
  EXPECT_FALSE(accepts({{}, ""}));
  EXPECT_FALSE(accepts({{kSkipped}, "S.Skipped a reason\n"}));
}

TEST(CountCases, ASkipNeedsLeaveInCi) {
  EXPECT_FALSE(accepts({{kRan, kSkipped}, ""}));
  EXPECT_FALSE(accepts({{kRan, kSkipped}, "S.Skipped2 a name that only begins the same\n"}));
  EXPECT_FALSE(accepts({{kRan, kSkipped}, "S_Skipped a dot stands for itself\n"}));
  EXPECT_TRUE(accepts({{kRan, kSkipped}, "S.Skipped a reason\n"}));
  EXPECT_TRUE(accepts({{kRan, kSkipped}, "", 1, false})) << "a developer's machine may lack what CI has";
}

TEST(CountCases, ASkipForWantOfSharedIsAllowedOnlyWhereItIsAbsent) {
  const bool absent = !fs::is_directory(fs::path(CARAVAN_SOURCE_DIR) / "../shared");
  EXPECT_EQ(accepts({{kRan, kSkipped}, "S.Skipped it lies in ../shared\n"}), absent);
}

TEST(CountCases, ADisabledCaseIsAFailure) {
  EXPECT_FALSE(accepts({{kRan, kDisabled}, ""}));
}

TEST(CountCases, AProgramThatDoesNotReportIsAFailure) {
  EXPECT_FALSE(accepts({{kRan}, "", 2}));
}

}  // namespace
}  // namespace caravan
