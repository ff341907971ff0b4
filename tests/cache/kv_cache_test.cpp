#include "cache/kv_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/limits.h"
#include "base/random.h"
#include "tests/support/fake_device.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

constexpr uint32_t kPositions = limits::kKvBlockPositions;
const std::vector<KvLayerShape> kLayers = {{2, 8}, {1, 16}};

// Writes and reads one float a position through the block table, as the value of head 0, element 0, of a
// layer.
float& value_at(KvCache& cache, SequenceId sequence, uint32_t layer, uint32_t position) {
  const KvBlock& block = cache.blocks(sequence, layer)[position / kPositions];
  return reinterpret_cast<float*>(block.values)[(position % kPositions) * kLayers[layer].head_width];
}

TEST(KvCache, CountsBlocksAndGivesThemBack) {
  FakeDevice device;
  Budget budget("ram", Bytes{1 << 20});
  KvCache cache(device, budget, kLayers, KvType::kF32, 4);
  EXPECT_EQ(budget.used(MemoryTag::kState).count, 4 * KvCache::block_bytes(kLayers, KvType::kF32).count);
  cache.open(SequenceId{1});
  cache.extend(SequenceId{1}, kPositions);
  EXPECT_EQ(cache.blocks_free(), 3u);
  cache.extend(SequenceId{1}, kPositions + 1);
  EXPECT_EQ(cache.blocks_free(), 2u);
  cache.truncate(SequenceId{1}, kPositions);
  EXPECT_EQ(cache.blocks_free(), 3u);
  cache.close(SequenceId{1});
  EXPECT_EQ(cache.blocks_free(), 4u);
  EXPECT_EQ(cache.sequence_count(), 0u);
}

TEST(KvCache, RefusesWhatItCannotHold) {
  FakeDevice device;
  Budget budget("ram", Bytes{1 << 20});
  KvCache cache(device, budget, kLayers, KvType::kF16, 2);
  cache.open(SequenceId{1});
  EXPECT_THROW(cache.open(SequenceId{1}), Error);
  EXPECT_THROW(cache.extend(SequenceId{2}, 1), Error);
  EXPECT_THROW(cache.extend(SequenceId{1}, 3 * kPositions), Error);
  EXPECT_THROW(cache.truncate(SequenceId{1}, 9 * kPositions), Error);
  EXPECT_THROW(KvCache(device, budget, kLayers, KvType::kF16, 1u << 20), Error);
}

// Random opens, forks, growth, cuts and closes against plain vectors of what each sequence should read.
TEST(KvCache, KeepsEverySequenceApart) {
  for (uint64_t seed = 0; seed < test::fewer(20); ++seed) {
    SeededRandom random(seed);
    FakeDevice device;
    Budget budget("ram", Bytes{16 << 20});
    KvCache cache(device, budget, kLayers, KvType::kF32, 64);
    std::map<SequenceId, std::vector<float>> model;
    uint64_t next_id = 1;
    float next_value = 1;
    for (int step = 0; step < 300; ++step) {
      const uint64_t choice = random.below(10);
      if (model.empty() || choice == 0) {
        cache.open(SequenceId{next_id});
        model[SequenceId{next_id++}];
        continue;
      }
      auto entry = model.begin();
      std::advance(entry, random.below(model.size()));
      const auto have = static_cast<uint32_t>(entry->second.size());
      if (choice < 6) {
        const auto positions = have + static_cast<uint32_t>(1 + random.below(40));
        const uint32_t blocks =
            (positions + kPositions - 1) / kPositions - (have + kPositions - 1) / kPositions;
        if (blocks > cache.blocks_free()) continue;
        cache.extend(entry->first, positions);
        for (uint32_t p = have; p < positions; ++p) {
          for (uint32_t layer = 0; layer < 2; ++layer) value_at(cache, entry->first, layer, p) = next_value;
          entry->second.push_back(next_value++);
        }
      } else if (choice == 6 && cache.blocks_free() > 1) {
        const auto positions = static_cast<uint32_t>(random.below(have + 1));
        cache.fork(entry->first, SequenceId{next_id}, positions);
        model[SequenceId{next_id++}].assign(entry->second.begin(), entry->second.begin() + positions);
      } else if (choice == 7 && cache.blocks_free() > 1) {
        const auto positions = static_cast<uint32_t>(random.below(have + 1));
        cache.truncate(entry->first, positions);
        entry->second.resize(positions);
      } else if (choice == 8) {
        cache.close(entry->first);
        model.erase(entry);
      }
      for (const auto& [id, values] : model) {
        ASSERT_EQ(cache.positions(id), values.size());
        for (uint32_t p = 0; p < values.size(); ++p)
          for (uint32_t layer = 0; layer < 2; ++layer)
            ASSERT_EQ(value_at(cache, id, layer, p), values[p]) << "seed " << seed << " step " << step;
      }
    }
    for (const auto& [id, values] : model) cache.close(id);
    EXPECT_EQ(cache.blocks_free(), 64u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace caravan
