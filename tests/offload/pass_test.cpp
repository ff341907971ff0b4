// One pass of the cycle, where the answer can be worked out by hand.
#include "offload/pass.h"

#include <gtest/gtest.h>

#include <vector>

namespace caravan {
namespace {

PassItem kept(double compute) {
  PassItem item;
  item.compute = compute;
  return item;
}

// Takes one unit of the window.
PassItem streamed(double compute, double read) {
  PassItem item = kept(compute);
  item.read = read;
  item.room = 1;
  return item;
}

// Takes one unit of the window of what is chosen; chosen at the beginning of one step, and read from that of
// another on.
PassItem chosen(double compute, double read, uint32_t at, uint32_t from) {
  PassItem item = streamed(compute, read);
  item.chosen = true;
  item.chosen_at = at;
  item.read_from = from;
  return item;
}
PassItem chosen(double compute, double read, uint32_t at) {
  return chosen(compute, read, at, at);
}

double seconds_of(const std::vector<PassItem>& items, uint64_t window, uint64_t chosen_window = 0) {
  return pass_time(items, {window, 1, 1, chosen_window}).seconds;
}

TEST(Pass, WithoutReadsIsItsArithmetic) {
  EXPECT_DOUBLE_EQ(seconds_of({kept(1), kept(2), kept(0.5)}, 0), 3.5);
}

TEST(Pass, OfStreamedPagesIsTheLongerOfReadingAndComputing) {
  EXPECT_NEAR(seconds_of({streamed(1, 3), streamed(1, 3), streamed(1, 3)}, 2), 9, 1e-9);
  EXPECT_NEAR(seconds_of({streamed(3, 1), streamed(3, 1), streamed(3, 1)}, 2), 9, 1e-9);
}

// To the last bit: of passes that take the same time, the planner takes the one that reads least.
TEST(Pass, WhatCanBeHiddenWhollyAddsNothingToTheLeast) {
  for (int i = 1; i < 1000; ++i) {
    const double compute = 1.0 / i, read = compute * (1 - 0.0007 * i);
    EXPECT_EQ(least_pass_seconds(compute, read, 0, 0, {0, 1, 1}), compute);
  }
}

// The page that is in use fills the window: reading and computing take turns.
TEST(Pass, WithAWindowOfOnePageHidesNothing) {
  EXPECT_NEAR(seconds_of({streamed(1, 3), streamed(2, 3), streamed(1, 3)}, 1), 13, 1e-9);
}

TEST(Pass, ReadsWhileKeptPagesAreUsed) {
  std::vector<PassItem> items(9, kept(1));
  items.push_back(streamed(1, 5));
  EXPECT_NEAR(seconds_of(items, 2), 10, 1e-9);
  // The page itself is in use for one second, and the rest of the cycle is shorter than its read.
  items.back().read = 12;
  EXPECT_NEAR(seconds_of(items, 1), 13, 1e-9);
}

TEST(Pass, IsShorterWhenKeptPagesAreSpread) {
  std::vector<PassItem> spread, bunched;
  for (int i = 0; i < 10; ++i) {
    spread.push_back(kept(1));
    spread.push_back(streamed(1, 2));
    bunched.insert(bunched.begin(), kept(1));
    bunched.push_back(streamed(1, 2));
  }
  EXPECT_NEAR(seconds_of(spread, 2), 20, 1e-9);
  EXPECT_GT(seconds_of(bunched, 2), 25);
}

TEST(Pass, ReadsWhatIsChosenNoSoonerThanTheChoice) {
  // The one before the choice, then a read with nothing to compute, then both; the last one computes alone.
  EXPECT_NEAR(seconds_of({kept(5), chosen(1, 2, 1), chosen(1, 2, 1), chosen(1, 2, 1)}, 0, 3), 5 + 6 + 1,
              1e-9);
  EXPECT_NEAR(seconds_of({kept(5), chosen(2, 1, 1), chosen(2, 1, 1), chosen(2, 1, 1)}, 0, 3), 5 + 1 + 6,
              1e-9);
  // What is kept of the choice hides the first read.
  EXPECT_NEAR(seconds_of({kept(5), kept(4), chosen(1, 2, 1), chosen(1, 2, 1)}, 0, 2), 5 + 4 + 2, 1e-9);
}

TEST(Pass, TakesTurnsWhereThereIsNoRoomToReadWhileOneIsUsed) {
  EXPECT_NEAR(seconds_of({kept(5), chosen(2, 3, 1), chosen(2, 3, 1), chosen(2, 3, 1)}, 0, 1), 5 + 3 * 5,
              1e-9);
  EXPECT_NEAR(seconds_of({kept(5), chosen(2, 3, 1), chosen(2, 3, 1), chosen(2, 3, 1)}, 0, 2), 5 + 9 + 2,
              1e-9);
}

TEST(Pass, ReadsAheadOfTheChoiceAsFarAsItsWindow) {
  // Two layers of attention and two pages; the second one's are read from the first one's choice on.
  std::vector<PassItem> items = {kept(4), chosen(1, 1, 1),    chosen(1, 1, 1),
                                 kept(4), chosen(1, 1, 4, 1), chosen(1, 1, 4, 1)};
  EXPECT_NEAR(seconds_of(items, 0, 4), 12 + 1, 1e-9);
  // With room for one page only, that one: of the other three reads nothing hides.
  EXPECT_NEAR(seconds_of(items, 0, 1), 12 + 3, 1e-9);
  // The choice of the next pass's first layer is not guessed: its first read is waited for, however much
  // room.
  EXPECT_NEAR(seconds_of(items, 0, 100), 12 + 1, 1e-9);
}

TEST(Pass, GivesWhatIsChosenTheDiskBeforeReadsAheadAndThoseBeforeGuesses) {
  // 4 s of compute and 3 s of reads; the chosen second is waited for, the rest is read beside the others.
  EXPECT_NEAR(seconds_of({chosen(2, 1, 0), streamed(1, 1), streamed(1, 1)}, 2, 1), 5, 1e-9);
  // A guess takes the disk while the window is full, and not before what is surely needed.
  EXPECT_NEAR(seconds_of({streamed(3, 1), kept(1), chosen(2, 2, 2, 0)}, 1, 1), 6, 1e-9);
  EXPECT_NEAR(seconds_of({streamed(3, 1), kept(1), chosen(2, 2, 2)}, 1, 1), 6 + 2, 1e-9);
  EXPECT_NEAR(seconds_of({streamed(1, 1), streamed(1, 1), kept(2), chosen(1, 2, 3, 0)}, 1, 1), 5 + 1, 1e-9);
}

TEST(Pass, OfTwoThatHalveEachOtherIsTheirSum) {
  EXPECT_NEAR(pass_time(std::vector{streamed(1, 1), streamed(1, 1)}, {2, 0.5, 0.5}).seconds, 4, 1e-9);
}

TEST(Pass, ReadsAsFarAsTheWindowWhileOthersCompute) {
  PassItem others = kept(10);
  others.elsewhere = true;
  // Two of the four pages are read during the ten seconds, the others must be waited for.
  EXPECT_NEAR(seconds_of({streamed(0.1, 3), streamed(0.1, 3), streamed(0.1, 3), streamed(0.1, 3), others}, 2),
              16.2, 0.11);
}

TEST(Pass, IsNeverShorterThanTheBestOverlap) {
  const PassConditions conditions{2, 0.8, 0.7};
  EXPECT_NEAR(least_pass_seconds(8, 0, 1, 0, conditions), 9, 1e-9);
  EXPECT_NEAR(least_pass_seconds(0, 7, 0, 0, conditions), 7, 1e-9);
  // Ten seconds of both running do eight of computing and seven of reading.
  EXPECT_NEAR(least_pass_seconds(8, 7, 0, 0, conditions), 10, 1e-9);
  EXPECT_GE(pass_time(std::vector{streamed(4, 3.5), streamed(4, 3.5)}, conditions).seconds, 10 - 1e-9);
}

}  // namespace
}  // namespace caravan
