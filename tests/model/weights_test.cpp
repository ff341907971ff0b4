#include "model/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/budget.h"
#include "base/clock.h"
#include "model/families.h"
#include "tests/model/law_models.h"

namespace caravan {
namespace {

// Computing with those that are there hides the reading of the others.
TEST(ModelWeights, ExpertsInMemoryComeFirstAndTheOthersInTheirOrder) {
  const Manifest manifest = test::law_model("experts");
  const ModelSpec spec = read_spec(manifest);
  const SystemClock clock;
  PagerOptions options;
  options.limit = {UINT64_MAX};
  options.may_map = false;
  Pager pager(manifest.source, clock, nullptr, options);
  const ModelWeights weights(manifest, spec, {1, spec.unit_count() - 1}, pager);
  pager.set_limit({pager.least_bytes()});  // two experts of a layer
  std::vector<uint32_t> all(spec.layers[0].feed_forward.experts);
  std::iota(all.begin(), all.end(), 0u);
  ASSERT_GE(all.size(), 4u);
  const uint32_t last = all.back();
  for (const uint32_t expert : {last - 1, last}) {
    std::vector<uint32_t> one = {expert};
    weights.want_experts(0, one, false);
    (void)weights.acquire({GroupId::Kind::kExpert, 0, expert});
  }
  weights.want_experts(0, all, true);
  EXPECT_EQ(all[0], last - 1);
  EXPECT_EQ(all[1], last);
  for (uint32_t i = 2; i <= last; ++i) EXPECT_EQ(all[i], i - 2);
  // What a scan has read is used before what stays, so that others can be read in its place.
  std::vector<uint32_t> one = {0};
  weights.want_experts(0, one, true);
  (void)weights.acquire({GroupId::Kind::kExpert, 0, 0});
  std::iota(all.begin(), all.end(), 0u);
  std::reverse(all.begin(), all.end());
  weights.want_experts(0, all, true);
  EXPECT_EQ(all[0], 0u);
  EXPECT_GE(all[1], last - 1) << "one of the two that are used stays";
}

}  // namespace
}  // namespace caravan
