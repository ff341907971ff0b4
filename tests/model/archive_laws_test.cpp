// The paging law with an archive: what is computed behind loaded blocks has the bits of what is computed
// behind computed ones.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "store/memory_store.h"
#include "tests/model/law_models.h"
#include "tests/support/test_model.h"

namespace caravan {
namespace {

// Tags of the whole blocks among the ids: a chain.
std::vector<BlockTag> chained_tags(const std::vector<TokenId>& ids) {
  std::vector<BlockTag> tags;
  uint64_t chain = 5;
  for (size_t i = 0; i + 32 <= ids.size(); i += 32) {
    for (size_t p = i; p < i + 32; ++p) chain = mix64(chain + ids[p]);
    BlockTag tag;
    for (int k = 0; k < 8; ++k) tag.bytes[k] = static_cast<uint8_t>(chain >> (8 * k));
    tags.push_back(tag);
  }
  return tags;
}

// The logits of the ids from `first` on, in chunks; the blocks that they complete are archived.
std::vector<float> logits_from(TestModel& model, uint64_t sequence, const std::vector<TokenId>& ids,
                               uint32_t first, uint32_t chunk) {
  const std::vector<BlockTag> tags = chained_tags(ids);
  std::vector<float> all;
  for (uint32_t last = first; first < ids.size(); first = last) {
    last = std::min(static_cast<uint32_t>(ids.size()), first + chunk);
    const auto part = model.logits(model.rows({{sequence,
                                                first,
                                                {ids.begin() + first, ids.begin() + last},
                                                {tags.begin() + first / 32, tags.begin() + last / 32}}}));
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

class ArchiveLaws : public testing::TestWithParam<std::string> {};

// With few frames and many, f32 and f16, and for another cut of the layers.
TEST_P(ArchiveLaws, BlocksFromTheArchiveGiveTheSameBits) {
  const Manifest manifest = test::law_model(GetParam());
  const uint32_t vocabulary = read_spec(manifest).vocabulary;
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    SeededRandom random(8);
    const auto ids = random_ids(random, 9 * 32 + 11, vocabulary);
    const std::vector<BlockTag> tags = chained_tags(ids);
    const auto values = std::make_shared<MemoryBulk>();
    const auto records = std::make_shared<MemoryStore>();
    const SystemClock clock;
    const KvArchiveOptions bound{Bytes{64 << 20}, std::nullopt, {}, "the archive"};
    std::vector<float> whole;
    {
      KvArchive archive(values, records, clock, bound);
      TestModel model(manifest, {1}, {.kv_type = type, .context = 320, .archive = &archive});
      model.open(1);
      whole = logits_from(model, 1, ids, 0, 96);
      for (int i = 0; i < 5000 && model.archived(tags) < tags.size(); ++i) {
        model.idle();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ASSERT_EQ(model.archived(tags), 9u);
    }
    KvArchive archive(values, records, clock, bound);
    const std::vector<std::vector<uint32_t>> cuts = {{1}, {}, {2}};
    for (size_t i = 0; i < cuts.size(); ++i)
      for (const uint32_t frames : {0u, 2u, 6u}) {
        TestModel model(manifest, cuts[i],
                        {.kv_type = type, .context = 320, .kv_frames = frames, .archive = &archive});
        const uint32_t blocks = 9 - static_cast<uint32_t>(i);
        const uint64_t before = archive.counters().bytes_read.value();
        model.load(1, {tags.begin(), tags.begin() + blocks});
        const auto rest = logits_from(model, 1, ids, blocks * 32, i == 1 ? 1 : 40);
        const std::vector<float> expected(whole.end() - static_cast<long>(rest.size()), whole.end());
        EXPECT_TRUE(same_bits(rest, expected))
            << "cut " << i << ", " << frames << " frames, KV type " << static_cast<int>(type);
        EXPECT_GT(archive.counters().bytes_read.value(), before);
        // All of them, but for the last position.
        model.load(2, tags);
        model.truncate(2, 9 * 32 - 1);
        const auto last = logits_from(model, 2, ids, 9 * 32 - 1, 40);
        EXPECT_TRUE(same_bits(last, {whole.end() - static_cast<long>(last.size()), whole.end()}));
        model.close(2);
        model.close(1);
        EXPECT_EQ(model.kv_blocks_free(), 64u);
      }
    EXPECT_EQ(archive.counters().quarantined.value(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ArchiveLaws, testing::Values("demo", "experts"),
                         [](const auto& which) { return which.param; });

}  // namespace
}  // namespace caravan
