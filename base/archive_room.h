#pragma once

#include <algorithm>
#include <cstdint>

namespace caravan {

// What an archive takes of KV blocks, of the layers that its stage hosts.
struct ArchiveRoom {
  uint64_t blocks = 0;        // kept
  uint64_t blocks_a_day = 0;  // written
  bool operator==(const ArchiveRoom&) const = default;
};

// What both of two stages take. A block is of use where every stage has it.
inline ArchiveRoom least(const ArchiveRoom& one, const ArchiveRoom& other) {
  return {std::min(one.blocks, other.blocks), std::min(one.blocks_a_day, other.blocks_a_day)};
}

}  // namespace caravan
