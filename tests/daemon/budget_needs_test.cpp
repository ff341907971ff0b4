// The least budgets that are announced, held against what an engine does with them.
#include "daemon/budget_needs.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/limits.h"
#include "daemon/engine.h"
#include "daemon/local_head_runner.h"
#include "daemon/model_text.h"
#include "model/families.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

const std::string kSource = CARAVAN_SOURCE_DIR;

struct Case {
  std::string model;
  UnitSpan layers;  // none: all of them
  uint32_t context = 64;
  bool ends = true;
  bool archived = false;
  bool spills = true;
  KvType kv_type = KvType::kF32;
};

std::string describe(const Case& one) {
  return fmt::format("{}, layers {} to {}, context {}{}{}{}{}", one.model, one.layers.first,
                     one.layers.last - 1, one.context, one.ends ? ", ends" : "",
                     one.archived ? ", archived" : "", one.spills ? ", spills" : "",
                     one.kv_type == KvType::kF16 ? ", f16" : "");
}

class BudgetNeedsTest : public testing::Test {
 protected:
  EngineOptions options_of(const Case& one) const {
    EngineOptions options;
    options.kv_type = one.kv_type;
    options.max_rows = 8;
    options.memory = Bytes{1};
    if (one.spills) {
      options.kv_places = {folder_.path() + "/kv"};
      options.kv_disk = Bytes{uint64_t{1} << 30};
    }
    if (one.archived) options.archive.folder = folder_.path() + "/archive";
    if (one.archived) options.archive.limit = Bytes{uint64_t{1} << 20};
    return options;
  }

  // Hosts the part and computes a row, in the order of the program. It asks nobody whether it may.
  static bool runs(const Manifest& manifest, const EngineOptions& options, const Case& one) {
    try {
      Manifest hosted_of = manifest;
      std::optional<ModelText> text;
      if (one.ends) text = take_model_text(hosted_of);
      Engine engine(std::move(hosted_of), options);
      const ModelSpec& spec = engine.spec();
      Reservation all_logits;
      if (one.ends)
        all_logits = engine.budget().reserve(MemoryTag::kScratch, LocalHeadRunner::scratch_bytes(spec));
      Engine::Hosted ends;
      if (one.ends)
        ends = engine.host({spec.unit_count() - 1, spec.unit_count()}, 1, {}, {});
      else
        engine.measure_layer_ns();
      const uint32_t wanted = (one.context + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
      const KvRoom room = engine.kv_room(one.layers, one.context, one.kv_type, wanted);
      if (room.blocks < wanted) return false;
      std::optional<Lineage> lineage;
      if (one.archived) lineage.emplace();
      const Engine::Hosted hosted = engine.host(one.layers, one.context, room, {}, one.kv_type, lineage);
      std::vector<float> row(spec.width, 0.5f), logits(spec.vocabulary);
      hosted.stage->sequences().open(SequenceId{1});
      const StageRange range{SequenceId{1}, 0, 1};
      EXPECT_TRUE(hosted.stage->run({&range, 1}, row.data()).empty());
      if (one.ends) ends.stage->output(row.data(), 1, logits.data());
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.message();
      return false;
    }
  }

  void the_least_runs_and_a_byte_less_does_not(Case one) const {
    const Manifest manifest = read_manifest(one.model);
    const ModelSpec spec = read_spec(manifest);
    if (one.layers.count() == 0) one.layers = {1, spec.layer_count() + 1};
    SCOPED_TRACE(describe(one));
    EngineOptions options = options_of(one);
    const HostedPart part{one.layers, one.ends, !one.ends};
    const BudgetNeeds needs = budget_needs(manifest, spec, options, part, one.context);
    const LeastBudgets least = least_budgets(options, needs);
    options.memory = Bytes{least.ram};
    EXPECT_TRUE(runs(manifest, options, one)) << least.ram;
    EXPECT_EQ(refuse_budgets(options, least_budgets(options, needs), "it"), "");
    options.memory = Bytes{least.ram - 1};
    EXPECT_FALSE(runs(manifest, options, one)) << least.ram - 1;
    // And of --kv-ram, with memory for everything.
    options.memory = Bytes{uint64_t{1} << 30};
    options.kv_memory = Bytes{0};
    options.kv_memory = Bytes{least_budgets(options, needs).kv_ram};
    EXPECT_TRUE(runs(manifest, options, one)) << options.kv_memory->count;
    options.kv_memory = Bytes{options.kv_memory->count - 1};
    EXPECT_FALSE(runs(manifest, options, one)) << options.kv_memory->count;
  }

  test::TemporaryFolder folder_;
};

TEST_F(BudgetNeedsTest, TheLeastRamAndKvRamRunAndAByteLessDoesNot) {
  const std::string demo = kSource + "/configs/demo/demo.gguf", cases = kSource + "/tests/reference/cases/";
  for (const std::string& model : {demo, cases + "mixtral", cases + "llama_tied", cases + "qwen3_moe"})
    for (const bool spills : {true, false})
      for (const uint32_t context : {32u, 100u, 300u}) {
        the_least_runs_and_a_byte_less_does_not({model, {}, context, true, false, spills});
        the_least_runs_and_a_byte_less_does_not({model, {1, 3}, context, false, false, spills});
      }
  the_least_runs_and_a_byte_less_does_not({demo, {}, 300, true, true});
  the_least_runs_and_a_byte_less_does_not({demo, {4, 7}, 300, false, true, false, KvType::kF16});
}

TEST_F(BudgetNeedsTest, TheLeastDiskHoldsWhatMemoryDoesNot) {
  Case one{kSource + "/configs/demo/demo.gguf", {1, 10}, 900};
  const Manifest manifest = read_manifest(one.model);
  const ModelSpec spec = read_spec(manifest);
  EngineOptions options = options_of(one);
  options.memory = Bytes{uint64_t{1} << 30};
  options.kv_memory = Bytes{uint64_t{2} << 20};
  options.kv_disk = Bytes{0};
  const BudgetNeeds needs = budget_needs(manifest, spec, options, {one.layers, true, false}, one.context);
  const LeastBudgets least = least_budgets(options, needs);
  EXPECT_FALSE(runs(manifest, options, one));
  const std::string text = refuse_budgets(options, least, "it");
  EXPECT_NE(text.find("the least --disk for it is"), std::string::npos) << text;
  EXPECT_NE(text.find(std::to_string(least.kv_disk) + " bytes"), std::string::npos) << text;
  options.kv_disk = Bytes{least.kv_disk};
  EXPECT_TRUE(runs(manifest, options, one));
  options.kv_disk = Bytes{least.kv_disk - 1};
  EXPECT_FALSE(runs(manifest, options, one));
}

// Too little disk to spill to is no reason to refuse what memory holds, if weights give way.
TEST_F(BudgetNeedsTest, KvThatTheDiskDoesNotHoldTakesMemoryFromWeights) {
  Case one{kSource + "/configs/demo/demo.gguf", {1, 10}, 300, true, false, false};
  const Manifest manifest = read_manifest(one.model);
  const ModelSpec spec = read_spec(manifest);
  EngineOptions options = options_of(one);
  options.memory = Bytes{
      least_budgets(options, budget_needs(manifest, spec, options, {one.layers, true, false}, one.context))
          .ram};
  options.kv_places = {folder_.path() + "/kv"};
  options.kv_disk = Bytes{3 << 20};
  EXPECT_TRUE(runs(manifest, options, one));
}

}  // namespace
}  // namespace caravan
