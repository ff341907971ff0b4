#pragma once

#include <algorithm>
#include <cstdint>

namespace caravan {

// What an archive takes of KV blocks, of the layers that its stage hosts.
struct ArchiveRoom {
  uint64_t blocks = 0;                          // kept
  uint64_t blocks_today = 0, blocks_a_day = 0;  // written: in the rest of this day, and in a whole one
  bool operator==(const ArchiveRoom&) const = default;
};

// What both of two stages take. A block is of use where every stage has it.
inline ArchiveRoom least(const ArchiveRoom& one, const ArchiveRoom& other) {
  return {std::min(one.blocks, other.blocks), std::min(one.blocks_today, other.blocks_today),
          std::min(one.blocks_a_day, other.blocks_a_day)};
}

}  // namespace caravan
