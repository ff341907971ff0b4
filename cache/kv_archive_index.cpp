#include "cache/kv_archive_index.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <new>

#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"
#include "cache/kv_value.h"

namespace caravan {

namespace {

// More uses say little.
constexpr uint32_t kMostUses = 15;
// Of a record; a batch has far fewer.
constexpr uint64_t kMostBlocksARecord = 1024;

class Writer {
 public:
  void number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_.push_back(static_cast<char>(value >> (8 * i)));
  }
  template <class Tag, size_t kSize>
  void blob(const Blob<Tag, kSize>& value) {
    text_.append(reinterpret_cast<const char*>(value.bytes.data()), kSize);
  }
  std::string finish() {
    number(xxh3(std::as_bytes(std::span(text_))), 8);
    return std::move(text_);
  }

 private:
  std::string text_;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  uint64_t number(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t{static_cast<uint8_t>(text_[at_++])} << (8 * i);
    return value;
  }
  template <class B>
  B blob() {
    B out;
    std::memcpy(out.bytes.data(), text_.data() + at_, B::size());
    at_ += B::size();
    return out;
  }

 private:
  const std::string_view text_;
  size_t at_ = 0;
};

constexpr size_t kBlockBytes = 8 + 3 * 16 + 4 + 4 + 8 + 4 + 4 + 8 + 8;
constexpr size_t kHeadBytes = 8 + 8, kSumBytes = 8;

}  // namespace

std::string encode_archived(uint64_t last, std::span<const ArchivedBlock> blocks) {
  Writer out;
  out.number(last, 8);
  out.number(blocks.size(), 8);
  for (const ArchivedBlock& block : blocks) {
    out.number(block.serial, 8);
    out.blob(block.tag);
    out.blob(block.previous);
    out.blob(block.lineage);
    out.number(block.first_layer, 4);
    out.number(block.layers, 4);
    out.number(block.bytes, 8);
    out.number(block.run, 4);
    out.number(block.uses, 4);
    out.number(std::bit_cast<uint64_t>(block.last_use), 8);
    out.number(block.ring_blocks, 8);
  }
  return out.finish();
}

std::string archived_key(uint64_t first) {
  return kArchivedPrefix + kv_key(first, 0).substr(0, 8);
}

std::optional<ArchivedBatch> decode_archived(uint64_t first, std::string_view bytes) {
  if (bytes.size() < kHeadBytes + kSumBytes) return std::nullopt;
  const std::string_view content = bytes.substr(0, bytes.size() - kSumBytes);
  if (Reader(bytes.substr(content.size())).number(8) != xxh3(std::as_bytes(std::span(content))))
    return std::nullopt;
  Reader in(content);
  ArchivedBatch batch;
  batch.last = in.number(8);
  const uint64_t count = in.number(8);
  if (batch.last < first || batch.last - first >= kMostBlocksARecord || count > batch.last - first + 1 ||
      content.size() != kHeadBytes + count * kBlockBytes)
    return std::nullopt;
  for (uint64_t i = 0; i < count; ++i) {
    ArchivedBlock block;
    block.serial = in.number(8);
    block.tag = in.blob<BlockTag>();
    block.previous = in.blob<BlockTag>();
    block.lineage = in.blob<Lineage>();
    block.first_layer = static_cast<uint32_t>(in.number(4));
    block.layers = static_cast<uint32_t>(in.number(4));
    block.bytes = in.number(8);
    block.run = std::max(1u, static_cast<uint32_t>(in.number(4)));
    block.uses = static_cast<uint32_t>(in.number(4));
    block.last_use = std::bit_cast<double>(in.number(8));
    block.ring_blocks = in.number(8);
    const uint64_t least = batch.blocks.empty() ? first : batch.blocks.back().serial + 1;
    if (block.serial < least || block.serial > batch.last || block.layers == 0 ||
        block.layers > limits::kMaxLayers || block.first_layer > limits::kMaxLayers - block.layers ||
        block.bytes == 0 || block.bytes > limits::kMaxGroupBytes || !std::isfinite(block.last_use) ||
        block.last_use < 0)
      return std::nullopt;
    batch.blocks.push_back(block);
  }
  return batch;
}

double KvArchiveIndex::priority(const ArchivedBlock& block, double pace) const {
  const double saves = static_cast<double>(block.layers) * block.run * (1 + std::min(block.uses, kMostUses));
  return block.last_use * pace + saves / static_cast<double>(block.bytes);
}

// Of the ring's clock: what is taken in moves it by the share of what the ring has room for.
double KvArchiveIndex::pace() const {
  return static_cast<double>(limit_bytes_) / static_cast<double>(std::max<uint64_t>(1, ring_->bound.count));
}

bool KvArchiveIndex::is_of_ring(const ArchivedBlock& block) const {
  return ring_ && block.ring_blocks == ring_->blocks && block.lineage == ring_->lineage;
}

void KvArchiveIndex::leave(const Entry& entry, double priority, Leaving& leaving,
                           std::optional<double>& noted) {
  try {
    leaving.insert({priority, entry.block.serial});
    noted = priority;
  } catch (const std::bad_alloc&) {
    // Handles come here as they go: it stays until it is placed again.
  }
}

void KvArchiveIndex::take_out(Entry& entry) {
  if (entry.priority) leaving_.erase({*entry.priority, entry.block.serial});
  if (entry.ring_priority) ring_leaving_.erase({*entry.ring_priority, entry.block.serial});
  entry.priority.reset();
  entry.ring_priority.reset();
}

void KvArchiveIndex::place(Entry& entry) {
  take_out(entry);
  if (entry.pins > 0 || nodes_.at({entry.block.tag, entry.block.lineage}).successors > 0) return;
  leave(entry, priority(entry.block, 1), leaving_, entry.priority);
  if (is_of_ring(entry.block))
    leave(entry, priority(entry.block, pace()), ring_leaving_, entry.ring_priority);
}

void KvArchiveIndex::set_ring(std::optional<Ring> ring) {
  ring_ = ring;
  ring_bytes_ = 0;
  for (auto& [serial, entry] : blocks_) {
    if (is_of_ring(entry.block)) ring_bytes_ += entry.block.bytes;
    if (entry.ring_priority || is_of_ring(entry.block)) place(entry);
  }
}

std::optional<uint64_t> KvArchiveIndex::ring_victim() const {
  if (ring_leaving_.empty()) return std::nullopt;
  return ring_leaving_.begin()->second;
}

void KvArchiveIndex::place_all(const Key& key) {
  const auto node = nodes_.find(key);
  if (node == nodes_.end()) return;
  for (const uint64_t serial : node->second.serials) place(blocks_.at(serial));
}

void KvArchiveIndex::add(const ArchivedBlock& block) {
  Entry entry;
  entry.block = block;
  const auto [at, fresh] = blocks_.emplace(block.serial, entry);
  CHECK(fresh);
  bytes_ += block.bytes;
  if (is_of_ring(block)) ring_bytes_ += block.bytes;
  clock_ = std::max(clock_, block.last_use);
  if (block.previous != BlockTag{}) {
    ++nodes_[{block.previous, block.lineage}].successors;
    place_all({block.previous, block.lineage});
  }
  std::vector<uint64_t>& serials = nodes_[{block.tag, block.lineage}].serials;
  const auto behind = std::find_if(serials.begin(), serials.end(), [&](uint64_t other) {
    return blocks_.at(other).block.first_layer > block.first_layer;
  });
  serials.insert(behind, block.serial);
  place(at->second);
}

std::optional<ArchivedBlock> KvArchiveIndex::remove(uint64_t serial) {
  const auto found = blocks_.find(serial);
  if (found == blocks_.end()) return std::nullopt;
  const ArchivedBlock block = found->second.block;
  take_out(found->second);
  if (found->second.pins > 0) bytes_in_use_ -= block.bytes;
  blocks_.erase(found);
  bytes_ -= block.bytes;
  if (is_of_ring(block)) ring_bytes_ -= block.bytes;
  const auto drop_if_empty = [this](const Key& key) {
    const auto node = nodes_.find(key);
    if (node->second.serials.empty() && node->second.successors == 0) nodes_.erase(node);
  };
  const Key own{block.tag, block.lineage}, previous{block.previous, block.lineage};
  std::vector<uint64_t>& serials = nodes_.at(own).serials;
  serials.erase(std::find(serials.begin(), serials.end(), serial));
  drop_if_empty(own);
  if (block.previous == BlockTag{}) return block;
  --nodes_.at(previous).successors;
  place_all(previous);
  drop_if_empty(previous);
  return block;
}

std::vector<uint64_t> KvArchiveIndex::cover(const BlockTag& tag, const Lineage& lineage, uint32_t first_layer,
                                            uint32_t layers) const {
  const auto node = nodes_.find({tag, lineage});
  if (node == nodes_.end()) return {};
  std::vector<uint64_t> serials;
  uint32_t next = first_layer;
  for (const uint64_t serial : node->second.serials) {
    const ArchivedBlock& block = blocks_.at(serial).block;
    if (next >= first_layer + layers) break;
    if (block.first_layer > next || block.first_layer + block.layers <= next) continue;
    serials.push_back(serial);
    next = block.first_layer + block.layers;
  }
  if (next < first_layer + layers) serials.clear();
  return serials;
}

std::vector<uint64_t> KvArchiveIndex::within(const BlockTag& tag, const Lineage& lineage,
                                             uint32_t first_layer, uint32_t layers) const {
  std::vector<uint64_t> serials;
  const auto node = nodes_.find({tag, lineage});
  if (node == nodes_.end()) return serials;
  for (const uint64_t serial : node->second.serials) {
    const ArchivedBlock& block = blocks_.at(serial).block;
    if (block.first_layer >= first_layer && block.first_layer + block.layers <= first_layer + layers)
      serials.push_back(serial);
  }
  return serials;
}

const ArchivedBlock* KvArchiveIndex::find(uint64_t serial) const {
  const auto found = blocks_.find(serial);
  return found == blocks_.end() ? nullptr : &found->second.block;
}

void KvArchiveIndex::set_runs(std::span<ArchivedBlock> blocks) const {
  std::map<Key, uint32_t> runs;  // of those so far
  std::set<Key> continued;       // by them
  const auto run_of = [&](const Key& key) -> uint32_t {
    if (const auto node = nodes_.find(key); node != nodes_.end() && !node->second.serials.empty())
      return blocks_.at(node->second.serials.front()).block.run;
    const auto together = runs.find(key);
    return together == runs.end() ? 0 : together->second;
  };
  const auto forks = [&](const Key& key) {
    const auto node = nodes_.find(key);
    return continued.count(key) > 0 || (node != nodes_.end() && node->second.successors > 0);
  };
  for (ArchivedBlock& block : blocks) {
    const Key own{block.tag, block.lineage}, previous{block.previous, block.lineage};
    const bool begins = block.previous == BlockTag{} || forks(previous);
    const uint32_t before = begins ? 0 : run_of(previous);
    block.run = run_of(own);  // that of other layers of the same block
    if (block.run == 0) block.run = before == UINT32_MAX ? before : before + 1;
    runs[own] = block.run;
    continued.insert(previous);
  }
}

// Its value without uses, times its share of the bound.
void KvArchiveIndex::age(const ArchivedBlock& block) {
  clock_ += static_cast<double>(block.layers) * block.run / static_cast<double>(limit_bytes_);
}

void KvArchiveIndex::use(uint64_t serial) {
  const auto found = blocks_.find(serial);
  if (found == blocks_.end()) return;
  ArchivedBlock& block = found->second.block;
  if (block.uses < UINT32_MAX) ++block.uses;
  block.last_use = clock_;
  place(found->second);
}

void KvArchiveIndex::pin(uint64_t serial) {
  const auto found = blocks_.find(serial);
  if (found == blocks_.end()) return;
  if (found->second.pins++ == 0) bytes_in_use_ += found->second.block.bytes;
  place(found->second);
}

void KvArchiveIndex::unpin(uint64_t serial) {
  const auto found = blocks_.find(serial);
  if (found == blocks_.end()) return;
  CHECK(found->second.pins > 0u);
  if (--found->second.pins == 0) bytes_in_use_ -= found->second.block.bytes;
  place(found->second);
}

std::optional<uint64_t> KvArchiveIndex::victim() const {
  if (leaving_.empty()) return std::nullopt;
  return leaving_.begin()->second;
}

std::vector<ArchivedBlock> KvArchiveIndex::range(uint64_t first, uint64_t last) const {
  std::vector<ArchivedBlock> out;
  for (auto at = blocks_.lower_bound(first); at != blocks_.end() && at->first <= last; ++at)
    out.push_back(at->second.block);
  return out;
}

}  // namespace caravan
