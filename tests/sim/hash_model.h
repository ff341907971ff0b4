#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/unit_span.h"
#include "daemon/head_runner.h"
#include "daemon/scheduler.h"
#include "peers/stage_runner.h"
#include "proto/messages.h"
#include "tests/sim/hash_archive.h"

namespace caravan {

// A model whose rows are hashes of everything that should have shaped them: a row is 64 bits, a layer's state
// is a hash chain over the rows it saw. A lost, doubled, reordered or foreign row changes every token after
// it.
class HashModel {
 public:
  explicit HashModel(uint32_t vocabulary) : vocabulary_(vocabulary) {}

  Rows embed(const std::vector<TokenId>& tokens, CodecId codec = CodecId::kF32);
  OutputResult output(uint64_t row, const OutputRow& asked) const;
  std::vector<uint64_t> unpack(const Rows& rows) const;
  // A lossy codec loses a row's lower bits.
  Rows pack(const std::vector<uint64_t>& rows, CodecId codec = CodecId::kF32);

  // What a request must give, computed from the tokens alone: prompt and answer in one plain loop over
  // positions and layers, with none of the code that serves it. `cuts`: the units before which rows go
  // through a lossy codec.
  struct Reference {
    std::vector<TokenId> tokens;
    FinishReason finish = FinishReason::kLength;
    std::vector<float> prompt_logits;  // one a position
  };
  Reference reference(const TokenRequest& request, uint32_t layers, uint32_t max_positions,
                      const std::set<uint32_t>& cuts = {}) const;

  // Encoded buffers that are alive anywhere.
  size_t live_buffers() const { return *live_; }

 private:
  uint32_t vocabulary_;
  std::shared_ptr<size_t> live_ = std::make_shared<size_t>(0);
};

// One stage's share of it, with the KV blocks a real one would use.
class HashStage {
 public:
  // `archive`: of the process, or none.
  HashStage(HashModel& model, const StagePlan& plan, uint64_t kv_blocks, HashArchive* archive)
      : model_(model), plan_(plan), span_(plan.span), kv_blocks_(kv_blocks), archive_(archive) {}

  // Empty error: `rows` is the result.
  struct Result {
    Rows rows;
    std::string error;
    std::vector<SequenceId> lost = {};
  };
  Result run(const Step& step);
  size_t sequences() const { return sequences_.size(); }
  uint64_t blocks_used() const;

 private:
  // [layer of the span][position]: the chain up to there.
  using Chains = std::vector<std::vector<uint64_t>>;
  std::string apply(const SequenceOperation& operation);
  void load(const SequenceOperation& operation, std::span<const BlockTag> tags);
  void archive(const RowRange& range, const Chains& chains, std::span<const BlockTag> tags);
  uint64_t through_layers(Chains& chains, uint64_t row);

  HashModel& model_;
  const StagePlan plan_;
  const UnitSpan span_;
  const uint64_t kv_blocks_;
  HashArchive* const archive_;
  std::map<SequenceId, Chains> sequences_;
  std::set<SequenceId> lost_;     // here
  std::set<SequenceId> tainted_;  // at a stage before
};

}  // namespace caravan
