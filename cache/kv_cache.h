#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/budget.h"
#include "base/ids.h"
#include "compute/backend.h"
#include "compute/device.h"

namespace caravan {

// The KV of one layer: heads and widths.
struct KvLayerShape {
  uint32_t kv_heads = 0;
  uint32_t head_width = 0;
};

// The KV blocks of a stage's sequences. A block holds kKvBlockPositions positions of every layer of the stage
// in one allocation; full blocks are shared by forks. Bytes are reserved when the cache is built and
// allocated as they are used. The compute thread owns it.
class KvCache {
 public:
  // `blocks`: how many may be in use. Throws kOutOfMemory when the budget has no room for them.
  KvCache(Device& device, Budget& budget, std::vector<KvLayerShape> layers, KvType type, uint32_t blocks);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  static Bytes block_bytes(const std::vector<KvLayerShape>& layers, KvType type);

  // Throws kInvalidArgument for an id that is open already, kLimit over limits::kMaxSequences.
  void open(SequenceId sequence);
  // `to` starts with the first `positions` positions of `from`; its partial block is copied.
  void fork(SequenceId from, SequenceId to, uint32_t positions);
  // Makes room for positions up to `positions` (exclusive). Throws kOutOfMemory when no block is free.
  void extend(SequenceId sequence, uint32_t positions);
  // Keeps the first `positions`.
  void truncate(SequenceId sequence, uint32_t positions);
  void close(SequenceId sequence);
  bool is_open(SequenceId sequence) const { return sequences_.count(sequence) != 0; }
  uint32_t positions(SequenceId sequence) const;

  // The block table of a layer (index within the stage), for RowState. Valid until the sequence changes.
  const KvBlock* blocks(SequenceId sequence, uint32_t layer) const;
  uint32_t block_count() const { return block_limit_; }
  uint32_t blocks_free() const { return block_limit_ - blocks_used_; }
  size_t sequence_count() const { return sequences_.size(); }

 private:
  struct Block {
    DeviceBuffer buffer;
    uint32_t users = 0;
  };
  struct Sequence {
    std::vector<uint32_t> blocks;                // indices into blocks_
    std::vector<std::vector<KvBlock>> by_layer;  // [layer][block]
    uint32_t positions = 0;
  };
  Sequence& find(SequenceId sequence);
  const Sequence& find(SequenceId sequence) const;
  uint32_t take_block();
  void drop_block(uint32_t index);
  void append(Sequence& sequence, uint32_t block);
  // A cut inside a block that a fork shares: what is written next must not reach the other sequence.
  void make_last_block_own(Sequence& sequence);

  Device& device_;
  const std::vector<KvLayerShape> layers_;
  const KvType type_;
  const Bytes block_bytes_;
  const uint32_t block_limit_;
  Reservation reservation_;
  std::vector<Block> blocks_;
  std::vector<uint32_t> free_;
  uint32_t blocks_used_ = 0;
  std::map<SequenceId, Sequence> sequences_;
};

}  // namespace caravan
