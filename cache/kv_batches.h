#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/bulk_store.h"

namespace caravan {

// Which batches of blocks lie in a BulkStore and what of them is dead: tells which ranges of serials are to
// be erased, so that the disk has their space again. A batch goes when all of it is dead; compact() cuts the
// dead out of the others, which costs writing the rest of each again. It erases nothing itself; one thread at
// a time.
class KvBatches {
 public:
  struct Range {
    uint64_t first = 0, last = 0;  // serials, both in it
    uint64_t batch = 0;            // the first serial of theirs
  };
  // Blocks of one size and with serials one after the other, above or between those of other batches.
  void add(uint64_t first, uint64_t last, uint64_t block_bytes);
  // Each serial is of a batch, and is told once.
  std::vector<Range> bury(std::span<const uint64_t> serials);
  std::vector<Range> compact();

  uint64_t blocks_live() const { return blocks_live_; }
  uint64_t blocks_dead() const { return blocks_dead_; }
  uint64_t bytes_live() const { return bytes_live_; }
  uint64_t bytes_dead() const { return bytes_dead_; }
  // What compact() would have written again.
  uint64_t bytes_beside_dead() const;

  // As a BulkStore takes them: those of one batch together.
  static std::vector<std::vector<BulkStore::Range>> keys_of(std::span<const Range> ranges);

 private:
  struct Batch {
    uint64_t last = 0;
    uint64_t block_bytes = 0;
    std::vector<uint64_t> dead;
    uint64_t gone = 0;  // cut out before
    uint64_t live(uint64_t first) const { return last - first + 1 - gone - dead.size(); }
  };
  std::map<uint64_t, Batch> batches_;  // by first serial
  uint64_t blocks_live_ = 0, blocks_dead_ = 0;
  uint64_t bytes_live_ = 0, bytes_dead_ = 0;
};

}  // namespace caravan
