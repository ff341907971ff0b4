// The border between weights and KV where all KV that is wanted fits into memory, but not beside all weights.
#include "daemon/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/limits.h"
#include "cache/kv_border.h"
#include "cache/kv_cache.h"
#include "daemon/budget_needs.h"
#include "model/families.h"
#include "shards/manifest.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

constexpr uint32_t kContext = 256, kSequences = 4, kRows = 32;

class EngineTest : public testing::Test {
 protected:
  EngineTest() : manifest_(read_manifest(CARAVAN_SOURCE_DIR "/configs/demo/demo.gguf")) {
    options_.threads = 2;
    options_.max_rows = kRows;
    options_.kv_places = {folder_.path() + "/spilled"};
    options_.kv_disk = options_.archive.limit = Bytes{uint64_t{1} << 30};
    options_.archive.folder = folder_.path() + "/archive";
  }

  // With hardly more than the least memory that has room for all KV; weights do not fit beside it then.
  std::unique_ptr<Engine> engine_without_room_for_all() {
    for (uint64_t quarters = 4;; ++quarters) {
      options_.memory = {quarters << 18};
      try {
        if (!room_for_all(Engine(manifest_, options_))) continue;
        options_.memory.count += 1 << 20;
        auto engine = std::make_unique<Engine>(manifest_, options_);
        EXPECT_TRUE(room_for_all(*engine));
        return engine;
      } catch (const Error&) {
        // Too little for the scratch.
      }
    }
  }
  bool room_for_all(const Engine& engine) {
    room_ = engine.kv_room(layers(engine), kContext, KvType::kF32, wanted());
    return room_.blocks == wanted() && !room_.spills();
  }
  static UnitSpan layers(const Engine& engine) { return {0, engine.spec().unit_count()}; }
  static uint32_t wanted() { return kContext / limits::kKvBlockPositions; }

  void fill(Engine::Hosted& hosted, uint64_t sequence, uint32_t positions) {
    const SequenceId id{sequence};
    hosted.stage->sequences().open(id);
    for (uint32_t first = 0; first < positions; first += kRows) step(hosted, sequence, first, kRows);
  }
  void step(Engine::Hosted& hosted, uint64_t sequence, uint32_t first, uint32_t count) {
    std::vector<float> rows(size_t{count} * width_, 0.01f);
    const StageRange range{SequenceId{sequence}, first, count};
    EXPECT_TRUE(hosted.stage->run({&range, 1}, rows.data()).empty());
  }
  // Memory of KV once others have idled, as it was before they came, and in between.
  struct Taken {
    uint64_t before, with_others, after;
  };
  Taken idle_beside_one() {
    const std::unique_ptr<Engine> engine = engine_without_room_for_all();
    width_ = engine->spec().width;
    Engine::Hosted hosted = engine->host(layers(*engine), kContext, room_, {}, std::nullopt, Lineage{});
    Taken taken{};
    taken.before = engine->memory().state_bytes;
    for (uint64_t sequence = 1; sequence < kSequences; ++sequence)
      fill(hosted, sequence, kContext / kSequences);
    taken.with_others = engine->memory().state_bytes;
    hosted.stage->sequences().open(SequenceId{kSequences});
    for (uint32_t i = 0; i < 4 * KvBorder::kIdleSteps; ++i) {
      hosted.stage->sequences().truncate(SequenceId{kSequences}, 0);
      step(hosted, kSequences, 0, 1);
    }
    taken.after = engine->memory().state_bytes;
    return taken;
  }

  const test::TemporaryFolder folder_;
  const Manifest manifest_;
  EngineOptions options_;
  KvRoom room_;
  uint32_t width_ = 0;
};

TEST_F(EngineTest, ConversationsThatIdleGiveTheirMemoryToTheWeights) {
  const Taken taken = idle_beside_one();
  EXPECT_GT(taken.with_others, taken.before);
  EXPECT_LT(taken.after - taken.before, (taken.with_others - taken.before) / 2);
}

TEST_F(EngineTest, SoTheyDoWithoutAnArchive) {
  options_.archive.limit = {};
  const Taken taken = idle_beside_one();
  EXPECT_GT(taken.with_others, taken.before);
  EXPECT_LT(taken.after - taken.before, (taken.with_others - taken.before) / 2);
}

// As much as there is room for on disk: four blocks of six.
TEST_F(EngineTest, ASmallDiskTakesAPart) {
  options_.archive.limit = {};
  const ModelSpec spec = read_spec(manifest_);
  const uint64_t block = KvCache::block_bytes(kv_layers(spec, {0, spec.unit_count()}), KvType::kF32).count;
  options_.kv_disk = {(4 + 32) * block};
  const Taken taken = idle_beside_one();
  EXPECT_EQ(taken.after, taken.with_others + block - 4 * block) << "one has come";
}

// A file lies where the folder is to be.
TEST_F(EngineTest, WithoutAPlaceOnDiskTheyKeepIt) {
  std::ofstream(options_.kv_places.front()) << "in the way";
  const Taken taken = idle_beside_one();
  EXPECT_GT(taken.with_others, taken.before);
  EXPECT_GE(taken.after, taken.with_others);
}

}  // namespace
}  // namespace caravan
