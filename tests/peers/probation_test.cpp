#include "peers/probation.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

PeerKey key(uint8_t first) {
  PeerKey result;
  result.bytes[0] = first;
  return result;
}

constexpr Time kStart{std::chrono::hours(1)};

TEST(Probation, ThreeFailuresInARowLeaveAPeerOutForAWhile) {
  Probation probation;
  EXPECT_FALSE(probation.failed(key(1), "no memory", kStart));
  EXPECT_FALSE(probation.failed(key(1), "no memory", kStart));
  EXPECT_FALSE(probation.is_out(key(1), kStart));
  EXPECT_TRUE(probation.failed(key(1), "no memory", kStart));
  EXPECT_TRUE(probation.is_out(key(1), kStart));
  EXPECT_EQ(probation.reason(key(1), kStart), "no memory");
  EXPECT_FALSE(probation.is_out(key(2), kStart));
  EXPECT_EQ(probation.next_return(kStart), kStart + Probation::kFirstPause);
  EXPECT_FALSE(probation.is_out(key(1), kStart + Probation::kFirstPause));
}

TEST(Probation, AReadyRingWipesTheSlate) {
  Probation probation;
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(probation.failed(key(1), "", kStart));
    EXPECT_FALSE(probation.failed(key(1), "", kStart));
    probation.worked(key(1));
  }
  EXPECT_EQ(probation.next_return(kStart), Time::max());
}

TEST(Probation, ThePauseDoublesUpToALimit) {
  Probation probation;
  Time now = kStart;
  Duration expected = Probation::kFirstPause;
  probation.failed(key(1), "", now);
  probation.failed(key(1), "", now);
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(probation.failed(key(1), "", now));
    ASSERT_EQ(probation.next_return(now), now + expected);
    now += expected;
    ASSERT_FALSE(probation.is_out(key(1), now));
    expected = std::min(2 * expected, Probation::kLongestPause);
  }
}

TEST(Probation, APeerThatStartsAnewIsTriedAtOnce) {
  Probation probation;
  for (int i = 0; i < 3; ++i) probation.failed(key(1), "", kStart);
  probation.forget(key(1));
  EXPECT_FALSE(probation.is_out(key(1), kStart));
}

}  // namespace
}  // namespace caravan
