#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/budget.h"
#include "base/random.h"
#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/cpu_device.h"
#include "model/families.h"
#include "model/stage.h"
#include "model/weights.h"
#include "shards/manifest.h"
#include "store/memory_bulk.h"

namespace caravan {

struct TestModelOptions {
  uint32_t threads = 1;
  cpu::Isa isa = cpu::Isa::kBest;
  Activations activations = Activations::kInt8;
  KvType kv_type = KvType::kF32;
  uint32_t max_rows = 96;
  uint32_t context = 256;
  uint32_t kv_blocks = 64;
  uint32_t pieces_per_mix = 8;
  PagerOptions pager = {};  // of all stages together
  uint32_t kv_frames = 0;   // fewer than blocks: the rest goes to a store in memory
  MemoryBulk::Inject kv_faults = nullptr;
  KvArchive* archive = nullptr;  // of all stages
  // Of weights and KV together: the border between them moves, from the least frames on. 0: it does not.
  uint64_t shared_bytes = 0;
  uint32_t least_frames = 2;
};

std::vector<TokenId> random_ids(Random& random, size_t count, uint32_t vocabulary);
bool same_bits(const std::vector<float>& a, const std::vector<float>& b);

// A model cut into stages in one process: what a ring computes, without the ring.
class TestModel : private KvNeighbour {
 public:
  // `cuts`: the first layers of the second, third, … stage.
  TestModel(const Manifest& manifest, std::vector<uint32_t> cuts = {}, TestModelOptions options = {});

  const ModelSpec& spec() const { return spec_; }
  void open(uint64_t sequence);
  void close(uint64_t sequence);
  // Opens it with the first blocks as they are in the archive.
  void load(uint64_t sequence, const std::vector<BlockTag>& tags);
  void truncate(uint64_t sequence, uint32_t positions);
  // Leading blocks that every stage finds in the archive.
  uint32_t archived(const std::vector<BlockTag>& tags) const;
  // A step without rows: what was archived is noted, and more is.
  void idle();
  // Rows of several sequences through all stages; after_stage hears of the rows after each stage.
  struct Chunk {
    uint64_t sequence;
    uint32_t first_position;
    std::vector<TokenId> ids;
    std::vector<BlockTag> tags = {};  // of the blocks it completes
  };
  // The last layer's rows, [sum of ids, width]. Throws the first failure of a range.
  std::vector<float> rows(const std::vector<Chunk>& chunks,
                          std::vector<std::vector<float>>* after_stage = nullptr);
  std::vector<float> logits(const std::vector<float>& rows);
  std::vector<float> final_norm(const std::vector<float>& rows);
  // The prompt's logits at every position, opening and closing a sequence, in chunks of at most `chunk` rows.
  std::vector<float> prompt_logits(const std::vector<TokenId>& ids, uint32_t chunk);
  // Greedy continuation with a cache; the prompt in chunks. `stop` ends before that id.
  std::vector<TokenId> greedy(const std::vector<TokenId>& prompt, uint32_t count, uint32_t chunk,
                              std::vector<float>* margins = nullptr);
  uint32_t kv_blocks_free() const;
  Pager& pager() { return pager_; }
  Bytes kv_memory() const { return budget_.used(MemoryTag::kState); }
  const KvCounters& kv_counters() const { return kv_counters_; }  // of all stages

 private:
  void make_room(Bytes more) override { pager_.set_limit(weights_room() - more); }
  void take_room() override { pager_.set_limit(weights_room()); }
  Bytes weights_room() const { return Bytes{options_.shared_bytes} - kv_memory(); }

  const TestModelOptions options_;
  const ModelSpec spec_;
  Budget budget_;
  CpuDevice device_;
  CpuBackend backend_;
  SystemClock clock_;
  Pager pager_;
  std::vector<std::unique_ptr<ModelWeights>> weights_;
  KvCounters kv_counters_;
  std::vector<std::unique_ptr<MemoryBulk>> stores_;
  std::vector<std::unique_ptr<Stage>> stages_;  // layers
  std::unique_ptr<Stage> embed_, output_;
};

}  // namespace caravan
