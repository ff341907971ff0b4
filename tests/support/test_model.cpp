#include "tests/support/test_model.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "model/sampler.h"

namespace caravan {

std::vector<TokenId> random_ids(Random& random, size_t count, uint32_t vocabulary) {
  std::vector<TokenId> ids(count);
  for (TokenId& id : ids) id = static_cast<TokenId>(random.below(vocabulary));
  return ids;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

namespace {

CpuBackendOptions backend_options(const ModelSpec& spec, const TestModelOptions& options) {
  CpuBackendOptions backend{
      options.threads, options.isa, options.activations, options.max_rows, spec.width, 0, 0, 0};
  for (const LayerSpec& layer : spec.layers) {
    const HeadShape& shape = layer.attention.shape;
    backend.max_width = std::max(backend.max_width, shape.heads * shape.head_width);
    backend.max_head_width = std::max(backend.max_head_width, shape.head_width);
    backend.max_feed_forward = std::max(backend.max_feed_forward, layer.feed_forward.width);
    backend.max_experts = std::max(backend.max_experts, layer.feed_forward.experts);
  }
  return backend;
}

}  // namespace

TestModel::TestModel(const Manifest& manifest, std::vector<uint32_t> cuts, TestModelOptions options)
    : options_(options),
      spec_(read_spec(manifest)),
      budget_("ram", Bytes{uint64_t{4} << 30}),
      backend_(backend_options(spec_, options), budget_),
      pager_(manifest.source, clock_, &budget_, options.pager) {
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(spec_.layer_count());
  const auto make = [&](UnitSpan span) {
    StageOptions stage;
    stage.span = span;
    stage.kv_type = options.kv_type;
    stage.context = options.context;
    stage.kv_blocks = options.kv_blocks;
    stage.max_rows = options.max_rows;
    stage.pieces_per_mix = options.pieces_per_mix;
    if (options.kv_frames > 0) {
      stores_.push_back(std::make_unique<MemoryBulk>(options.kv_faults));
      stage.spill = KvSpill{
          stores_.back().get(), &clock_, &kv_counters_, "the test's store", options.kv_frames, span.first, 2};
    }
    if (options.archive) {
      if (!stage.spill)
        stage.spill = KvSpill{nullptr, &clock_, &kv_counters_, "no store", options.kv_blocks, span.first, 2};
      stage.spill->archive = options.archive;
    }
    if (options.shared_bytes > 0) stage.sharing = KvSharing{this, options.least_frames};
    weights_.push_back(std::make_unique<ModelWeights>(manifest, spec_, span, pager_));
    return std::make_unique<Stage>(spec_, *weights_.back(), backend_, device_, budget_, stage);
  };
  for (size_t i = 0; i + 1 < cuts.size(); ++i) stages_.push_back(make({cuts[i] + 1, cuts[i + 1] + 1}));
  embed_ = make({0, 1});
  output_ = make({spec_.layer_count() + 1, spec_.layer_count() + 2});
  if (options.shared_bytes > 0) take_room();
}

void TestModel::open(uint64_t sequence) {
  for (auto& stage : stages_) stage->sequences().open(SequenceId{sequence});
}

void TestModel::close(uint64_t sequence) {
  for (auto& stage : stages_) stage->sequences().close(SequenceId{sequence});
}

void TestModel::load(uint64_t sequence, const std::vector<BlockTag>& tags) {
  const auto positions = static_cast<uint32_t>(tags.size()) * limits::kKvBlockPositions;
  for (auto& stage : stages_) stage->sequences().load(SequenceId{sequence}, positions, tags);
}

void TestModel::truncate(uint64_t sequence, uint32_t positions) {
  for (auto& stage : stages_) stage->sequences().truncate(SequenceId{sequence}, positions);
}

uint32_t TestModel::archived(const std::vector<BlockTag>& tags) const {
  auto blocks = static_cast<uint32_t>(tags.size());
  for (const auto& stage : stages_) {
    const UnitSpan span = stage->options().span;
    blocks =
        std::min(blocks, options_.archive->find(Lineage{}, span.first, span.last - span.first, tags).blocks);
  }
  return blocks;
}

void TestModel::idle() {
  for (auto& stage : stages_) {
    stage->sequences().begin_step();
    stage->sequences().end_step();
  }
}

uint32_t TestModel::kv_blocks_free() const {
  return stages_[0]->sequences().blocks_free();
}

std::vector<float> TestModel::rows(const std::vector<Chunk>& chunks,
                                   std::vector<std::vector<float>>* after_stage) {
  std::vector<TokenId> ids;
  std::vector<StageRange> ranges;
  for (const Chunk& chunk : chunks) {
    ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
    ranges.push_back({SequenceId{chunk.sequence}, chunk.first_position,
                      static_cast<uint32_t>(chunk.ids.size()), chunk.tags});
  }
  std::vector<float> rows(ids.size() * spec_.width);
  embed_->embed(ids, rows.data());
  if (after_stage) after_stage->push_back(rows);
  for (auto& stage : stages_) {
    const auto failures = stage->run(ranges, rows.data());
    if (!failures.empty()) throw Error(failures.front().error);
    if (after_stage) after_stage->push_back(rows);
  }
  return rows;
}

std::vector<float> TestModel::logits(const std::vector<float>& rows) {
  const auto count = static_cast<uint32_t>(rows.size() / spec_.width);
  std::vector<float> logits(size_t{count} * spec_.vocabulary);
  output_->output(rows.data(), count, logits.data());
  return logits;
}

std::vector<float> TestModel::prompt_logits(const std::vector<TokenId>& ids, uint32_t chunk) {
  std::vector<float> all;
  open(1);
  for (uint32_t first = 0; first < ids.size(); first += chunk) {
    const auto last = std::min<size_t>(ids.size(), first + chunk);
    const auto part =
        logits(rows({{1, first, {ids.begin() + first, ids.begin() + static_cast<long>(last)}}}));
    all.insert(all.end(), part.begin(), part.end());
  }
  close(1);
  return all;
}

std::vector<TokenId> TestModel::greedy(const std::vector<TokenId>& prompt, uint32_t count, uint32_t chunk,
                                       std::vector<float>* margins) {
  std::vector<TokenId> ids;
  SamplerScratch scratch;
  open(1);
  std::vector<float> last;
  for (uint32_t first = 0; first < prompt.size(); first += chunk) {
    const auto end = std::min<size_t>(prompt.size(), first + chunk);
    const auto part = rows({{1, first, {prompt.begin() + first, prompt.begin() + static_cast<long>(end)}}});
    last.assign(part.end() - spec_.width, part.end());
  }
  while (ids.size() < count) {
    const auto scores = logits(last);
    ids.push_back(caravan::greedy(scores));
    if (margins) {
      const auto top = top_logprobs(scores, 2, scratch);
      margins->push_back(top[0].logit - top[1].logit);
    }
    last = rows({{1, static_cast<uint32_t>(prompt.size() + ids.size() - 1), {ids.back()}}});
  }
  close(1);
  return ids;
}

std::vector<float> TestModel::final_norm(const std::vector<float>& rows) {
  std::vector<float> out(rows.size());
  output_->normalise(rows.data(), static_cast<uint32_t>(rows.size() / spec_.width), out.data());
  return out;
}

}  // namespace caravan
