#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/random.h"
#include "cache/kv_archive.h"
#include "cache/kv_cache.h"
#include "tests/support/fake_device.h"

namespace caravan::test {

constexpr uint32_t kPositions = limits::kKvBlockPositions;
constexpr uint32_t kPiece = limits::kMixPiecePositions;
// Of other widths and, the second, with a window.
const std::vector<KvLayerShape> kLayers = {{2, 8}, {1, 16, 70}, {1, 8}};

constexpr uint32_t kFirstLayer = 10;  // of the model
constexpr Lineage kLineage{{1, 2, 3}};

struct Range {
  uint64_t sequence;
  uint32_t count;
};

// A stage without arithmetic: writes a number a position and layer, and reads back all that attention would.
class Tale {
 public:
  Tale(BulkStore& store, uint32_t frames, std::vector<KvLayerShape> layers = kLayers, uint32_t blocks = 256)
      : Tale(&store, nullptr, frames, std::move(layers), blocks) {}
  // Either may be null; where both are, there is a frame for each block. Tags are of the numbers written.
  Tale(BulkStore* store, KvArchive* archive, uint32_t frames, std::vector<KvLayerShape> layers = kLayers,
       uint32_t blocks = 256, std::optional<KvSharing> sharing = std::nullopt,
       uint32_t store_blocks = UINT32_MAX)
      : layers_(std::move(layers)),
        budget_("ram", Bytes{64 << 20}),
        archive_(archive),
        cache_(device_, budget_, layers_, KvType::kF32, blocks,
               store || archive ? std::optional(KvSpill{store, &clock_, &counters_, "the store", frames,
                                                        kFirstLayer, 2, archive, kLineage, store_blocks})
                                : std::nullopt,
               sharing) {}
  // What the cache has reserved, and what it has allocated of it.
  Budget& budget() { return budget_; }
  Bytes reserved() const { return budget_.used(MemoryTag::kState); }
  Bytes allocated() const { return {device_.used_bytes()}; }

  KvCache& cache() { return cache_; }
  const KvCounters& counters() const { return counters_; }
  size_t length(uint64_t sequence) const { return numbers_.at(sequence).size(); }
  bool is_open(uint64_t sequence) const { return numbers_.count(sequence) > 0; }
  const std::map<uint64_t, std::vector<float>>& sequences() const { return numbers_; }

  void open(uint64_t sequence) {
    cache_.open(SequenceId{sequence});
    numbers_[sequence];
  }
  void close(uint64_t sequence) {
    cache_.close(SequenceId{sequence});
    numbers_.erase(sequence);
  }
  void fork(uint64_t from, uint64_t to, uint32_t positions) {
    cache_.fork(SequenceId{from}, SequenceId{to}, positions);
    numbers_[to].assign(numbers_[from].begin(), numbers_[from].begin() + positions);
  }
  void truncate(uint64_t sequence, uint32_t positions) {
    cache_.truncate(SequenceId{sequence}, positions);
    numbers_[sequence].resize(positions);
  }

  // Opens a sequence with the first blocks of these numbers.
  void load(uint64_t sequence, std::vector<float> numbers) {
    const std::vector<BlockTag> tags = tags_of(numbers);
    cache_.load(SequenceId{sequence}, static_cast<uint32_t>(numbers.size()), tags);
    numbers_[sequence] = std::move(numbers);
  }
  uint32_t archived(const std::vector<float>& numbers) const {
    return archive_->find(kLineage, kFirstLayer, static_cast<uint32_t>(layers_.size()), tags_of(numbers))
        .blocks;
  }
  // Of the whole blocks: a chain.
  static std::vector<BlockTag> tags_of(const std::vector<float>& numbers) {
    std::vector<BlockTag> tags;
    uint64_t chain = 7;
    for (size_t i = 0; i + kPositions <= numbers.size(); i += kPositions) {
      for (size_t p = i; p < i + kPositions; ++p) chain = mix64(chain + static_cast<uint64_t>(numbers[p]));
      BlockTag tag;
      std::memcpy(tag.bytes.data(), &chain, sizeof chain);
      tags.push_back(tag);
    }
    return tags;
  }
  // One step without rows: what was written is noted, and writing goes on.
  void idle() {
    cache_.begin_step();
    cache_.end_step();
  }

  // Sequences that failed.
  std::vector<uint64_t> run(const std::vector<Range>& ranges) {
    failed_.clear();
    std::map<uint64_t, uint32_t> first;
    for (const Range& range : ranges) {
      first[range.sequence] = static_cast<uint32_t>(length(range.sequence));
      for (uint32_t i = 0; i < range.count; ++i) numbers_[range.sequence].push_back(++last_number_);
      cache_.extend(SequenceId{range.sequence}, static_cast<uint32_t>(length(range.sequence)));
    }
    if (archive_) {
      for (const auto& [sequence, from] : first) {
        const std::vector<BlockTag> tags = tags_of(numbers_[sequence]);
        cache_.tag(SequenceId{sequence}, from, static_cast<uint32_t>(length(sequence)) - from,
                   std::span(tags).subspan(from / kPositions));
      }
    }
    for (size_t i = 0; i < ranges.size();) {
      cache_.begin_step();
      parts_.clear();
      try {
        for (; i < ranges.size(); ++i) {
          uint32_t& from = first[ranges[i].sequence];
          const auto left = static_cast<uint32_t>(length(ranges[i].sequence)) - from;
          const uint32_t taken = cache_.add_rows(SequenceId{ranges[i].sequence}, from, left);
          if (taken > 0) parts_.push_back({ranges[i].sequence, from, from + taken});
          from += taken;
          if (taken < left) break;
        }
      } catch (const Error& error) {
        fail(ranges[i++].sequence, error);
      }
      if (!parts_.empty()) run_parts();
      cache_.end_step();
    }
    return failed_;
  }
  // Numbers that no other life has written.
  void count_on_from(float number) { last_number_ = number; }
  float last_number() const { return last_number_; }
  const std::string& last_error() const { return last_error_; }

 private:
  struct Part {
    uint64_t sequence;
    uint32_t first, last;  // positions
  };

  float& slot(const KvBlock& block, uint32_t layer, uint32_t position) const {
    // The keys' last and the values' first number lie side by side: both ends of what moves.
    return reinterpret_cast<float*>(block.values)[(position % kPositions) * layers_[layer].head_width];
  }

  void fail(uint64_t sequence, const Error& error) {
    last_error_ = error.message();
    cache_.spoil(SequenceId{sequence}, error);
    if (std::find(failed_.begin(), failed_.end(), sequence) == failed_.end()) failed_.push_back(sequence);
  }

  void run_parts() {
    cache_.start_reading();
    for (uint32_t layer = 0; layer < layers_.size(); ++layer) {
      for (const Part& part : parts_) {
        const KvBlock* blocks = cache_.blocks(SequenceId{part.sequence}, layer);
        for (uint32_t p = part.first; p < part.last; ++p)
          slot(blocks[p / kPositions], layer, p) = value(part.sequence, p, layer);
      }
      for (size_t i = 0; i < parts_.size(); ++i) read(i, layer);
    }
  }
  float value(uint64_t sequence, uint32_t position, uint32_t layer) const {
    return numbers_.at(sequence)[position] + static_cast<float>(layer) / 4;
  }

  void read(size_t index, uint32_t layer) {
    const Part& part = parts_[index];
    const uint32_t window = layers_[layer].window;
    const uint32_t first = window != 0 && part.first >= window ? part.first - window + 1 : 0;
    if (cache_.all_resident(index))
      return compare(part, layer, cache_.blocks(SequenceId{part.sequence}, layer), first, part.last);
    try {
      const uint32_t pieces = (part.last - 1) / kPiece + 1;
      for (uint32_t piece = cache_.first_piece(index, layer); piece < pieces;) {
        const auto reach = cache_.reach(index, layer, piece, 3);
        ASSERT_GT(reach.last_piece, piece);
        compare(part, layer, reach.blocks, std::max(first, piece * kPiece),
                std::min(part.last, reach.last_piece * kPiece));
        piece = reach.last_piece;
      }
    } catch (const Error& error) {
      fail(part.sequence, error);
    }
  }

  void compare(const Part& part, uint32_t layer, const KvBlock* blocks, uint32_t first, uint32_t last) const {
    if (std::find(failed_.begin(), failed_.end(), part.sequence) != failed_.end()) return;
    for (uint32_t p = first; p < last; ++p)
      ASSERT_EQ(slot(blocks[p / kPositions], layer, p), value(part.sequence, p, layer))
          << "sequence " << part.sequence << ", layer " << layer << ", position " << p;
  }

  const std::vector<KvLayerShape> layers_;
  FakeDevice device_;
  SystemClock clock_;
  KvCounters counters_;
  Budget budget_;
  KvArchive* const archive_;
  KvCache cache_;
  std::map<uint64_t, std::vector<float>> numbers_;
  float last_number_ = 0;
  std::vector<Part> parts_;
  std::vector<uint64_t> failed_;
  std::string last_error_;
};

}  // namespace caravan::test
