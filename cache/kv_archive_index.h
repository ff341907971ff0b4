#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"

namespace caravan {

// A block of a sequence in the archive: some layers of it, under one serial.
struct ArchivedBlock {
  uint64_t serial = 0;
  BlockTag tag, previous;  // of the block before it in its sequence; zeros: it is the first
  Lineage lineage;
  uint32_t first_layer = 0, layers = 0;  // of the model
  uint64_t bytes = 0;                    // on disk
  uint32_t run = 1;                      // blocks of its sequence from the last fork on, with this one
  uint32_t uses = 0;                     // since it was written
  double last_use = 0;                   // by the index's clock
  // How many blocks all stages of its ring had room for, where that was less than here; else 0.
  uint64_t ring_blocks = 0;
  uint32_t end_layer() const { return first_layer + layers; }
  bool operator==(const ArchivedBlock&) const = default;
};

// What an archive's batch of blocks with serials `first` to `last` holds, as bytes with a checksum.
std::string encode_archived(uint64_t last, std::span<const ArchivedBlock> blocks);
// The key of that record.
inline constexpr char kArchivedPrefix = 'b';
std::string archived_key(uint64_t first);
struct ArchivedBatch {
  uint64_t last = 0;
  std::vector<ArchivedBlock> blocks;  // by serial
};
// Nothing when the bytes are damaged or make no sense for a batch that begins with `first`.
std::optional<ArchivedBatch> decode_archived(uint64_t first, std::string_view bytes);

// Which blocks an archive holds, who uses them and which goes next: the state machine under KvArchive,
// without I/O. One thread at a time.
//
// What goes next is the block of the least priority among those that nobody uses and after which no block of
// their sequence is archived. Its priority is the clock at its last use and its value: the time that its
// whole run saves, more with each use, over its bytes. The clock goes on with what is taken in: by its value
// for each time that its bytes fill the bound. So a run outlives as many fillings by others as its value is
// times theirs, and what is never used again goes in the end. A run begins at the last fork: what many
// sequences begin with is archived once, and the short ends behind it are short.
//
// Of one ring, blocks also give way to each other alone, while others stay: by the same priority, with a
// clock that goes by what the ring has room for.
class KvArchiveIndex {
 public:
  static constexpr size_t kMostBlocks = 1u << 18;
  // Of memory for each, about.
  static constexpr uint64_t kBlockBytes = 520;

  // `limit` is the bound that the clock goes by.
  explicit KvArchiveIndex(Bytes limit) : limit_bytes_(limit.count) {}

  // With a new serial. The clock is not before its last use then.
  void add(const ArchivedBlock& block);
  // The clock goes on by what was taken in.
  void age(const ArchivedBlock& block);
  double clock() const { return clock_; }
  void set_clock(double clock) { clock_ = clock; }
  // Out of the index at once, used or not.
  std::optional<ArchivedBlock> remove(uint64_t serial);
  // The serials that together hold all of these layers, by layer; empty when they do not.
  std::vector<uint64_t> cover(const BlockTag& tag, const Lineage& lineage, uint32_t first_layer,
                              uint32_t layers) const;
  // Blocks that lie within these layers.
  std::vector<uint64_t> within(const BlockTag& tag, const Lineage& lineage, uint32_t first_layer,
                               uint32_t layers) const;
  const ArchivedBlock* find(uint64_t serial) const;
  // The runs of blocks that are to be added together, in this order: as if each were here before the next.
  void set_runs(std::span<ArchivedBlock> blocks) const;

  // Serials that are gone are ignored.
  void use(uint64_t serial);
  void pin(uint64_t serial);
  void unpin(uint64_t serial);
  // What goes next; nothing when all are in use.
  std::optional<uint64_t> victim() const;

  struct Ring {
    Lineage lineage;
    uint64_t blocks = 0;  // as in its blocks; not 0
    Bytes bound;          // that its clock goes by
  };
  // Whose blocks ring_victim() and ring_bytes() tell of.
  void set_ring(std::optional<Ring> ring);
  std::optional<uint64_t> ring_victim() const;
  uint64_t ring_bytes() const { return ring_bytes_; }

  // Those with serials `first` to `last`, in order.
  std::vector<ArchivedBlock> range(uint64_t first, uint64_t last) const;
  size_t size() const { return blocks_.size(); }
  uint64_t bytes() const { return bytes_; }
  uint64_t bytes_in_use() const { return bytes_in_use_; }

 private:
  using Key = std::pair<BlockTag, Lineage>;
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return std::hash<BlockTag>()(key.first) ^ std::hash<Lineage>()(key.second);
    }
  };
  struct Entry {
    ArchivedBlock block;
    uint32_t pins = 0;
    std::optional<double> priority, ring_priority;  // as they stand in leaving_ and ring_leaving_
  };
  struct Node {
    std::vector<uint64_t> serials;  // by layer
    uint32_t successors = 0;
  };
  using Leaving = std::set<std::pair<double, uint64_t>>;  // the least first
  bool is_of_ring(const ArchivedBlock& block) const;
  double priority(const ArchivedBlock& block, double pace) const;
  double pace() const;
  void place(Entry& entry);
  static void leave(const Entry& entry, double priority, Leaving& leaving, std::optional<double>& noted);
  void take_out(Entry& entry);
  void place_all(const Key& key);

  const uint64_t limit_bytes_;
  std::map<uint64_t, Entry> blocks_;
  std::unordered_map<Key, Node, KeyHash> nodes_;
  Leaving leaving_;
  std::optional<Ring> ring_;
  Leaving ring_leaving_;
  uint64_t ring_bytes_ = 0;
  uint64_t bytes_ = 0, bytes_in_use_ = 0;
  double clock_ = 0;
};

}  // namespace caravan
