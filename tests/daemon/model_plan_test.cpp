// The demo model as the planner sees it.
#include "daemon/model_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/budget.h"
#include "base/error.h"
#include "compute/cpu/cpu_backend.h"
#include "daemon/forecast.h"
#include "daemon/local_head_runner.h"
#include "daemon/model_text.h"
#include "model/families.h"
#include "offload/planner.h"
#include "shards/shard_store.h"
#include "shards/store_import.h"
#include "shards/store_source.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"
#include "tests/offload/planner_support.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

class ModelPlanTest : public testing::Test {
 protected:
  ModelPlanTest()
      : manifest_(read_manifest(CARAVAN_SOURCE_DIR "/configs/demo/demo.gguf")), spec_(read_spec(manifest_)) {
    options_.engine.threads = 2;
    options_.engine.max_rows = 64;
    options_.context = 512;
    options_.budgets = Budgets::unlimited();
  }
  ModelPages pages() const { return pages({0, spec_.unit_count()}); }
  ModelPages pages(UnitSpan span) const {
    return model_pages(manifest_, spec_, span, round_machine(), options_);
  }

  const Manifest manifest_;
  const ModelSpec spec_;
  ModelPlanOptions options_;
};

TEST_F(ModelPlanTest, PagesStandInTheOrderOfAPassAndHoldEveryByte) {
  const ModelPages all = pages();
  ASSERT_EQ(all.groups.size(), manifest_.groups.size());
  EXPECT_EQ(to_string(all.groups[0]), "embed");
  EXPECT_EQ(to_string(all.groups[1]), "layer.0.attn");
  EXPECT_EQ(to_string(all.groups[2]), "layer.0.ffn");
  EXPECT_EQ(to_string(all.groups.back()), "output");
  uint64_t bytes = 0;
  double operations = 0;
  for (size_t i = 0; i < all.groups.size(); ++i) {
    const PlanPage& page = all.input.pages[i];
    bytes += page.bytes;
    EXPECT_GE(page.arena_bytes, page.bytes);
    for (const PageWork& work : page.work) operations += work.operations_row;
  }
  uint64_t expected = 0;
  for (const WeightGroup& group : manifest_.groups) expected += group.bytes().count;
  EXPECT_EQ(bytes, expected);
  // Two operations for each weight of each matrix but the table of ids.
  double weights = 0;
  for (const WeightGroup& group : manifest_.groups)
    for (const Tensor& tensor : group.tensors)
      if (tensor.rows > 1 && tensor.role != Role::kEmbedding) weights += 1.0 * tensor.rows * tensor.columns;
  EXPECT_DOUBLE_EQ(operations, 2 * weights);
}

TEST_F(ModelPlanTest, SpansShareOutThePagesAndTheState) {
  const uint32_t middle = 1 + spec_.layer_count() / 3;
  const ModelPages all = pages(), first = pages({0, middle}), second = pages({middle, spec_.unit_count()});
  EXPECT_EQ(first.groups.size() + second.groups.size(), all.groups.size());
  EXPECT_EQ(first.input.block_bytes + second.input.block_bytes, all.input.block_bytes);
  EXPECT_GT(first.input.block_bytes, 0u);
}

TEST_F(ModelPlanTest, TheScratchIsWhatTheBackEndReserves) {
  EngineOptions options = options_.engine;
  options.memory = Bytes{uint64_t{1} << 30};
  for (const bool exact : {false, true}) {
    options.exact = exact;
    Engine engine(read_manifest(manifest_.path), options);
    EXPECT_EQ(engine_scratch(spec_, options).count, engine.budget().used(MemoryTag::kScratch).count);
  }
}

TEST_F(ModelPlanTest, TheTokenizerIsPlannedForWhereTokensAreRead) {
  Manifest taken = manifest_;
  const ModelText text = take_model_text(taken);
  EXPECT_GT(text.memory().count, text.tokenizer->size() * 16);
  EXPECT_EQ(text_memory(taken), text.memory());
  EXPECT_EQ(text_memory(manifest_), text.memory());
  EXPECT_EQ(taken.fingerprint(), manifest_.fingerprint());
  EXPECT_FALSE(taken.metadata.has("tokenizer.ggml.tokens"));
  EXPECT_TRUE(taken.metadata.has("llama.block_count"));
  const uint64_t logits = LocalHeadRunner::scratch_bytes(spec_).count;
  EXPECT_GE(pages({0, 2}).input.scratch_bytes,
            pages({1, 2}).input.scratch_bytes + logits + text.memory().count);
  Manifest peers = manifest_;
  peers.drop_tokenizer({peers.fingerprint(), {}});
  EngineOptions options = options_.engine;
  options.memory = Bytes{uint64_t{1} << 30};
  const Engine head(std::move(taken), options), peer(std::move(peers), options);
  EXPECT_EQ(head.memory().scratch_bytes, peer.memory().scratch_bytes + text.memory().count);
}

constexpr double kRounding = 1e-9;  // forecasts are in whole nanoseconds

TEST_F(ModelPlanTest, AForecastIsThePlanAtBothEndsOfTheContextAndBetweenThem) {
  PlanInput input = pages().input;
  const Plan plan = plan_pages(input);
  const RingForecast forecast{{{"head", forecast_pages(input)}}, input.context};
  EXPECT_NEAR(forecast.token_seconds(0), plan.decode_start.seconds, kRounding);
  EXPECT_NEAR(forecast.token_seconds(input.context), plan.decode.seconds, kRounding);
  EXPECT_NEAR(forecast.token_seconds(10.0 * input.context), plan.decode.seconds, kRounding);
  EXPECT_GT(forecast.token_seconds(100), plan.decode_start.seconds);
  EXPECT_LT(forecast.token_seconds(100), plan.decode.seconds);
  EXPECT_NEAR(forecast.prompt_token_seconds(64, 64), plan.prompt.seconds / 64, kRounding);
  EXPECT_NEAR(forecast.prompt_token_seconds(640, 64), plan.prompt.seconds / 64, kRounding);
  EXPECT_GT(forecast.prompt_token_seconds(64, 1), forecast.prompt_token_seconds(64, 64));
  input.prompt_rows = 48;
  EXPECT_NEAR(forecast.prompt_token_seconds(48, 64) / (plan_pages(input).prompt.seconds / 48), 1, 0.02);
}

TEST_F(ModelPlanTest, APromptIsPlannedInTheStepsInWhichItComes) {
  const test::TemporaryFolder folder;
  Config config;
  config.state = folder.path();
  config.context = 512;
  const Calibrate calibrate = [](const CalibrationOptions&) {
    Calibration calibration;
    calibration.measurements = round_machine();
    return calibration;
  };
  EXPECT_EQ(plan_model(config, manifest_, spec_, 1, calibrate).plan.prompt.rows, config.prefill_rows);
  config.prefill_rows = 100;
  EXPECT_EQ(plan_model(config, manifest_, spec_, 1, calibrate).plan.prompt.rows, 100u);
}

TEST_F(ModelPlanTest, WhatTheStagesExpectSumsToTheWholeModelHoweverItIsCut) {
  const uint32_t end = spec_.layer_count() + 1;
  const auto part = [&](UnitSpan span, bool ends) {
    options_.ends = ends;
    return RingForecast::Stage{"", forecast_pages(pages(span).input)};
  };
  const RingForecast whole{{part({0, end + 1}, false)}, options_.context};
  const RingForecast with_head{{part({1, 4}, true), part({4, end}, false)}, options_.context};
  const RingForecast apart{{part({1, 1}, true), part({1, 2}, false), part({2, end}, false)},
                           options_.context};
  for (const double position : {0.0, 100.0, 512.0})
    for (const RingForecast* ring : {&with_head, &apart})
      EXPECT_NEAR(ring->token_seconds(position), whole.token_seconds(position), 3 * kRounding) << position;
}

TEST_F(ModelPlanTest, UnderABudgetSomeIsStreamedAndTheTextsSaySo) {
  ModelPages all = pages();
  all.input.budgets.headroom_divisor = 32;
  all.input.budgets.ram = plan_pages(all.input).least_ram + (1u << 20);
  const Plan plan = plan_pages(all.input);
  const nlohmann::json json = nlohmann::json::parse(plan_json(all, plan));
  EXPECT_EQ(json["groups"].size(), all.groups.size());
  EXPECT_EQ(json["groups"][0]["placement"], "by row");
  EXPECT_GT(json["window_bytes"], 0);
  EXPECT_EQ(json["decode"]["bound"], json["bound"]);
  EXPECT_TRUE(json["more_ram"].is_object());
  uint64_t streamed = 0;
  for (const auto& one : json["classes"]) streamed += one["streamed_bytes"].get<uint64_t>();
  EXPECT_GT(streamed, 0u);
  const std::string picture = plan_picture(manifest_, all, plan, std::nullopt);
  for (const char* word : {"RAM", "weights", "kv", "scratch", "headroom", "streamed", "decode", "prompt",
                           "bound", "binds", "least", "more RAM"})
    EXPECT_NE(picture.find(word), std::string::npos) << word << "\n" << picture;
}

// As an engine has it: all blocks of a stage that spills lie on disk, of which a third waits to be given
// back.
TEST_F(ModelPlanTest, KvSpillsWhereTheDiskHoldsThatOfEverySequence) {
  options_.engine.kv_places = {"somewhere"};
  options_.sequences = 3;
  KvNeeds kv =
      kv_needs(kv_layers(spec_, {0, spec_.unit_count()}), options_.context, options_.engine.kv_type, false);
  kv.blocks *= options_.sequences;
  options_.engine.kv_disk = Bytes{kv.disk()};
  EXPECT_TRUE(pages().input.may_spill);
  options_.engine.kv_disk = Bytes{kv.disk() - 1};
  EXPECT_FALSE(pages().input.may_spill);
  options_.engine.kv_disk = Bytes{kv.disk()};
  options_.engine.kv_places.clear();
  EXPECT_FALSE(pages().input.may_spill);
}

TEST_F(ModelPlanTest, AnotherPeerHelpsWhatDoesNotFit) {
  options_.budgets = Budgets::unlimited();
  options_.budgets.headroom_divisor = 32;
  ModelPages all = pages();
  all.input.budgets.ram = plan_pages(all.input).least_ram + (1u << 20);
  options_.budgets.ram = all.input.budgets.ram;
  const auto two = with_another_peer(manifest_, spec_, round_machine(), options_);
  ASSERT_TRUE(two);
  EXPECT_LT(two->seconds, plan_pages(all.input).decode.seconds);
}

// What comes out of the store is checked and copied, and is never mapped.
TEST_F(ModelPlanTest, WeightsInTheStoreAreReadAtTheStoresRateAndNotMapped) {
  const auto store = std::make_shared<ShardStore>(std::make_shared<MemoryStore>(),
                                                  std::make_shared<MemoryBulk>(), ShardStoreOptions{});
  ImportOptions copy;
  copy.copy = true;
  const Manifest stored = open_record(store, import_model(*store, manifest_, copy).record);
  const auto plan_of = [&](const Manifest& manifest) {
    return plan_pages(model_pages(manifest, spec_, {0, spec_.unit_count()}, round_machine(), options_).input);
  };
  const auto has = [](const Plan& plan, Placement placement) {
    return std::find(plan.placements.begin(), plan.placements.end(), placement) != plan.placements.end();
  };
  EXPECT_TRUE(has(plan_of(manifest_), Placement::kMapped));
  EXPECT_EQ(plan_of(manifest_).placements[0], Placement::kByRow) << "rows are read, also where all fits";
  EXPECT_FALSE(has(plan_of(stored), Placement::kMapped));
  options_.budgets.ram = manifest_.bytes().count + (1u << 20);  // with KV, too little for all
  const Plan from_file = plan_of(manifest_), from_store = plan_of(stored);
  ASSERT_TRUE(has(from_store, Placement::kStreamed));
  EXPECT_GT(from_store.decode.seconds_a_token(), 1.1 * from_file.decode.seconds_a_token());
}

}  // namespace
}  // namespace caravan
