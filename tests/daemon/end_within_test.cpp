#include "daemon/end_within.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace caravan {
namespace {

using std::chrono::milliseconds;

// How long a process lives that ends within 50 ms, computes for ever, and begins at once to save something
// for so long.
milliseconds life_of(milliseconds saves) {
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = ::fork();
  if (child == 0) {
    const Saving saving = std::make_shared<std::atomic<bool>>(saves.count() > 0);
    end_within(milliseconds(50), 7, saving);
    std::this_thread::sleep_for(saves);
    *saving = false;
    for (;;) ::pause();
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
  return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start);
}

TEST(EndWithin, WaitsForWhatIsSavedAndForNothingElse) {
  EXPECT_LT(life_of(milliseconds(0)), milliseconds(400));
  const milliseconds saved = life_of(milliseconds(500));
  EXPECT_GE(saved, milliseconds(500));
  EXPECT_LT(saved, milliseconds(1500));
}

TEST(EndWithin, SavingForEverEndsToo) {
  EXPECT_LT(life_of(std::chrono::hours(1)), milliseconds(5000));
}

}  // namespace
}  // namespace caravan
