#pragma once

#include <cstdint>
#include <span>

#include "base/limits.h"
#include "compute/backend.h"

namespace caravan {

// The KV of one layer: heads and widths, and how far back its rows look.
struct KvLayerShape {
  uint32_t kv_heads = 0;
  uint32_t head_width = 0;
  uint32_t window = 0;  // 0: to the start; w: positions p - w + 1 to p
};

// Bytes of a layer's keys in one block; its values take the same and lie behind them.
inline uint64_t kv_side_bytes(const KvLayerShape& layer, KvType type) {
  return uint64_t{limits::kKvBlockPositions} * layer.kv_heads * layer.head_width *
         (type == KvType::kF32 ? 4 : 2);
}

// The block of a sequence from which on a layer's rows from `position` look.
inline uint32_t first_block_in_reach(const KvLayerShape& layer, uint32_t position) {
  return layer.window == 0 || position < layer.window
             ? 0
             : (position - layer.window + 1) / limits::kKvBlockPositions;
}

}  // namespace caravan
