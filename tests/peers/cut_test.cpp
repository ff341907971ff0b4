#include "peers/cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/random.h"

namespace caravan {
namespace {

struct Case {
  std::vector<LayerCost> layers;
  std::vector<PeerOffer> peers;
};

Case random_case(SeededRandom& random) {
  Case made;
  for (uint64_t i = 1 + random.below(9); i > 0; --i)
    made.layers.push_back({1 + random.below(20), 1 + static_cast<double>(random.below(4))});
  for (uint64_t i = 1 + random.below(4); i > 0; --i)
    made.peers.push_back({random.below(120), random.below(5) * 100});
  return made;
}

void expect_valid(const Case& made, const std::vector<UnitSpan>& spans) {
  ASSERT_EQ(spans.size(), made.peers.size());
  uint32_t next = 1;
  for (size_t p = 0; p < spans.size(); ++p) {
    EXPECT_EQ(spans[p].first, next);
    ASSERT_GE(spans[p].last, spans[p].first);
    next = spans[p].last;
    uint64_t bytes = 0;
    for (uint32_t unit = spans[p].first; unit < spans[p].last; ++unit) bytes += made.layers[unit - 1].bytes;
    EXPECT_LE(bytes, made.peers[p].memory_bytes);
  }
  EXPECT_EQ(next, made.layers.size() + 1);
}

// Every contiguous cut, one after another.
void all_cuts(const Case& made, const std::function<void(const std::vector<UnitSpan>&)>& visit) {
  const auto count = static_cast<uint32_t>(made.layers.size());
  std::vector<UnitSpan> spans;
  const std::function<void(uint32_t)> go = [&](uint32_t first) {
    if (spans.size() + 1 == made.peers.size()) {
      spans.push_back({first, count + 1});
      visit(spans);
      spans.pop_back();
      return;
    }
    for (uint32_t last = first; last <= count + 1; ++last) {
      spans.push_back({first, last});
      go(last);
      spans.pop_back();
    }
  };
  go(1);
}

bool fits(const Case& made, const std::vector<UnitSpan>& spans) {
  for (size_t p = 0; p < spans.size(); ++p) {
    uint64_t bytes = 0;
    for (uint32_t unit = spans[p].first; unit < spans[p].last; ++unit) bytes += made.layers[unit - 1].bytes;
    if (bytes > made.peers[p].memory_bytes) return false;
  }
  return true;
}

TEST(CutTest, FindsTheLeastSlowestStageAmongAllCutsThatFit) {
  SeededRandom random(11);
  int feasible = 0;
  for (int i = 0; i < 400; ++i) {
    const Case made = random_case(random);
    double least = -1;
    all_cuts(made, [&](const std::vector<UnitSpan>& spans) {
      if (!fits(made, spans)) return;
      const double slowest = slowest_stage_ns(made.layers, made.peers, spans);
      if (least < 0 || slowest < least) least = slowest;
    });
    const std::vector<UnitSpan> spans = cut_by_cost(made.layers, made.peers);
    ASSERT_EQ(spans.empty(), least < 0) << "case " << i;
    if (spans.empty()) continue;
    ++feasible;
    expect_valid(made, spans);
    EXPECT_DOUBLE_EQ(slowest_stage_ns(made.layers, made.peers, spans), least) << "case " << i;
  }
  EXPECT_GT(feasible, 100);
}

TEST(CutTest, GivesAFasterPeerMoreLayers) {
  const std::vector<LayerCost> layers(12, LayerCost{1, 1});
  const std::vector<UnitSpan> spans = cut_by_cost(layers, {{100, 100}, {100, 200}});
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0], (UnitSpan{1, 9}));
  EXPECT_EQ(spans[1], (UnitSpan{9, 13}));
}

TEST(CutTest, UsesNoPeerThatDoesNotHelp) {
  const std::vector<LayerCost> layers(1, LayerCost{1, 1});
  const std::vector<UnitSpan> spans = cut_by_cost(layers, {{100, 100}, {100, 100}, {100, 100}});
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(std::count_if(spans.begin(), spans.end(), [](UnitSpan span) { return span.count() > 0; }), 1);
}

TEST(CutTest, CutsEvenlyWithinOneLayer) {
  for (uint32_t count = 1; count < 40; ++count) {
    for (size_t peers = 1; peers < 8; ++peers) {
      const Case made{std::vector<LayerCost>(count, LayerCost{1, 1}),
                      std::vector<PeerOffer>(peers, PeerOffer{1000, 0})};
      const std::vector<UnitSpan> spans = cut_evenly(made.layers, made.peers);
      expect_valid(made, spans);
      EXPECT_LE(spans.front().count() - spans.back().count(), 1u);
    }
  }
}

TEST(CutTest, RefusesWhatDoesNotFit) {
  const std::vector<LayerCost> layers(4, LayerCost{10, 1});
  EXPECT_TRUE(cut_by_cost(layers, {{15, 0}, {25, 0}}).empty());
  EXPECT_TRUE(cut_by_cost(layers, {}).empty());
  EXPECT_TRUE(cut_evenly(layers, {{10, 0}, {40, 0}}).empty());
  EXPECT_EQ(cut_by_cost(layers, {{10, 0}, {40, 0}}).size(), 2u);
  // Sizes whose sum overflows do not wrap around into a fit.
  EXPECT_TRUE(cut_by_cost({{~0ull, 1}, {~0ull, 1}}, {{1000, 0}}).empty());
}

}  // namespace
}  // namespace caravan
