#include "cache/kv_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace caravan {

namespace {

constexpr uint32_t kPositions = limits::kKvBlockPositions;

uint32_t blocks_for(uint32_t positions) {
  return (positions + kPositions - 1) / kPositions;
}

}  // namespace

Bytes KvCache::block_bytes(const std::vector<KvLayerShape>& layers, KvType type) {
  Bytes sum;
  for (const KvLayerShape& layer : layers) sum.count += 2 * kv_side_bytes(layer, type);
  return sum;
}

Bytes KvCache::staging_bytes(const std::vector<KvLayerShape>& layers, KvType type) {
  return KvStager::bytes(layers, type);
}

KvCache::KvCache(Device& device, Budget& budget, std::vector<KvLayerShape> layers, KvType type,
                 uint32_t blocks, const std::optional<KvSpill>& spill,
                 const std::optional<KvSharing>& sharing)
    : device_(device),
      layers_(std::move(layers)),
      type_(type),
      block_limit_(blocks),
      frames_(device, budget, layers_, type, blocks, spill, sharing) {
  if (spill) {
    staging_ = budget.reserve(MemoryTag::kState, staging_bytes(layers_, type));
    CHECK((spill->frames >= kLeastFrames || !spill->store));
    stager_ = std::make_unique<KvStager>(device, frames_);
  }
}

KvCache::~KvCache() {
  finish_step(false);
}

KvCache::Sequence& KvCache::find(SequenceId sequence) {
  return const_cast<Sequence&>(std::as_const(*this).find(sequence));
}

const KvCache::Sequence& KvCache::find(SequenceId sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) fail(ErrorCode::kInvalidArgument, "sequence {} is not open", sequence.value);
  return found->second;
}

// --- Sequences ---

void KvCache::open(SequenceId sequence) {
  finish_step(false);
  if (sequences_.size() >= limits::kMaxSequences)
    fail(ErrorCode::kLimit, "more than {} sequences are open", limits::kMaxSequences);
  const auto [entry, fresh] = sequences_.try_emplace(sequence);
  if (!fresh) fail(ErrorCode::kInvalidArgument, "sequence {} is open already", sequence.value);
  entry->second.by_layer.resize(layers_.size());
  entry->second.version = frames_.version();
}

void KvCache::load(SequenceId id, uint32_t positions, std::span<const BlockTag> tags) {
  if (positions % kPositions != 0 || positions / kPositions != tags.size())
    fail(ErrorCode::kInvalidArgument, "sequence {} cannot be loaded: {} tags for {} positions", id.value,
         tags.size(), positions);
  open(id);
  Sequence& sequence = find(id);
  if (layers_.empty()) {
    extend(id, positions);
    return;
  }
  BlockTag previous;
  for (const BlockTag& tag : tags) {
    uint32_t block = 0;
    try {
      block = take_block();
    } catch (const Error&) {
      close(id);
      throw;
    }
    if (!sequence.error && !frames_.adopt(block, {tag, std::exchange(previous, tag)}))
      sequence.error.emplace(ErrorCode::kIo,
                             fmt::format("KV block {} of sequence {} is not in the archive any "
                                         "more",
                                         short_string(tag), id.value));
    append(sequence, block);
  }
  sequence.tags.assign(tags.begin(), tags.end());
  sequence.positions = positions;
}

void KvCache::tag(SequenceId id, uint32_t first, uint32_t count, std::span<const BlockTag> tags) {
  Sequence& sequence = find(id);
  const uint32_t from = first / kPositions, end = (first + count) / kPositions;
  if (!tags.empty() && tags.size() != end - from)
    fail(ErrorCode::kInvalidArgument, "sequence {}: {} tags for {} blocks", id.value, tags.size(),
         end - from);
  sequence.tags.resize(std::min<size_t>(sequence.tags.size(), from));
  if (tags.empty()) return;
  sequence.tags.resize(from);
  sequence.tags.insert(sequence.tags.end(), tags.begin(), tags.end());
}

void KvCache::fork(SequenceId from, SequenceId to, uint32_t positions) {
  if (positions > find(from).positions)
    fail(ErrorCode::kInvalidArgument, "sequence {} cannot be forked at {}: it has {} positions", from.value,
         positions, find(from).positions);
  open(to);
  const Sequence& source = find(from);
  Sequence& target = find(to);
  target.error = source.error;
  const uint32_t full = positions / kPositions;
  try {
    for (uint32_t i = 0; i < full; ++i) {
      ++users_[source.blocks[i]];
      append(target, source.blocks[i]);
    }
    target.tags.assign(source.tags.begin(), source.tags.begin() + static_cast<ptrdiff_t>(std::min<size_t>(
                                                                      full, source.tags.size())));
    if (positions % kPositions != 0) append(target, copy_block(source.blocks[full]));
  } catch (const Error&) {
    target.positions = full * kPositions;
    close(to);
    throw;
  }
  target.positions = positions;
}

void KvCache::extend(SequenceId id, uint32_t positions) {
  finish_step(false);
  Sequence& sequence = find(id);
  while (sequence.blocks.size() < blocks_for(positions)) append(sequence, take_block());
  sequence.positions = std::max(sequence.positions, positions);
}

void KvCache::truncate(SequenceId id, uint32_t positions) {
  finish_step(false);
  Sequence& sequence = find(id);
  if (positions > sequence.positions)
    fail(ErrorCode::kInvalidArgument, "sequence {} cannot be truncated to {}: it has {} positions", id.value,
         positions, sequence.positions);
  while (sequence.blocks.size() > blocks_for(positions)) drop_last(sequence);
  sequence.positions = positions;
  sequence.tags.resize(std::min<size_t>(sequence.tags.size(), positions / kPositions));
  if (positions % kPositions != 0) make_last_block_own(sequence);
}

uint32_t KvCache::copy_block(uint32_t from) {
  const uint32_t copy = take_block();
  try {
    frames_.hold(from);
    try {
      frames_.hold_to_change(copy);
    } catch (const Error&) {
      frames_.release(from);
      throw;
    }
  } catch (const Error&) {
    drop_block(copy);
    throw;
  }
  device_.copy_in(frames_.address(copy), {frames_.address(from), frames_.block_bytes()});
  frames_.release(copy);
  frames_.release(from);
  return copy;
}

void KvCache::make_last_block_own(Sequence& sequence) {
  const uint32_t shared = sequence.blocks.back();
  if (users_[shared] == 1) return;
  std::optional<uint32_t> copy;
  std::optional<Error> error;
  try {
    copy = copy_block(shared);
  } catch (const Error& thrown) {
    error = thrown;
  }
  drop_last(sequence);
  if (error) {
    sequence.positions = sequence.positions / kPositions * kPositions;
    throw Error(*error);
  }
  append(sequence, *copy);
}

void KvCache::close(SequenceId id) {
  finish_step(false);
  Sequence& sequence = find(id);
  while (!sequence.blocks.empty()) drop_last(sequence);
  sequences_.erase(id);
}

uint32_t KvCache::positions(SequenceId sequence) const {
  return find(sequence).positions;
}

void KvCache::spoil(SequenceId sequence, const Error& error) {
  find(sequence).error = error;
}

// --- Blocks and tables ---

uint32_t KvCache::take_block() {
  if (blocks_used_ >= block_limit_)
    fail(ErrorCode::kOutOfMemory, "no KV block is free: all {} are in use", block_limit_);
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(users_.size()));
    users_.push_back(0);
  }
  const uint32_t index = free_.back();
  frames_.add(index);
  free_.pop_back();
  users_[index] = 1;
  ++blocks_used_;
  return index;
}

void KvCache::drop_block(uint32_t index) {
  CHECK(users_[index] > 0u);
  if (--users_[index] > 0) return;
  frames_.drop(index);
  free_.push_back(index);
  --blocks_used_;
}

void KvCache::append(Sequence& sequence, uint32_t block) {
  sequence.blocks.push_back(block);
  append_to_table(sequence, block);
}

void KvCache::drop_last(Sequence& sequence) {
  drop_block(sequence.blocks.back());
  sequence.blocks.pop_back();
  for (auto& table : sequence.by_layer) table.pop_back();
}

void KvCache::append_to_table(Sequence& sequence, uint32_t block) const {
  for (uint32_t layer = 0; layer < layers_.size(); ++layer) {
    std::byte* part = frames_.part(block, layer);
    sequence.by_layer[layer].push_back(part ? KvBlock{part, part + kv_side_bytes(layers_[layer], type_)}
                                            : KvBlock{});
  }
}

void KvCache::refresh(Sequence& sequence) const {
  if (sequence.version == frames_.version()) return;
  for (auto& table : sequence.by_layer) table.clear();
  for (const uint32_t block : sequence.blocks) append_to_table(sequence, block);
  sequence.version = frames_.version();
}

const KvBlock* KvCache::blocks(SequenceId id, uint32_t layer) {
  Sequence& sequence = find(id);
  CHECK(layer < sequence.by_layer.size());
  refresh(sequence);
  return sequence.by_layer[layer].data();
}

// --- Steps ---

void KvCache::begin_step() {
  finish_step(false);
  in_step_ = true;
  frames_.start_step(blocks_used_);
}

uint32_t KvCache::add_rows(SequenceId id, uint32_t first_position, uint32_t count) {
  CHECK((in_step_ && count > 0));
  Sequence& sequence = find(id);
  CHECK(uint64_t{first_position} + count <= sequence.positions);
  if (sequence.error) throw Error(*sequence.error);
  if (!stager_) return count;
  const uint32_t first = first_position / kPositions;
  uint32_t reach = first;
  for (const KvLayerShape& layer : layers_)
    reach = std::min(reach, first_block_in_reach(layer, first_position));
  for (uint32_t place = reach; place <= first; ++place) frames_.use(sequence.blocks[place], place);
  const size_t held_before = held_.size();
  uint32_t end = first_position;
  try {
    for (uint32_t place = first; end < first_position + count; ++place) {
      if (held_.size() >= frames_.count() && !frames_.grow()) break;
      frames_.use(sequence.blocks[place], place);
      frames_.hold_to_change(sequence.blocks[place]);
      end = std::min(first_position + count, (place + 1) * kPositions);
      held_.push_back({sequence.blocks[place], end == (place + 1) * kPositions, &sequence, place});
      // What follows is new, and has no frame.
      const uint32_t left = blocks_for(first_position + count) - place - 1;
      if (place == first && left > 0)
        frames_.expect(std::min(left, frames_.most() - static_cast<uint32_t>(held_.size())));
    }
  } catch (const Error&) {
    for (; held_.size() > held_before; held_.pop_back()) frames_.release(held_.back().block);
    throw;
  }
  if (end == first_position) return 0;
  parts_.push_back(&sequence);
  stager_->add_part(&sequence.blocks, first_position, end - first_position);
  return end - first_position;
}

void KvCache::start_reading() {
  if (!stager_) return;
  stager_->start();
  for (Sequence* sequence : parts_) refresh(*sequence);
}

KvStager::Reach KvCache::reach(size_t part, uint32_t layer, uint32_t piece, uint32_t most) {
  return stager_->reach(part, layer, piece, most, parts_[part]->by_layer[layer]);
}

void KvCache::finish_step(bool complete) {
  if (!std::exchange(in_step_, false) || !stager_) return;
  stager_->finish();
  parts_.clear();
  for (const Held& held : held_) {
    frames_.set_full(held.block, held.full);
    frames_.release(held.block);
    if (complete && held.full) archive(held);
  }
  held_.clear();
  frames_.write_behind();
}

void KvCache::finish_archiving(Duration most) {
  finish_step(false);
  frames_.finish_archiving(most);
}

// What a sequence that lost state went on with is of no use to anybody.
void KvCache::archive(const Held& held) {
  const Sequence& sequence = *held.sequence;
  if (sequence.error || held.place >= sequence.tags.size()) return;
  const BlockTag tag = sequence.tags[held.place];
  const BlockTag previous = held.place == 0 ? BlockTag{} : sequence.tags[held.place - 1];
  if (tag == BlockTag{} || (held.place > 0 && previous == BlockTag{})) return;
  frames_.archive(held.block, {tag, previous});
}

}  // namespace caravan
