#include "daemon/compute_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace caravan {
namespace {

void wait_for(const std::atomic<int>& count, int wanted) {
  for (int i = 0; i < 5000 && count < wanted; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(count, wanted);
}

TEST(ComputeThread, RunsWhatWasPostedInOrderAndAllOfIt) {
  std::vector<int> ran;
  {
    ComputeThread thread;
    for (int i = 0; i < 20; ++i) thread.post([&ran, i] { ran.push_back(i); });
  }
  ASSERT_EQ(ran.size(), 20u);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ran[static_cast<size_t>(i)], i);
}

TEST(ComputeThread, DoesWhatIsLeftBetweenJobsUntilThatIsDone) {
  std::atomic<int> idled{0}, jobs{0};
  std::atomic<int> left{3};
  ComputeThread thread;
  thread.when_idle([&] {
    ++idled;
    return --left > 0;
  });
  wait_for(idled, 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(idled, 3) << "it waits for the next job";
  left = 2;
  thread.post([&] { ++jobs; });
  wait_for(idled, 5);
  EXPECT_EQ(jobs, 1);
}

TEST(ComputeThread, EndsThoughThereIsAlwaysMoreToDo) {
  std::atomic<int> idled{0}, jobs{0};
  {
    ComputeThread thread;
    thread.when_idle([&] {
      ++idled;
      return true;
    });
    while (idled < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (int i = 0; i < 10; ++i) thread.post([&] { ++jobs; });
  }
  EXPECT_EQ(jobs, 10);
}

}  // namespace
}  // namespace caravan
