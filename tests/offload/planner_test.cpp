// The planner's promises, over random models, machines and budgets, and by hand where the answer is known.
#include "offload/planner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/share.h"
#include "tests/offload/planner_support.h"
#include "tests/support/sanitized.h"

namespace caravan {

namespace {

constexpr int kInputs = test::kSanitized ? 3 : 32;
constexpr double kRounding = 1 + 1e-6;

uint64_t planned_least_ram(PlanInput input) {
  input.budgets.ram = UINT64_MAX;
  input.budgets.headroom_divisor = 32;
  return plan_pages(input).least_ram;
}

// A budget between the least and all.
uint64_t random_ram(Random& random, const PlanInput& input) {
  const uint64_t least = planned_least_ram(input), all = ram_of_everything(input);
  return least + random.below(std::max(all, least + 1) - least + 1);
}

template <class Use>
void for_random_inputs(uint64_t seed, Use use) {
  SeededRandom random(seed);
  for (int i = 0; i < kInputs; ++i) {
    SCOPED_TRACE("input " + std::to_string(i));
    PlanInput input = random_input(random);
    input.budgets.headroom_divisor = 32;
    input.budgets.ram = random_ram(random, input);
    use(input, random);
    if (testing::Test::HasFailure()) return;
  }
}

// KV may have a part of the budget, whatever that is.
void take_share(PlanInput& input, Random& random) {
  input.budgets.kv_ram.reset();
  input.budgets.kv_percent = 1 + 99 * random.unit();
}

std::string refusal(const PlanInput& input) {
  try {
    plan_pages(input);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    return error.what();
  }
  return "";
}

TEST(Planner, StaysWithinEveryBudget) {
  for_random_inputs(1, [](const PlanInput& input, Random&) {
    const Plan plan = plan_pages(input);
    EXPECT_LE(plan.shares.total(), input.budgets.ram);
    EXPECT_EQ(plan.shares.headroom, input.budgets.ram / 32);
    EXPECT_EQ(plan.shares.scratch, input.scratch_bytes);
    EXPECT_EQ(plan.shares.wire, input.wire_bytes);
    EXPECT_EQ(plan.shares.kv, plan.kv_blocks * input.block_bytes);
    EXPECT_LE(plan.shares.kv, input.budgets.kv_ram.value_or(UINT64_MAX));
  });
}

TEST(Planner, TheWeightsShareHoldsWhatIsKeptAndWhatMoves) {
  for_random_inputs(2, [](const PlanInput& input, Random&) {
    const Plan plan = plan_pages(input);
    ASSERT_EQ(plan.placements.size(), input.pages.size());
    uint64_t kept = 0, choices = 0, largest_chosen = 0;
    std::vector<uint64_t> streamed;
    for (size_t i = 0; i < input.pages.size(); ++i) {
      const PlanPage& page = input.pages[i];
      const Placement placement = plan.placements[i];
      if (placement == Placement::kMapped) kept += page.mapped_bytes;
      if (placement == Placement::kResident) kept += page.arena_bytes;
      if (placement == Placement::kStreamed) streamed.push_back(page.arena_bytes);
      if (placement == Placement::kOnDemand) {
        if (i == 0 || input.pages[i - 1].use != PageUse::kChosen) ++choices;
        largest_chosen = std::max(largest_chosen, page.arena_bytes);
      }
      EXPECT_EQ(placement == Placement::kOnDemand, page.use == PageUse::kChosen && choices > 0) << i;
    }
    EXPECT_EQ(plan.resident_bytes, kept);
    // Any two streamed pages that follow one another fit the window: one in use, one being read.
    for (size_t i = 0; i < streamed.size(); ++i)
      EXPECT_GE(plan.window_bytes, streamed[i] + streamed[(i + 1) % streamed.size()]);
    EXPECT_EQ(streamed.empty(), plan.window_bytes == 0);
    EXPECT_EQ(streamed.empty(), plan.prefetch_pages == 0);
    EXPECT_GE(plan.demand_bytes, 2 * largest_chosen);
    EXPECT_GE(plan.shares.weights, kept + plan.window_bytes + plan.demand_bytes);
    EXPECT_LE(plan.shares.weights,
              kept + plan.window_bytes + plan.demand_bytes + choices * plan.cache_bytes_choice);
  });
}

// Of decode at both ends of the context and of a prompt, also where KV has a share of RAM or its staging
// always takes its part.
TEST(Planner, MoreMemoryNeverPredictsSlower) {
  for_random_inputs(3, [](PlanInput input, Random& random) {
    if (random.below(3) == 0) take_share(input, random);
    input.sequences = 1u << random.below(7);
    input.staging_bytes = random.below(3) * input.block_bytes;
    input.staging_always = random.below(2) == 0;
    if (input.budgets.kv_ram) *input.budgets.kv_ram += input.staging_bytes;
    const uint64_t least = planned_least_ram(input), all = ram_of_everything(input);
    Plan before;
    for (uint64_t ram = least;; ram = std::min(all, ram + 1 + random.below((all - least) / 6 + 1))) {
      input.budgets.ram = ram;
      const Plan plan = plan_pages(input);
      if (ram > least) {
        EXPECT_LE(plan.decode.seconds, before.decode.seconds * kRounding) << "with " << ram;
        EXPECT_LE(plan.decode_start.seconds, before.decode_start.seconds * kRounding) << "with " << ram;
        EXPECT_LE(plan.prompt.seconds, before.prompt.seconds * kRounding) << "with " << ram;
      }
      before = plan;
      if (ram >= all) break;
    }
  });
}

// Where KV has a share of RAM, one more block of it is allowed at one RAM and not at a byte less: there, and
// over steps far smaller than what a group of weights takes.
TEST(Planner, ALittleMoreMemoryNeverPredictsSlowerWithAShareOfKv) {
  for_random_inputs(13, [](PlanInput input, Random& random) {
    input.budgets.kv_ram.reset();
    input.context = 1024 + static_cast<uint32_t>(random.below(7168));
    const uint64_t ram = random_ram(random, input), blocks = 16 + random.below(input.context / 32 - 16);
    input.budgets.kv_percent =
        std::min(100.0, 100.0 * static_cast<double>(blocks * input.block_bytes) / static_cast<double>(ram));
    const uint64_t least = planned_least_ram(input);
    const uint64_t allowed = input.budgets.ram_for(1, blocks * input.block_bytes);
    double before = std::numeric_limits<double>::infinity();
    for (const uint64_t more : {uint64_t{0}, uint64_t{1}, 1001 + random.below(3'000'000)}) {
      input.budgets.ram = allowed - 1 + more;
      if (input.budgets.ram < least) continue;
      const double seconds = plan_pages(input).decode.seconds;
      EXPECT_LE(seconds, before * kRounding) << "with " << input.budgets.ram;
      before = seconds;
    }
  });
}

// Of decode and of prompts of every length, wherever three groups fit: with less, reading waits for the room.
TEST(Planner, ReadingIsHiddenWhereItIsTheShorter) {
  int shorter = 0;
  SeededRandom random(11);
  for (int i = 0; i < 8 * kInputs; ++i) {
    SCOPED_TRACE("input " + std::to_string(i));
    PlanInput input = random_input(random);
    if (input.pages[3].use == PageUse::kChosen) continue;  // what a router chooses cannot be read ahead
    input.elsewhere_seconds = 0;
    input.budgets.kv_ram.reset();
    input.prompt_rows = 1u << random.below(10);
    input.budgets.ram = random_ram(random, input);
    const Plan plan = plan_pages(input);
    uint64_t largest = 0;
    for (const PlanPage& page : input.pages)
      if (page.use == PageUse::kWhole) largest = std::max(largest, page.arena_bytes);
    if (plan.shares.weights < 3 * largest) continue;
    for (const Prediction& pass : {plan.decode, plan.decode_start, plan.prompt}) {
      if (pass.read_seconds >= pass.compute_seconds || plan.window_bytes == 0) continue;
      ++shorter;
      EXPECT_GE(pass.hidden, 0.9) << pass.rows << " rows, window of " << plan.window_bytes;
    }
  }
  EXPECT_GT(shorter, kInputs / 2);
}

TEST(Planner, FloorsHold) {
  for_random_inputs(4, [](const PlanInput& input, Random&) {
    const Plan plan = plan_pages(input);
    EXPECT_GE(plan.shares.weights, plan.floors.weights);
    EXPECT_GE(plan.shares.kv, plan.floors.kv);
    EXPECT_LE(plan.floors.total(), input.budgets.ram);
    EXPECT_GT(plan.floors.weights, 0u);
    EXPECT_GT(plan.floors.kv, 0u);
  });
}

TEST(Planner, JustBelowTheLeastIsRefusedAndTheLeastRuns) {
  for_random_inputs(5, [](PlanInput input, Random&) {
    const uint64_t least = plan_pages(input).least_ram;
    input.budgets.ram = least;
    EXPECT_EQ(plan_pages(input).least_ram, least);
    input.budgets.ram = least - 1;
    const std::string message = refusal(input);
    EXPECT_NE(message.find("the least is "), std::string::npos) << message;
    EXPECT_NE(message.find("(" + std::to_string(least) + " bytes)"), std::string::npos) << message;
    for (const char* part : {"KV", "scratch", "wire", "kept free"})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  });
}

TEST(Planner, WithoutALimitEverythingIsMappedAndNothingIsRead) {
  for_random_inputs(6, [](PlanInput input, Random&) {
    input.budgets = Budgets::unlimited();
    const Plan plan = plan_pages(input);
    for (size_t i = 0; i < plan.placements.size(); ++i)
      EXPECT_EQ(plan.placements[i], i == 0 ? Placement::kByRow : Placement::kMapped);
    EXPECT_EQ(plan.decode.read_bytes, 0);
    EXPECT_EQ(plan.prompt.read_bytes, 0);
    EXPECT_EQ(plan.kv_spilled_bytes, 0u);
    EXPECT_EQ(plan.expected_hit_rate, 1);
    EXPECT_FALSE(plan.next_step);
    EXPECT_FALSE(plan.all_fits);
    EXPECT_NE(plan.decode.bound, Bound::kDisk);
  });
}

TEST(Planner, TheSameInputGivesTheSamePlan) {
  for_random_inputs(7, [](const PlanInput& input, Random&) {
    const Plan a = plan_pages(input), b = plan_pages(input);
    EXPECT_EQ(a.placements, b.placements);
    EXPECT_EQ(a.decode.seconds, b.decode.seconds);
    EXPECT_EQ(a.prompt.seconds, b.prompt.seconds);
    EXPECT_EQ(a.shares.total(), b.shares.total());
    EXPECT_EQ(a.binds, b.binds);
  });
}

TEST(Planner, APassIsNeverShorterThanItsReadsOrItsArithmetic) {
  for_random_inputs(8, [](const PlanInput& input, Random&) {
    const Plan plan = plan_pages(input);
    for (const Prediction& pass : {plan.decode, plan.decode_start, plan.prompt}) {
      EXPECT_GE(pass.seconds * kRounding, pass.read_seconds);
      EXPECT_GE(pass.seconds * kRounding, pass.compute_seconds + input.elsewhere_seconds);
      EXPECT_GE(pass.hidden, 0);
      EXPECT_LE(pass.hidden, 1);
      EXPECT_GT(pass.seconds, 0);
    }
    EXPECT_LE(plan.decode_start.seconds, plan.decode.seconds * kRounding);
  });
}

TEST(Planner, WhatMoreMemoryBringsComesTrue) {
  for_random_inputs(9, [](PlanInput input, Random& random) {
    if (random.below(2) == 0) {
      take_share(input, random);
      input.budgets.ram = random_ram(random, input);
    }
    const Plan plan = plan_pages(input);
    if (plan.next_step) {
      input.budgets.ram = plan.next_step->ram;
      const Prediction decode = plan_pages(input).decode;
      EXPECT_LE(decode.seconds, plan.decode.seconds * 0.95 * kRounding);
      EXPECT_DOUBLE_EQ(decode.tokens_a_second(), plan.next_step->decode_tokens_a_second);
      input.budgets.ram = plan.next_step->ram - 1;
      EXPECT_GT(plan_pages(input).decode.seconds, plan.decode.seconds * 0.95);
    }
    if (plan.all_fits) {
      input.budgets.ram = plan.all_fits->ram;
      EXPECT_DOUBLE_EQ(plan_pages(input).decode.tokens_a_second(), plan.all_fits->decode_tokens_a_second);
    }
  });
}

// 20 layers of 10 MB and an output of 10 MB, half of which fits: what must be read is known to the page.
TEST(Planner, ReadsWhatDoesNotFitAndNoMore) {
  PlanInput input = layered_input(20, 5'000'000, 5'000'000, 10'000'000);
  input.context = 32;
  const uint64_t all = ram_of_everything(input);
  input.budgets = {all / 2, {}, 0};
  const Plan plan = plan_pages(input);
  const auto missing = 210e6 - static_cast<double>(all) / 2 + 10e6;  // the window is read, too
  EXPECT_NEAR(plan.decode.read_bytes, missing, 12e6);
  EXPECT_EQ(plan.decode.bound, Bound::kDisk);
  EXPECT_NEAR(plan.decode.seconds, plan.decode.read_bytes / 1e9, 0.02 * plan.decode.seconds);
  EXPECT_GT(plan.decode.hidden, 0.9);
  EXPECT_NE(plan.binds.find("RAM"), std::string::npos);
}

// What is kept lies evenly over the cycle, so that the reads between two kept pages hide behind compute.
TEST(Planner, KeptPagesAreSpreadOverTheCycle) {
  PlanInput input = layered_input(30, 4'000'000, 4'000'000, 4'000'000);
  input.context = 32;
  input.budgets = {ram_of_everything(input) / 2, {}, 0};
  const Plan plan = plan_pages(input);
  size_t longest = 0, run = 0, streamed = 0;
  for (const Placement placement : plan.placements) {
    run = placement == Placement::kStreamed ? run + 1 : 0;
    streamed += placement == Placement::kStreamed;
    longest = std::max(longest, run);
  }
  EXPECT_GT(streamed, 20u);
  EXPECT_LE(longest, 3u);
}

// It has no part in the budget, and its rows cost the same wherever the rest lies.
TEST(Planner, TheTableIsReadByRowWhateverFits) {
  PlanInput input = layered_input(8, 1'000'000, 2'000'000, 30'000'000);
  input.measurements.small_read_seconds = 1;  // were a row a read from disk, it would show
  input.budgets = {ram_of_everything(input) - 8'000'000, {}, 0};
  const Plan mapped = plan_pages(input);
  input.may_map = false;
  const Plan resident = plan_pages(input);
  for (size_t i = 0; i < input.pages.size(); ++i) {
    EXPECT_EQ(mapped.placements[i], i == 0 ? Placement::kByRow : Placement::kMapped);
    EXPECT_EQ(resident.placements[i], i == 0 ? Placement::kByRow : Placement::kResident);
  }
  for (const Plan* plan : {&mapped, &resident}) {
    EXPECT_EQ(plan->decode.read_bytes, 0);
    EXPECT_FALSE(plan->all_fits);
  }
  EXPECT_EQ(mapped.resident_bytes, 8 * 3'000'000 + 30'000'000);
  EXPECT_EQ(resident.decode.seconds, mapped.decode.seconds);
  EXPECT_EQ(resident.prompt.seconds, mapped.prompt.seconds);
}

TEST(Planner, ExpertsTakeWhatThePagesOfEveryPassLeave) {
  PlanInput input = layered_input(6, 1'000'000, 32'000'000, 1'000'000, 16, 2);
  input.context = 32;
  uint64_t others = 0;
  for (const PlanPage& page : input.pages)
    if (page.use == PageUse::kWhole) others += page.arena_bytes;
  // Room for two experts in use and for half of each layer's.
  input.budgets = {
      others + 2 * 2'004'096 + 6 * 8 * 2'004'096 + input.block_bytes + input.scratch_bytes, {}, 0};
  const Plan plan = plan_pages(input);
  EXPECT_EQ(plan.cache_pages_choice, 8u);
  EXPECT_DOUBLE_EQ(plan.expected_hit_rate, 0.5);
  // Two experts a layer and token, half of them missed.
  EXPECT_NEAR(plan.decode.read_bytes, 6 * 2 * 0.5 * 2e6, 1);
  // 512 rows use every expert. Room for 9.2 of them, what a layer misses, is for those that pass.
  EXPECT_EQ(plan.chosen_decode.bytes, 50 * 2'004'096u);
  EXPECT_EQ(plan.chosen_scan.kept_pages, 6u);
  EXPECT_EQ(plan.chosen_scan.bytes, (50 - 6 * 6) * 2'004'096u);
  const Prediction prompt = predict(input, plan, 512, 1, 16);
  EXPECT_NEAR(prompt.read_bytes, 6 * (16 - 6) * 2e6, 1);
}

TEST(Planner, StateBeyondItsBudgetIsReadBack) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  input.context = 3200;
  input.budgets = {UINT64_MAX, input.block_bytes * 25, 0};
  const Plan plan = plan_pages(input);
  EXPECT_EQ(plan.kv_blocks, 25u);
  EXPECT_EQ(plan.kv_spilled_bytes, 75 * input.block_bytes);
  EXPECT_NEAR(plan.decode.read_bytes, 75.0 * static_cast<double>(input.block_bytes), 1);
  EXPECT_EQ(plan.decode_start.read_bytes, 0);
  input.budgets.kv_ram = input.block_bytes;
  EXPECT_NE(refusal(input).find("--kv-ram"), std::string::npos);
}

// A disk so fast that reading is wholly hidden, however many blocks lie there.
TEST(Planner, OfWhatTakesTheSameTimeTheOneThatReadsLeastIsChosen) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  for (DiskRate& rate : input.measurements.disk) rate.rate *= 20;
  input.measurements.kv.rate *= 20;
  input.context = 3200;
  for (uint64_t blocks = 3; blocks < 100; blocks += 24) {
    input.budgets = {UINT64_MAX, input.block_bytes * blocks, 0};
    EXPECT_EQ(plan_pages(input).kv_blocks, blocks);
    input.budgets = {ram_of_everything(input), {}, 0, 0.0};
    input.budgets.kv_percent =
        100.0 * static_cast<double>(input.block_bytes * blocks) / static_cast<double>(input.budgets.ram);
    EXPECT_GE(plan_pages(input).kv_blocks, blocks * 31 / 32);
  }
}

// In its own reads, whatever those of weights reach: of the store, too.
TEST(Planner, StateComesBackAtTheRateOfItsOwnReads) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  input.context = 3200;
  input.budgets = {UINT64_MAX, input.block_bytes * 25, 0};
  const double fast = plan_pages(input).decode.read_seconds;
  EXPECT_NEAR(fast, 75.0 * static_cast<double>(input.block_bytes) / input.measurements.kv.rate, 1e-9);
  input.measurements.kv.rate /= 3;
  EXPECT_NEAR(plan_pages(input).decode.read_seconds, 3 * fast, 1e-9);
  input.measurements = input.measurements.reading_from_store();
  for (DiskRate& rate : input.measurements.disk) rate.rate *= 2;
  EXPECT_NEAR(plan_pages(input).decode.read_seconds, 3 * fast, 1e-9);
}

TEST(Planner, WhatSpillsTakesRoomToComeBackInto) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  input.context = 3200;
  input.staging_bytes = 4 * input.block_bytes;
  input.budgets = {UINT64_MAX, input.block_bytes * 25, 0};
  const Plan plan = plan_pages(input);
  EXPECT_EQ(plan.kv_blocks, 21u);
  EXPECT_EQ(plan.shares.kv, 25 * input.block_bytes);
  EXPECT_EQ(plan.floors.kv, 6 * input.block_bytes);
  input.budgets.kv_ram = 6 * input.block_bytes - 1;
  EXPECT_NE(refusal(input).find("--kv-ram"), std::string::npos);
  input.budgets.kv_ram = 100 * input.block_bytes;
  EXPECT_EQ(plan_pages(input).shares.kv, 100 * input.block_bytes) << "all of it, and nothing beside it";
}

// An archive's blocks come through the staging, whether or not KV spills: it counts as KV.
TEST(Planner, StagingThatIsAlwaysThereIsOfKv) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  input.context = 3200;
  input.staging_bytes = 4 * input.block_bytes;
  input.staging_always = true;
  const Plan plan = plan_pages(input);
  EXPECT_EQ(plan.shares.kv, 104 * input.block_bytes);
  EXPECT_EQ(plan.floors.kv, 6 * input.block_bytes);
  input.budgets.kv_ram = plan.floors.kv;
  EXPECT_EQ(plan_pages(input).kv_blocks, 2u);
  input.budgets.kv_ram = plan.floors.kv - 1;
  EXPECT_NE(refusal(input).find("(" + std::to_string(plan.floors.kv) + " bytes)"), std::string::npos);
}

// Where the staging takes more than all of KV, the least is all of it.
TEST(Planner, TheLeastOfKvIsAllOfItWhereStagingTakesMore) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  input.context = 96;
  input.staging_bytes = 4 * input.block_bytes;
  input.budgets.kv_ram = 3 * input.block_bytes;
  EXPECT_EQ(plan_pages(input).floors.kv, 3 * input.block_bytes);
  input.budgets.kv_ram = 3 * input.block_bytes - 1;
  const std::string message = refusal(input);
  EXPECT_NE(message.find("(" + std::to_string(3 * input.block_bytes) + " bytes), 3 blocks"),
            std::string::npos)
      << message;
}

TEST(Planner, AShareOfKvGrowsWithTheRam) {
  for_random_inputs(12, [](PlanInput input, Random& random) {
    take_share(input, random);
    input.budgets.ram = planned_least_ram(input);
    const Plan least = plan_pages(input);
    EXPECT_LE(least.shares.kv, input.budgets.kv_limit());
    EXPECT_EQ(least.least_ram, input.budgets.ram);
    input.budgets.ram -= 1;
    EXPECT_FALSE(refusal(input).empty()) << "less than the least is planned";
    input.budgets.ram = random_ram(random, input);
    EXPECT_LE(plan_pages(input).shares.kv, input.budgets.kv_limit());
  });
}

// The least that a share of it allows, however small the share; nothing where that is past counting.
TEST(Planner, TheRamForAShareOfKvIsTheLeast) {
  SeededRandom random(14);
  int beyond = 0;
  for (int i = 0; i < 2000; ++i) {
    Budgets budgets{0, {}, 32};
    budgets.kv_percent = 100 * std::pow(random.unit(), 1 + random.below(40));
    if (!(*budgets.kv_percent > 0)) continue;
    const uint64_t bytes = random.below(uint64_t{1} << random.below(40));
    const uint64_t kv = random.below(uint64_t{1} << random.below(60));
    const uint64_t ram = budgets.ram_for(bytes, kv);
    if (ram == UINT64_MAX) {
      ++beyond;
      EXPECT_LT(share_of(Bytes{uint64_t{1} << 62}, *budgets.kv_percent).count, kv);
      continue;
    }
    EXPECT_GE(share_of(Bytes{ram}, *budgets.kv_percent).count, kv);
    EXPECT_GE(ram, budgets.ram_for(bytes));
    if (ram > budgets.ram_for(bytes)) {
      EXPECT_LT(share_of(Bytes{ram - 1}, *budgets.kv_percent).count, kv);
    }
  }
  EXPECT_GT(beyond, 100);
}

// `caravan plan --ram 7000PiB --kv-ram 0.000000005%` of a context of 16 million.
TEST(Planner, WhatNoRamAllowsIsNotNamed) {
  PlanInput input = layered_input(4, 1'000'000, 1'000'000, 1'000'000);
  input.context = 16'777'216;
  input.block_bytes = 700'000;
  input.budgets = {uint64_t{7000} << 50, {}, 32, 5e-9};
  const Plan plan = plan_pages(input);
  EXPECT_GT(plan.kv_spilled_bytes, 0u);
  EXPECT_LE(plan.shares.kv, input.budgets.kv_limit());
  EXPECT_FALSE(plan.all_fits);
}

TEST(Planner, StateThatMayNotSpillStaysInMemoryOrIsRefused) {
  for_random_inputs(10, [](PlanInput input, Random&) {
    input.may_spill = false;
    input.budgets.kv_ram.reset();
    input.budgets.ram = UINT64_MAX;
    const uint64_t least = plan_pages(input).least_ram;
    input.budgets.ram = least;
    const Plan plan = plan_pages(input);
    EXPECT_EQ(plan.kv_spilled_bytes, 0u);
    EXPECT_EQ(plan.floors.kv, plan.shares.kv);
    input.budgets.kv_ram = plan.shares.kv - 1;
    EXPECT_NE(refusal(input).find("(" + std::to_string(plan.shares.kv) + " bytes)"), std::string::npos);
  });
}

TEST(Planner, OtherPeersTimeIsAddedAtMostOnce) {
  PlanInput input = layered_input(10, 4'000'000, 4'000'000, 4'000'000);
  input.context = 32;
  input.budgets = {ram_of_everything(input) / 2, {}, 0};
  const Plan alone = plan_pages(input);
  input.elsewhere_seconds = alone.decode.read_seconds / 2;
  const Plan beside = plan_pages(input);
  EXPECT_GT(beside.decode.seconds, alone.decode.seconds);
  EXPECT_LE(beside.decode.seconds, (alone.decode.seconds + input.elsewhere_seconds) * kRounding);
}

TEST(Planner, SizesPastCountingAreRefused) {
  PlanInput input = layered_input(2, 1000, 1000, 1000);
  input.context = UINT32_MAX;
  input.sequences = UINT32_MAX;
  input.block_bytes = uint64_t{1} << 40;
  EXPECT_THROW(plan_pages(input), Error);
  input.pages.clear();
  EXPECT_THROW(plan_pages(input), Error);
}

}  // namespace

}  // namespace caravan
