#include "daemon/archive_probes.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ArchiveProbesTest : public ::testing::Test {
 protected:
  ArchiveProbe ask(uint64_t request, uint32_t blocks = 3) {
    return probes_.ask({}, {1}, {request}, std::vector<BlockTag>(blocks), now_);
  }
  std::optional<ArchiveProbes::Found> answer(ArchiveProbe probe, uint32_t blocks) {
    probe.to_head = true;
    probe.tags.clear();
    probe.blocks = blocks;
    probe.load_ns = 7;
    return probes_.on(probe, now_);
  }
  void one_trip(Duration trip) {
    const ArchiveProbe probe = ask(99);
    now_ += trip;
    ASSERT_TRUE(answer(probe, 0));
  }

  Time now_{seconds(100)};
  ArchiveProbes probes_{ArchiveProbes::Options{}};
};

TEST_F(ArchiveProbesTest, AnAnswerIsOfItsRequestOnceAndNoMoreThanWasAsked) {
  const ArchiveProbe first = ask(1), second = ask(2);
  EXPECT_NE(first.probe, second.probe);
  EXPECT_EQ(first.blocks, 3u);
  EXPECT_FALSE(first.to_head);
  const auto found = answer(second, 2);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->request, RequestId{2});
  EXPECT_EQ(found->blocks, 2u);
  EXPECT_EQ(found->load_ns, 7u);
  EXPECT_FALSE(answer(second, 2)) << "it came twice";
  EXPECT_EQ(answer(first, 1000)->blocks, 3u);
  ArchiveProbe foreign = first;
  foreign.probe = 77;
  EXPECT_FALSE(answer(foreign, 1));
}

TEST_F(ArchiveProbesTest, OneThatDoesNotComeIsGivenUpInTime) {
  EXPECT_EQ(probes_.next_tick(), Time::max());
  const ArchiveProbe first = ask(1);
  now_ += milliseconds(100);
  ask(2);
  EXPECT_EQ(probes_.next_tick(), now_ + milliseconds(200));
  EXPECT_TRUE(probes_.tick(now_).empty());
  now_ += milliseconds(200);
  EXPECT_EQ(probes_.tick(now_), std::vector<RequestId>{RequestId{1}});
  EXPECT_FALSE(answer(first, 3)) << "too late";
  now_ += milliseconds(100);
  EXPECT_EQ(probes_.tick(now_), std::vector<RequestId>{RequestId{2}});
  EXPECT_EQ(probes_.timeouts(), 2u);
  EXPECT_EQ(probes_.pending(), 0u);
}

TEST_F(ArchiveProbesTest, RestsTwiceAsLongAfterEachTimeoutUntilAnAnswerComes) {
  for (const int rest : {2, 4, 8, 16, 32, 60, 60}) {
    ASSERT_TRUE(probes_.worth_asking(1e12, now_));
    ask(1);
    now_ += milliseconds(300);
    ASSERT_EQ(probes_.tick(now_).size(), 1u);
    EXPECT_FALSE(probes_.worth_asking(1e12, now_ + seconds(rest) - milliseconds(1)));
    now_ += seconds(rest);
  }
  one_trip(milliseconds(1));
  ask(1);
  now_ += milliseconds(300);
  probes_.tick(now_);
  EXPECT_TRUE(probes_.worth_asking(1e12, now_ + seconds(2)));
}

TEST_F(ArchiveProbesTest, AsksOnlyWhereMuchMoreCanBeSavedThanTheWayCosts) {
  EXPECT_TRUE(probes_.worth_asking(1, now_)) << "nothing is known of the way yet";
  one_trip(milliseconds(2));
  EXPECT_FALSE(probes_.worth_asking(15e6, now_));
  EXPECT_TRUE(probes_.worth_asking(25e6, now_));
  EXPECT_TRUE(probes_.worth_asking(0, now_)) << "nothing is known of computing yet";
}

TEST_F(ArchiveProbesTest, ASlowWayIsTriedAgainAfterAWhile) {
  one_trip(milliseconds(200));
  int refused = 0;
  while (!probes_.worth_asking(1e9, now_)) ASSERT_LT(++refused, 100);
  EXPECT_GT(refused, 20);
}

TEST_F(ArchiveProbesTest, NothingIsLeftOfARingThatIsGone) {
  const ArchiveProbe probe = ask(1);
  probes_.forget();
  EXPECT_FALSE(answer(probe, 3));
  EXPECT_EQ(probes_.next_tick(), Time::max());
  EXPECT_NE(ask(1).probe, probe.probe);
}

}  // namespace
}  // namespace caravan
