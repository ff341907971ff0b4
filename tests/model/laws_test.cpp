// Laws 1, 2 and 3 on the real engine: any cut, budget, batch, chunking, instruction set, number of threads
// and way of taking softmax pieces gives the same bits, for the demo model and a mixture of experts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "base/random.h"
#include "compute/cpu/isa.h"
#include "tests/model/law_models.h"
#include "tests/support/sanitized.h"
#include "tests/support/test_model.h"

namespace caravan {
namespace {

// All that this machine has, whether or not the build took it along; one that it lacks is named, so that
// nobody takes it for tested.
std::vector<cpu::Isa> instruction_sets() {
  std::vector<cpu::Isa> sets{cpu::Isa::kScalar};
  const auto add = [&sets](bool here, cpu::Isa isa, const char* name) {
    if (here)
      sets.push_back(isa);
    else
      std::printf("not here: this machine has no %s\n", name);
  };
  add(cpu::has_avx2(), cpu::Isa::kAvx2, "AVX2");
  add(cpu::has_avx512(), cpu::Isa::kAvx512, "AVX-512 (F, BW, DQ, VL, VNNI)");
  return sets;
}

class Laws : public testing::TestWithParam<std::string> {
 protected:
  const Manifest manifest_ = test::law_model(GetParam());
  const uint32_t vocabulary_ = read_spec(manifest_).vocabulary;
};

TEST_P(Laws, AnyCutGivesTheSameBits) {
  SeededRandom random(1);
  const auto ids = random_ids(random, 70, vocabulary_);
  const auto whole = TestModel(manifest_).prompt_logits(ids, 96);
  const uint32_t layers = manifest_.layer_count;
  std::vector<uint32_t> every;
  for (uint32_t i = 1; i < layers; ++i) every.push_back(i);
  for (const auto& cuts :
       {std::vector<uint32_t>{1}, std::vector<uint32_t>{layers / 3, layers * 2 / 3}, every})
    EXPECT_TRUE(same_bits(TestModel(manifest_, cuts).prompt_logits(ids, 33), whole))
        << cuts.size() + 1 << " stages";
}

TEST_P(Laws, AnyChunkingAndNumberOfPiecesAtATimeGivesTheSameBits) {
  SeededRandom random(2);
  const auto ids = random_ids(random, 600, vocabulary_);  // three softmax pieces
  const TestModelOptions options{.context = 640};
  const auto whole = TestModel(manifest_, {}, options).prompt_logits(ids, 96);
  for (const uint32_t pieces : {1u, 2u}) {
    TestModelOptions few = options;
    few.pieces_per_mix = pieces;
    EXPECT_TRUE(same_bits(TestModel(manifest_, {}, few).prompt_logits(ids, 41), whole))
        << pieces << " at a time";
  }
}

// Sequences advance in steps of random mixtures: prompts in chunks of any size beside single rows of others.
std::map<uint64_t, std::vector<float>> run_mixtures(TestModel& model,
                                                    const std::vector<std::vector<TokenId>>& prompts,
                                                    uint64_t seed) {
  SeededRandom random(seed);
  std::map<uint64_t, std::vector<float>> logits;
  std::vector<uint32_t> done(prompts.size(), 0);
  for (uint64_t s = 0; s < prompts.size(); ++s) model.open(s);
  for (;;) {
    std::vector<TestModel::Chunk> step;
    uint32_t room = 96;
    const size_t first = random.below(prompts.size());
    for (size_t k = 0; k < prompts.size(); ++k) {
      const size_t s = (first + k) % prompts.size();
      const auto left = static_cast<uint32_t>(prompts[s].size()) - done[s];
      if (left == 0 || room == 0 || random.below(4) == 0) continue;
      const uint32_t most = std::min(left, room);
      const auto count = random.below(2) ? 1u : static_cast<uint32_t>(1 + random.below(most));
      step.push_back({s, done[s], {prompts[s].begin() + done[s], prompts[s].begin() + done[s] + count}});
      done[s] += count;
      room -= count;
    }
    if (step.empty()) {
      if (std::equal(done.begin(), done.end(), prompts.begin(),
                     [](uint32_t have, const auto& prompt) { return have == prompt.size(); }))
        break;
      continue;
    }
    const auto out = model.logits(model.rows(step));
    size_t at = 0;
    for (const auto& chunk : step) {
      const size_t size = chunk.ids.size() * model.spec().vocabulary;
      logits[chunk.sequence].insert(logits[chunk.sequence].end(), out.begin() + static_cast<long>(at),
                                    out.begin() + static_cast<long>(at + size));
      at += size;
    }
  }
  for (uint64_t s = 0; s < prompts.size(); ++s) model.close(s);
  return logits;
}

TEST_P(Laws, AnyMixtureOfRowsOnAnyInstructionSetAndThreadsGivesTheSameBits) {
  SeededRandom random(3);
  std::vector<std::vector<TokenId>> prompts;
  constexpr int kSequences = test::kSanitized ? 3 : 5;
  for (int i = 0; i < kSequences; ++i)
    prompts.push_back(random_ids(random, 1 + random.below(60), vocabulary_));
  std::vector<std::vector<float>> alone;
  TestModel reference(manifest_, {}, {.isa = cpu::Isa::kScalar});
  for (const auto& prompt : prompts) alone.push_back(reference.prompt_logits(prompt, 96));
  uint64_t seed = 10;
  for (const cpu::Isa isa : instruction_sets())
    for (const uint32_t threads : {1u, 2u}) {
      if (test::kSanitized && threads == 1) continue;
      TestModel model(manifest_, {1}, {.threads = threads, .isa = isa});
      const auto mixed = run_mixtures(model, prompts, ++seed);
      for (uint64_t s = 0; s < prompts.size(); ++s)
        EXPECT_TRUE(same_bits(mixed.at(s), alone[s]))
            << "instruction set " << static_cast<int>(isa) << ", " << threads << " threads, sequence " << s;
      EXPECT_EQ(model.kv_blocks_free(), 64u);
    }
}

// Weights streamed through a budget of two groups (and two experts), or of two thirds, from the file or from
// a source that cannot be mapped.
TEST_P(Laws, AnyWeightBudgetGivesTheSameBits) {
  SeededRandom random(5);
  std::vector<std::vector<TokenId>> prompts;
  for (int i = 0; i < 4; ++i) prompts.push_back(random_ids(random, 1 + random.below(60), vocabulary_));
  TestModel whole(manifest_, {1});
  EXPECT_TRUE(whole.pager().mapped());
  std::vector<std::vector<float>> alone;
  for (const auto& prompt : prompts) alone.push_back(whole.prompt_logits(prompt, 96));
  const uint64_t least = whole.pager().least_bytes(), all = whole.pager().total_bytes();
  uint64_t seed = 20;
  for (const uint64_t limit : {least, std::max(least, all / 3 * 2)})
    for (const bool uring : {true, false}) {
      TestModel model(manifest_, {1}, {.pager = {.limit = Bytes{limit}, .reader = {.allow_uring = uring}}});
      EXPECT_FALSE(model.pager().mapped());
      const auto mixed = run_mixtures(model, prompts, ++seed);
      for (uint64_t s = 0; s < prompts.size(); ++s)
        EXPECT_TRUE(same_bits(mixed.at(s), alone[s])) << "limit " << limit << ", sequence " << s;
      EXPECT_GT(model.pager().counters().bytes_read.value(), 0u);
    }
}

// Prompts whose steps choose nearly all experts of a layer, so that the next one's are read ahead, beside
// single tokens, through room for two of them, for a few, and for most.
TEST(ExpertLaws, ScansThroughAnyRoomGiveTheSameBits) {
  const Manifest manifest = test::law_model("experts");
  SeededRandom random(9);
  const auto ids = random_ids(random, test::kSanitized ? 150 : 300, read_spec(manifest).vocabulary);
  const TestModelOptions options{.context = 320};
  TestModel whole(manifest, {}, options);
  const std::vector<float> logits = whole.prompt_logits(ids, 96);
  const uint64_t least = whole.pager().least_bytes(), all = whole.pager().total_bytes();
  for (uint64_t part = 0; part < 4; ++part) {
    TestModelOptions few = options;
    few.pager.limit = Bytes{least + (all - least) / 4 * part};
    TestModel model(manifest, {}, few);
    ASSERT_FALSE(model.pager().mapped());
    for (const uint32_t chunk : {96u, 1u, 40u})
      EXPECT_TRUE(same_bits(model.prompt_logits(ids, chunk), logits)) << part << " quarters, by " << chunk;
  }
}

// KV in two blocks of memory, in a third of what the sequences take, and in almost all of it; the rest on
// disk. Together with weights in two groups, too.
TEST_P(Laws, AnyKvBudgetGivesTheSameBits) {
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    SeededRandom random(6);
    std::vector<std::vector<TokenId>> prompts;
    for (const size_t most : {300, 90, 40, 1})
      prompts.push_back(random_ids(random, most / 2 + 1 + random.below(most / 2 + 1), vocabulary_));
    const TestModelOptions options{.kv_type = type, .context = 320};
    TestModel whole(manifest_, {1}, options);
    std::vector<std::vector<float>> alone;
    uint32_t blocks = 0;
    for (const auto& prompt : prompts) {
      alone.push_back(whole.prompt_logits(prompt, 96));
      blocks += static_cast<uint32_t>(prompt.size() + 31) / 32;
    }
    EXPECT_EQ(whole.kv_counters().bytes_written.value(), 0u);
    uint64_t seed = 30;
    for (const uint32_t frames : {2u, blocks / 3, blocks - 1})
      for (const bool stream : {false, true}) {
        if (test::kSanitized && stream != (type == KvType::kF16)) continue;
        TestModelOptions few = options;
        few.kv_frames = frames;
        if (stream) few.pager.limit = Bytes{whole.pager().least_bytes()};
        TestModel model(manifest_, {1}, few);
        const auto mixed = run_mixtures(model, prompts, ++seed);
        for (uint64_t s = 0; s < prompts.size(); ++s)
          EXPECT_TRUE(same_bits(mixed.at(s), alone[s]))
              << frames << " frames, KV type " << static_cast<int>(type) << ", sequence " << s;
        EXPECT_EQ(model.kv_blocks_free(), 64u);
        EXPECT_GT(model.kv_counters().bytes_written.value(), 0u);
        if (frames < blocks - 1) {
          EXPECT_GT(model.kv_counters().bytes_read.value(), 0u);
        }
      }
  }
}

// Weights and KV in the same bytes: the border between them moves while sequences come and go, over the
// point, too, from which on all weights are mapped.
TEST_P(Laws, AnyBorderGivesTheSameBits) {
  SeededRandom random(8);
  std::vector<std::vector<TokenId>> prompts;
  for (const size_t most : {300, 90, 40, 1})
    prompts.push_back(random_ids(random, most / 2 + 1 + random.below(most / 2 + 1), vocabulary_));
  const TestModelOptions options{.context = 320};
  TestModel whole(manifest_, {1}, options);
  std::vector<std::vector<float>> alone;
  uint64_t blocks = 0;
  for (const auto& prompt : prompts) {
    alone.push_back(whole.prompt_logits(prompt, 96));
    blocks += (prompt.size() + 31) / 32;
  }
  const uint64_t block = whole.kv_memory().count / options.kv_blocks;
  const uint64_t least = whole.pager().least_bytes(), all = whole.pager().total_bytes();
  uint64_t seed = 40;
  for (const uint64_t weights : {least, std::max(least, all - block * blocks / 2)})
    for (const bool spills : {false, true}) {
      if (test::kSanitized && spills == (weights == least)) continue;
      TestModelOptions shared = options;
      shared.kv_frames = spills ? static_cast<uint32_t>(blocks / 2) : 0;
      const uint32_t most = spills ? shared.kv_frames : options.kv_blocks;
      const uint64_t staging = spills ? whole.kv_memory().count : 0;  // more than enough
      shared.shared_bytes = weights + block * most + staging;
      shared.pager.limit = Bytes{least};
      TestModel model(manifest_, {1}, shared);
      const uint64_t before = model.kv_memory().count, limit = model.pager().limit().count;
      for (int life = 0; life < 2; ++life) {
        const auto mixed = run_mixtures(model, prompts, ++seed);
        for (uint64_t s = 0; s < prompts.size(); ++s)
          EXPECT_TRUE(same_bits(mixed.at(s), alone[s])) << weights << ", " << spills << ", sequence " << s;
        EXPECT_GT(model.kv_memory().count, before) << "KV took more";
        EXPECT_LT(model.pager().limit().count, limit) << "from the weights";
        for (uint32_t i = 0; i <= KvBorder::kIdleSteps; ++i) model.idle();
        EXPECT_EQ(model.pager().limit().count + model.kv_memory().count, shared.shared_bytes);
        EXPECT_GT(model.pager().limit().count, least) << "and gave it back";
      }
    }
}

// Windows over some layers or all: what no layer reaches is not read, and the bits stay.
TEST(KvWindows, AnyKvBudgetGivesTheSameBits) {
  for (const char* name : {"mistral", "odd_qwen3_moe_window", "odd_smollm3_window_unroped"}) {
    const Manifest manifest =
        read_manifest(std::string(CARAVAN_SOURCE_DIR) + "/tests/reference/cases/" + name);
    const ModelSpec spec = read_spec(manifest);
    SeededRandom random(7);
    const auto ids = random_ids(random, 330, spec.vocabulary);
    const TestModelOptions options{.context = 352};
    const auto whole = TestModel(manifest, {}, options).prompt_logits(ids, 96);
    for (const uint32_t frames : {2u, 5u}) {
      TestModelOptions few = options;
      few.kv_frames = frames;
      TestModel model(manifest, {1}, few);
      EXPECT_TRUE(same_bits(model.prompt_logits(ids, 50), whole)) << name << ", " << frames << " frames";
    }
  }
}

TEST_P(Laws, HalfPrecisionKvKeepsTheLawsAmongItself) {
  SeededRandom random(4);
  const auto ids = random_ids(random, 70, vocabulary_);
  const TestModelOptions half{.kv_type = KvType::kF16};
  EXPECT_TRUE(same_bits(TestModel(manifest_, {}, half).prompt_logits(ids, 96),
                        TestModel(manifest_, {1, 2}, half).prompt_logits(ids, 7)));
}

INSTANTIATE_TEST_SUITE_P(Models, Laws, testing::Values("demo", "experts"),
                         [](const auto& which) { return which.param; });

TEST(Stage, RefusesRowsThatDoNotContinueTheirSequence) {
  TestModel model(test::law_model("demo"), {}, {.context = 64, .kv_blocks = 2});
  model.open(1);
  model.rows({{1, 0, {5, 6, 7}}});
  EXPECT_THROW(model.rows({{1, 2, {8}}}), Error);
  EXPECT_THROW(model.rows({{1, 4, {8}}}), Error);
  EXPECT_THROW(model.rows({{2, 0, {8}}}), Error);
  EXPECT_THROW(model.rows({{1, 3, std::vector<TokenId>(62, 8)}}), Error) << "over the context";
  EXPECT_THROW(model.rows({{1, 3, {4096}}}), Error) << "no such token";
  EXPECT_NO_THROW(model.rows({{1, 3, {8}}}));
}

}  // namespace
}  // namespace caravan
