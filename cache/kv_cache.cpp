#include "cache/kv_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"

namespace caravan {

namespace {

constexpr uint32_t kPositions = limits::kKvBlockPositions;

uint64_t element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : 2;
}

// Bytes of a layer's keys in one block; its values take the same.
uint64_t side_bytes(const KvLayerShape& layer, KvType type) {
  return uint64_t{kPositions} * layer.kv_heads * layer.head_width * element_bytes(type);
}

uint32_t blocks_for(uint32_t positions) {
  return (positions + kPositions - 1) / kPositions;
}

}  // namespace

Bytes KvCache::block_bytes(const std::vector<KvLayerShape>& layers, KvType type) {
  Bytes sum;
  for (const KvLayerShape& layer : layers) sum.count += 2 * side_bytes(layer, type);
  return sum;
}

KvCache::KvCache(Device& device, Budget& budget, std::vector<KvLayerShape> layers, KvType type,
                 uint32_t blocks)
    : device_(device),
      layers_(std::move(layers)),
      type_(type),
      block_bytes_(block_bytes(layers_, type)),
      block_limit_(blocks),
      reservation_(budget.reserve(MemoryTag::kState, Bytes{block_bytes_.count * blocks})) {}

KvCache::~KvCache() = default;

KvCache::Sequence& KvCache::find(SequenceId sequence) {
  return const_cast<Sequence&>(std::as_const(*this).find(sequence));
}

const KvCache::Sequence& KvCache::find(SequenceId sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) fail(ErrorCode::kInvalidArgument, "sequence {} is not open", sequence.value);
  return found->second;
}

void KvCache::open(SequenceId sequence) {
  if (sequences_.size() >= limits::kMaxSequences)
    fail(ErrorCode::kLimit, "more than {} sequences are open", limits::kMaxSequences);
  const auto [entry, fresh] = sequences_.try_emplace(sequence);
  if (!fresh) fail(ErrorCode::kInvalidArgument, "sequence {} is open already", sequence.value);
  entry->second.by_layer.resize(layers_.size());
}

void KvCache::fork(SequenceId from, SequenceId to, uint32_t positions) {
  if (positions > find(from).positions)
    fail(ErrorCode::kInvalidArgument, "sequence {} cannot be forked at {}: it has {} positions", from.value,
         positions, find(from).positions);
  open(to);
  const Sequence& source = find(from);
  Sequence& target = find(to);
  const uint32_t full = positions / kPositions;
  for (uint32_t i = 0; i < full; ++i) {
    ++blocks_[source.blocks[i]].users;
    append(target, source.blocks[i]);
  }
  if (positions % kPositions != 0) {
    const uint32_t copy = take_block();
    append(target, copy);
    device_.copy_in(blocks_[copy].buffer.address(),
                    {blocks_[source.blocks[full]].buffer.address(), static_cast<size_t>(block_bytes_.count)});
  }
  target.positions = positions;
}

void KvCache::extend(SequenceId id, uint32_t positions) {
  Sequence& sequence = find(id);
  while (sequence.blocks.size() < blocks_for(positions)) append(sequence, take_block());
  sequence.positions = std::max(sequence.positions, positions);
}

void KvCache::truncate(SequenceId id, uint32_t positions) {
  Sequence& sequence = find(id);
  if (positions > sequence.positions)
    fail(ErrorCode::kInvalidArgument, "sequence {} cannot be truncated to {}: it has {} positions", id.value,
         positions, sequence.positions);
  while (sequence.blocks.size() > blocks_for(positions)) {
    drop_block(sequence.blocks.back());
    sequence.blocks.pop_back();
    for (auto& table : sequence.by_layer) table.pop_back();
  }
  sequence.positions = positions;
  if (positions % kPositions != 0) make_last_block_own(sequence);
}

void KvCache::make_last_block_own(Sequence& sequence) {
  const uint32_t shared = sequence.blocks.back();
  if (blocks_[shared].users == 1) return;
  const uint32_t copy = take_block();
  sequence.blocks.pop_back();
  for (auto& table : sequence.by_layer) table.pop_back();
  append(sequence, copy);
  device_.copy_in(blocks_[copy].buffer.address(),
                  {blocks_[shared].buffer.address(), static_cast<size_t>(block_bytes_.count)});
  drop_block(shared);
}

void KvCache::close(SequenceId id) {
  truncate(id, 0);
  sequences_.erase(id);
}

uint32_t KvCache::positions(SequenceId sequence) const {
  return find(sequence).positions;
}

const KvBlock* KvCache::blocks(SequenceId sequence, uint32_t layer) const {
  const Sequence& found = find(sequence);
  CHECK(layer < found.by_layer.size());
  return found.by_layer[layer].data();
}

uint32_t KvCache::take_block() {
  if (blocks_used_ >= block_limit_)
    fail(ErrorCode::kOutOfMemory, "no KV block is free: all {} are in use", block_limit_);
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(blocks_.size()));
    blocks_.push_back({DeviceBuffer(device_, block_bytes_), 0});
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  blocks_[index].users = 1;
  ++blocks_used_;
  return index;
}

void KvCache::drop_block(uint32_t index) {
  CHECK(blocks_[index].users > 0u);
  if (--blocks_[index].users > 0) return;
  free_.push_back(index);
  --blocks_used_;
}

void KvCache::append(Sequence& sequence, uint32_t block) {
  sequence.blocks.push_back(block);
  std::byte* address = blocks_[block].buffer.address();
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const uint64_t side = side_bytes(layers_[layer], type_);
    sequence.by_layer[layer].push_back({address, address + side});
    address += 2 * side;
  }
}

}  // namespace caravan
