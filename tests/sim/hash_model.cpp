#include "tests/sim/hash_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/limits.h"
#include "base/random.h"

namespace caravan {
namespace {

uint64_t blend(uint64_t a, uint64_t b) {
  return mix64(mix64(a) ^ (b * 0x9E3779B97F4A7C15ull + 1));
}

uint64_t token_row(TokenId token) {
  return blend(0xE3BED, token);
}

uint64_t through_codec(uint64_t row, CodecId codec) {
  return codec == CodecId::kF32 ? row : row & ~uint64_t{0xFFFF};
}

uint64_t hash_of(const TokenId* first, const TokenId* last) {
  uint64_t hash = 0x4157;
  for (; first != last; ++first) hash = blend(hash, *first);
  return hash;
}

}  // namespace

Rows HashModel::pack(const std::vector<uint64_t>& exact, CodecId codec) {
  std::vector<uint64_t> rows;
  for (const uint64_t row : exact) rows.push_back(through_codec(row, codec));
  Rows packed;
  packed.codec = codec;
  packed.width = 2;
  packed.count = static_cast<uint32_t>(rows.size());
  if (rows.empty()) return packed;
  auto* bytes = new std::vector<std::byte>(rows.size() * sizeof(uint64_t));
  std::memcpy(bytes->data(), rows.data(), bytes->size());
  ++*live_;
  packed.bytes =
      std::shared_ptr<const std::vector<std::byte>>(bytes, [live = live_](const std::vector<std::byte>* old) {
        --*live;
        delete old;
      });
  return packed;
}

std::vector<uint64_t> HashModel::unpack(const Rows& rows) const {
  std::vector<uint64_t> values(rows.count);
  if (rows.byte_count() == values.size() * sizeof(uint64_t) && !values.empty())
    std::memcpy(values.data(), rows.bytes->data(), rows.byte_count());
  return values;
}

Rows HashModel::embed(const std::vector<TokenId>& tokens, CodecId codec) {
  std::vector<uint64_t> rows;
  for (const TokenId token : tokens) rows.push_back(token_row(token));
  return pack(rows, codec);
}

// The token depends on what a sampler would look at: row, seed, position and the history that penalties see.
OutputResult HashModel::output(uint64_t row, const OutputRow& asked) const {
  OutputResult result;
  if (asked.logits) {
    const auto logit = static_cast<float>(row >> 40);
    (*asked.logits)(static_cast<uint32_t>(asked.position - 1), {&logit, 1});
  }
  if (!asked.sample) return result;
  uint64_t hash = blend(row, blend(asked.sampling->seed, asked.position));
  if (!asked.history.empty())
    hash = blend(hash, hash_of(asked.history.data(), asked.history.data() + asked.history.size()));
  result.token = static_cast<TokenId>(hash % vocabulary_);
  return result;
}

HashModel::Reference HashModel::reference(const TokenRequest& request, uint32_t layers,
                                          uint32_t max_positions, const std::set<uint32_t>& cuts) const {
  Reference reference;
  std::vector<uint64_t> chain(layers, 0);
  std::vector<TokenId> all = request.prompt;
  const SamplingOptions& sampling = request.sampling;
  const auto cut = [&](uint64_t row, uint32_t unit) {
    return cuts.count(unit) ? through_codec(row, CodecId::kBf16) : row;
  };
  for (size_t position = 0;; ++position) {
    uint64_t row = token_row(all[position]);
    for (uint32_t layer = 0; layer < layers; ++layer) {
      row = cut(row, layer + 1);
      chain[layer] = blend(chain[layer], row);
      row = blend(row, chain[layer] + layer + 1);
    }
    row = cut(row, layers + 1);
    if (request.prompt_logits && position < request.prompt.size())
      reference.prompt_logits.push_back(static_cast<float>(row >> 40));
    if (position + 1 < all.size()) continue;
    if (request.max_tokens == 0u) return reference;
    uint64_t hash = blend(row, blend(sampling.seed, all.size()));
    if (sampling.repetition_penalty != 1.0f) {
      const size_t seen =
          std::min<size_t>(all.size(), sampling.penalty_window ? sampling.penalty_window : all.size());
      hash = blend(hash, hash_of(all.data() + (all.size() - seen), all.data() + all.size()));
    }
    const auto token = static_cast<TokenId>(hash % vocabulary_);
    all.push_back(token);
    reference.tokens.push_back(token);
    for (const TokenId end : request.end_tokens)
      if (token == end) return reference.finish = FinishReason::kStop, reference;
    if (reference.tokens.size() == request.max_tokens.value_or(~0u) || all.size() >= max_positions)
      return reference;
  }
}

// --- A stage ---

uint64_t HashStage::blocks_used() const {
  uint64_t blocks = 0;
  for (const auto& [id, chains] : sequences_)
    blocks += (chains.front().size() + limits::kKvBlockPositions - 1) / limits::kKvBlockPositions;
  return blocks;
}

std::string HashStage::apply(const SequenceOperation& operation) {
  const auto found = sequences_.find(operation.sequence);
  const bool is_open = found != sequences_.end();
  switch (operation.kind) {
    case OperationKind::kOpen:
      if (is_open) return "opened twice";
      sequences_[operation.sequence].resize(span_.count());
      return {};
    case OperationKind::kFork: {
      const auto source = sequences_.find(operation.source);
      if (is_open || source == sequences_.end()) return "a fork of nothing";
      Chains copy = source->second;
      for (auto& chain : copy) chain.resize(operation.positions);
      if (lost_.count(operation.source)) lost_.insert(operation.sequence);
      if (tainted_.count(operation.source)) tainted_.insert(operation.sequence);
      sequences_[operation.sequence] = std::move(copy);
      return {};
    }
    case OperationKind::kMark:
      return is_open ? "" : "marked, not open";
    case OperationKind::kTruncate:
      if (!is_open) return "truncated, not open";
      for (auto& chain : found->second) chain.resize(operation.positions);
      return {};
    case OperationKind::kClose:
      if (!is_open) return "closed, not open";
      sequences_.erase(found);
      lost_.erase(operation.sequence);
      tainted_.erase(operation.sequence);
      return {};
    case OperationKind::kLoad:
      if (is_open) return "loaded, and open";
      if (archive_ == nullptr) return "there is no archive to load from";
      sequences_[operation.sequence].resize(span_.count());
      return {};
  }
  return "an unknown operation";
}

uint64_t HashStage::through_layers(Chains& chains, uint64_t row) {
  for (uint32_t i = 0; i < span_.count(); ++i) {
    const uint64_t before = chains[i].empty() ? 0 : chains[i].back();
    chains[i].push_back(blend(before, row));
    row = blend(row, chains[i].back() + span_.first + i);
  }
  return row;
}

// What is not there any more is made up, so that it shows if anyone goes on with it.
void HashStage::load(const SequenceOperation& operation, std::span<const BlockTag> tags) {
  Chains& chains = sequences_.at(operation.sequence);
  for (uint32_t block = 0; block < loaded_blocks(operation); ++block)
    for (uint32_t i = 0; i < span_.count(); ++i) {
      auto values = archive_->load(tags[block], plan_.lineage, span_.first + i);
      if (!values) lost_.insert(operation.sequence);
      if (!values) values.emplace(limits::kKvBlockPositions, 0xBAD);
      chains[i].insert(chains[i].end(), values->begin(), values->end());
    }
}

void HashStage::archive(const RowRange& range, const Chains& chains, std::span<const BlockTag> tags) {
  const uint32_t begin = range.first_position / limits::kKvBlockPositions;
  for (uint32_t block = 0; block < completed_blocks(range); ++block)
    for (uint32_t i = 0; i < span_.count(); ++i) {
      const auto first = chains[i].begin() + (begin + block) * limits::kKvBlockPositions;
      archive_->store(tags[block], plan_.lineage, span_.first + i,
                      {first, first + limits::kKvBlockPositions});
    }
}

HashStage::Result HashStage::run(const Step& step) {
  std::span<const BlockTag> load_tags = step.load_tags, tags = step.tags;
  for (const SequenceOperation& operation : step.operations) {
    const std::string error = apply(operation);
    if (!error.empty()) return {{}, fmt::format("sequence {}: {}", operation.sequence.value, error)};
    if (operation.kind == OperationKind::kLoad) load(operation, load_tags);
    load_tags = load_tags.subspan(loaded_blocks(operation));
  }
  tainted_.insert(step.lost.begin(), step.lost.end());
  Result result;
  const std::vector<uint64_t> in = model_.unpack(step.rows);
  std::vector<uint64_t> out;
  size_t next = 0;
  for (const RowRange& range : step.ranges) {
    const auto found = sequences_.find(range.sequence);
    if (found == sequences_.end()) return {{}, "rows of a sequence that is not open"};
    if (found->second.front().size() != range.first_position) return {{}, "rows that do not continue"};
    for (uint32_t i = 0; i < range.count; ++i) {
      const uint64_t row = through_layers(found->second, in.at(next++));
      if (!plan_.last || i + range.answer_count >= range.count) out.push_back(row);
    }
    const bool lost = lost_.count(range.sequence) > 0;
    if (lost) result.lost.push_back(range.sequence);
    if (step.tags.empty()) continue;
    if (archive_ != nullptr && !lost && !tainted_.count(range.sequence)) archive(range, found->second, tags);
    tags = tags.subspan(completed_blocks(range));
  }
  if (blocks_used() > kv_blocks_) return {{}, "no KV block is free"};
  result.rows = model_.pack(out, plan_.codec);
  return result;
}

}  // namespace caravan
