#include "daemon/event_loop.h"

#include <gtest/gtest.h>

#include <csignal>
#include <stdexcept>
#include <thread>
#include <vector>

namespace caravan {
namespace {

using namespace std::chrono_literals;

TEST(EventLoop, TasksOfOtherThreadsRunInOrderOnTheLoopsThread) {
  EventLoop loop;
  std::vector<int> seen;
  std::thread poster([&] {
    for (int i = 0; i < 1000; ++i) loop.post([&seen, i] { seen.push_back(i); });
    loop.post([&] { loop.stop(); });
  });
  loop.run();
  poster.join();
  ASSERT_EQ(seen.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
}

TEST(EventLoop, PostNeverRunsInsideTheCall) {
  EventLoop loop;
  bool ran = false, inside = false;
  loop.post([&] {
    loop.post([&] { ran = true; });
    inside = ran;
  });
  EXPECT_TRUE(loop.run_until([&] { return ran; }, 5s));
  EXPECT_FALSE(inside);
}

TEST(EventLoop, TimersRunOnceInOrderOfTimeAndCancelHolds) {
  EventLoop loop;
  std::vector<int> seen;
  loop.after(20ms, [&] { seen.push_back(2); });
  loop.after(1ms, [&] { seen.push_back(1); });
  const TimerId never = loop.after(5ms, [&] { seen.push_back(0); });
  loop.cancel(never);
  loop.cancel(never);
  EXPECT_TRUE(loop.run_until([&] { return seen.size() == 2; }, 5s));
  EXPECT_FALSE(loop.run_until([&] { return seen.size() > 2; }, 20ms));
  EXPECT_EQ(seen, (std::vector<int>{1, 2}));
}

TEST(EventLoop, ATimerThatIsDueCanStillBeCancelled) {
  EventLoop loop;
  bool second = false;
  TimerId other;
  loop.after(0ns, [&] { loop.cancel(other); });
  other = loop.after(0ns, [&] { second = true; });
  std::this_thread::sleep_for(2ms);  // both are due before the loop first looks
  EXPECT_FALSE(loop.run_until([&] { return second; }, 20ms));
}

TEST(EventLoop, StopBeforeRunIsNotLostAndTheLoopRunsAgain) {
  EventLoop loop;
  loop.stop();
  loop.run();
  bool ran = false;
  loop.post([&] {
    ran = true;
    loop.stop();
  });
  loop.run();
  EXPECT_TRUE(ran);
}

TEST(EventLoop, AnExceptionOfATaskLeavesRun) {
  EventLoop loop;
  loop.post([] { throw std::runtime_error("from a task"); });
  EXPECT_THROW(loop.run(), std::runtime_error);
}

TEST(EventLoop, SignalsArriveAsTasksEveryTime) {
  EventLoop loop;
  std::vector<int> seen;
  loop.on_signal([&](int signal) { seen.push_back(signal); });
  std::raise(SIGINT);
  ASSERT_TRUE(loop.run_until([&] { return seen.size() == 1; }, 5s));
  std::raise(SIGTERM);
  ASSERT_TRUE(loop.run_until([&] { return seen.size() == 2; }, 5s));
  EXPECT_EQ(seen, (std::vector<int>{SIGINT, SIGTERM}));
}

}  // namespace
}  // namespace caravan
