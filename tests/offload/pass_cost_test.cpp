// What a pass is predicted to take, step by step.
#include "offload/pass_cost.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/offload/planner_support.h"
#include "tests/offload/scan_loop.h"

namespace caravan {
namespace {

// Layers of attention and chosen pages, with times that are given; on disk but for so many of a choice.
struct Layers {
  explicit Layers(const ScanShape& scan, double chosen) : shape(scan) {
    input.measurements.disk = {{kBytes, 8, static_cast<double>(kBytes) / scan.read}};
    input.attention = {};
    for (uint32_t shelf = 0; shelf < scan.shelves; ++shelf) {
      PassStep& attention = steps.emplace_back();
      attention.first = static_cast<uint32_t>(input.pages.size());
      attention.arithmetic_seconds = scan.attention;
      input.pages.push_back(whole_page(1));
      placements.push_back(Placement::kResident);
      PassStep& experts = steps.emplace_back();
      experts.first = static_cast<uint32_t>(input.pages.size());
      experts.count = scan.pages;
      experts.use = PageUse::kChosen;
      experts.chosen = chosen;
      experts.arithmetic_seconds = chosen * scan.compute;
      for (uint32_t i = 0; i < scan.pages; ++i) {
        PlanPage& page = input.pages.emplace_back(whole_page(kBytes));
        page.arena_bytes = kBytes;
        page.use = PageUse::kChosen;
        page.choice = shelf;
        page.uses_a_token = chosen / scan.pages;
        placements.push_back(Placement::kOnDemand);
        costs.push_back({kBytes, shelf, PageUse::kChosen, shelf});
      }
    }
  }

  Prediction predict(uint32_t rows) const {
    const uint64_t room = shape.room * kBytes;
    const uint64_t passing = rows < kScanRows ? 2 * kBytes : passing_bytes(costs, room);
    const auto kept = static_cast<uint32_t>((room - passing) / kBytes / shape.shelves);
    const uint64_t others = room - uint64_t{kept} * shape.shelves * kBytes;
    return predict_pass(input, {rows, 1, 0, 0}, steps,
                        {placements, {kept, rows < kScanRows ? room : others}, 0, UINT64_MAX});
  }
  double compute() const {
    double sum = 0;
    for (const PassStep& step : steps) sum += step.compute();
    return sum;
  }

  const ScanShape shape;
  PlanInput input;
  std::vector<PassStep> steps;
  std::vector<Placement> placements;
  std::vector<PageCost> costs;
};

// The residency itself, driven by a loop of those times, waits as long.
TEST(PassCost, AScanIsPredictedAsTheResidencyCarriesItOut) {
  for (const uint64_t room : {2u, 3u, 8u, 16u, 24u, 48u, 96u, 150u})
    for (const double read : {0.3, 0.8, 1.2, 2.0, 4.0})
      for (const double attention : {2.0, 12.0, 30.0}) {
        SCOPED_TRACE(testing::Message()
                     << "room " << room << ", read " << read << ", attention " << attention);
        const ScanShape shape{.room = room, .attention = attention, .read = read};
        ScanLoop loop(shape);
        for (int pass = 0; pass < 3; ++pass) loop.scan();
        loop.take_count();
        for (int pass = 0; pass < 2; ++pass) loop.scan();
        const ScanLoop::Count count = loop.take_count();
        const Layers layers(shape, shape.pages);
        const Prediction scan = layers.predict(256);
        const double seconds = layers.compute() + count.waiting / 2;
        EXPECT_NEAR(scan.seconds / seconds, 1, 0.1);
        const double shorter = std::min(count.reading / 2, layers.compute());
        EXPECT_NEAR(scan.hidden, 1 - (seconds - std::max(count.reading / 2, layers.compute())) / shorter,
                    0.12);
      }
}

// Nothing is read before the router has spoken: in decode, and in a scan whose choices are of few.
TEST(PassCost, NoReadOfASparseChoiceIsHiddenBehindAttention) {
  const ScanShape shape{.room = 32, .attention = 30, .read = 2};
  for (const uint32_t rows : {1u, kScanRows}) {
    const Layers layers(shape, 8);
    const Prediction pass = layers.predict(rows);
    // The experts' own computing hides reading, and nothing else does.
    EXPECT_GE(pass.seconds, 8 * 30 + pass.read_seconds);
    EXPECT_LE(pass.seconds, 8 * 30 + pass.read_seconds + 8 * 8);
  }
}

TEST(PassCost, WithTheLeastRoomReadsAndComputingTakeTurnsInDecode) {
  const ScanShape shape{.room = 2, .attention = 1, .read = 1};
  const Prediction pass = Layers(shape, 4).predict(1);
  EXPECT_NEAR(pass.seconds, 8 * (1 + 1 + 4), 1e-6);  // the first read is waited for, then both go on together
}

// Its first row at the rate of one, as measured, and the others at that of many.
TEST(PassCost, AProductOfAFewRowsTakesTheTimeOfItsFirstAndOfTheFurtherOnes) {
  PlanInput input = layered_input(1, 1000, 1000, 1000);
  input.pages = {whole_page(8'000'000)};  // at 10 GB/s of one row, 16 million operations a row at 400 G/s
  for (const uint32_t rows : {1u, 2u, 9u, 500u}) {
    const PassStep step = pass_steps(input, {rows, 1, 0, 0})[0];
    EXPECT_NEAR(step.compute(), 0.8e-3 + (rows - 1) * 16e6 / 400e9, 1e-9) << rows;
  }
}

}  // namespace
}  // namespace caravan
