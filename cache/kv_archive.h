#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/archive_room.h"
#include "base/bulk_store.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/key_value.h"
#include "cache/kv_archive_index.h"
#include "cache/kv_batches.h"
#include "cache/kv_day_budget.h"
#include "cache/kv_value.h"

namespace caravan {

struct KvArchiveCounters {
  Counter bytes_written;  // with what cutting out the dead wrote again
  Counter bytes_read;     // also to prove or to copy blocks
  Counter blocks_written;
  Counter blocks_adopted;  // taken up by sequences, or to be proved
  Counter evicted;         // blocks that made room
  Counter refused;         // blocks, when they are offered first: no room, no budget, or off
  Counter quarantined;     // blocks that could not be read, or lay in a damaged table
  Counter failures;        // that switched it off for a while
};

struct KvArchiveOptions {
  Bytes limit;               // on disk
  std::optional<Bytes> day;  // written in one, at most
  // Whether the disk may take so many bytes more; may be empty. The writing thread calls.
  std::function<bool(Bytes)> disk_has_room;
  std::string name;  // for errors
  // Whose index is in memory.
  size_t most_blocks = KvArchiveIndex::kMostBlocks;
};

// The layers of a stage, as they are archived.
struct KvArchiveShape {
  Lineage lineage;
  uint32_t first_layer = 0;          // of the model
  std::vector<uint64_t> part_bytes;  // of each layer in a block
  uint32_t layers() const { return static_cast<uint32_t>(part_bytes.size()); }
  uint64_t disk_bytes() const {
    return std::accumulate(part_bytes.begin(), part_bytes.end(), part_bytes.size() * kKvSealBytes);
  }
};

// Full KV blocks by the tag of what they were computed from, kept on disk over restarts within a bound
// (docs/decisions/0008-kv-archive.md). What write() has returned a handle for is there after a kill at any
// moment. Blocks make room by value (KvArchiveIndex), never ones that a handle names. A failing store or a
// full disk switches it off for a while: nothing is found or written then, and nobody waits.
// Any thread. The index is in memory and lies under a lock that is never held over I/O, because the control
// thread looks up while the compute thread adopts and the movers write.
class KvArchive {
 public:
  // Reads the index, and erases values that no record names. Throws kIo; kMalformed when what is there has to
  // be begun anew, as records of an older version have; kUnsupported for those of another one. Needs both
  // stores for itself.
  KvArchive(std::shared_ptr<BulkStore> values, std::shared_ptr<KeyValue> records, const Clock& clock,
            KvArchiveOptions options);
  ~KvArchive();  // after all handles
  KvArchive(const KvArchive&) = delete;
  KvArchive& operator=(const KvArchive&) = delete;

  struct Found {
    uint32_t blocks = 0;   // the leading ones that are here
    uint64_t load_ns = 0;  // that reading them is expected to take
  };
  Found find(const Lineage& lineage, uint32_t first_layer, uint32_t layers,
             std::span<const BlockTag> tags) const;

  // A block that stays while the handle lives.
  class Block;
  using Handle = std::shared_ptr<const Block>;
  // Null when it is not here. Counts as a use.
  Handle adopt(const KvArchiveShape& shape, const BlockTag& tag);

  struct Write {
    BlockTag tag, previous;  // of the block before it; zeros: it is the first
    const std::byte* block = nullptr;
    // What is here already is read before it counts as this block: it may have been computed because what is
    // here is damaged.
    bool computed = false;
    bool refused = false;  // before, and counted
  };
  // A handle for each; null for what is refused, without the one before it among other reasons. Waits for the
  // disk. What fails is refused; only without memory for the handles themselves it throws.
  std::vector<Handle> write(const KvArchiveShape& shape, std::span<const Write> writes);

  struct Status {
    uint64_t bytes = 0;   // on disk, with what waits to be erased
    uint64_t blocks = 0;  // that can be found
    bool off = false;     // for a while, after a failure
  };
  Status status() const;
  // What was offered last found no room, because all that is left is in use: of what can do without its copy
  // here, the handles should go.
  bool crowded() const;
  // More than half of the bound is: room for what comes next should be made ahead.
  bool mostly_in_use() const;
  // How often something was erased, after which what found no room may find it.
  uint64_t rooms_made() const;
  // It was since, or is being erased.
  bool room_comes(uint64_t since) const;
  // Waits for it, for so long at most; false when it was in vain.
  bool wait_for_room(uint64_t since, Duration most);
  Bytes limit() const { return options_.limit; }
  // That has room for a block of this shape.
  static Bytes least(const KvArchiveShape& shape);
  // Of blocks of this shape.
  ArchiveRoom room(const KvArchiveShape& shape) const;
  // For a ring whose stages all have so much room: of what it archives no more is kept or written, as nobody
  // could load that. What was archived in other rings stays: it is of use in them.
  void keep_within(const KvArchiveShape& shape, const ArchiveRoom& room);
  const KvArchiveCounters& counters() const { return counters_; }
  // Waits until what is to be erased is erased, or cannot be.
  void settle();

 private:
  using Lock = std::unique_lock<std::mutex>;
  // Without the lock for as long as this lives.
  class Unlocked {
   public:
    explicit Unlocked(Lock& lock) : lock_(lock) { lock_.unlock(); }
    ~Unlocked() { lock_.lock(); }
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

   private:
    Lock& lock_;
  };
  struct Rate {
    double ns_per_byte = 1;  // until it is measured
    uint32_t active = 0;     // reads
    Time since{};
    uint64_t busy_ns = 0, bytes = 0;
  };

  uint64_t most_live() const;
  uint64_t batch_room() const;
  uint64_t own_room(const KvArchiveShape& shape) const;
  bool is_in_ring(const Lineage& lineage) const;
  void open();
  void open_meta();
  void write_meta();
  Handle make_handle(const BlockTag& tag, std::vector<uint64_t> serials);
  void unpin(const Block& block);
  std::optional<Error> read(const Block& block, uint32_t first_layer, std::span<const uint64_t> part_bytes,
                            std::byte* to, bool timed);
  std::optional<KvReadFailure> read_part(uint64_t serial, uint32_t first_layer,
                                         std::span<const uint64_t> part_bytes, std::byte* to);
  std::optional<KvReadFailure> read_timed(uint64_t serial, uint32_t first_layer,
                                          std::span<const uint64_t> part_bytes, std::byte* to);
  void quarantine(uint64_t serial);
  void add(const ArchivedBlock& block);
  bool is_off() const;
  void failed(const Error& error);
  void worked();

  // Of write().
  void write_batch(const KvArchiveShape& shape, std::span<const Write> writes, std::span<Handle> handles);
  Handle prove(const KvArchiveShape& shape, const BlockTag& tag);
  std::vector<size_t> choose(const KvArchiveShape& shape, std::span<const Write> writes,
                             std::span<Handle> handles, std::vector<Handle>& before);
  void spend(Lock& lock, uint64_t bytes);
  size_t may_write(Lock& lock, const KvArchiveShape& shape, size_t offered);
  size_t make_room(Lock& lock, const Lineage& lineage, uint64_t block_bytes, size_t offered);
  bool evict(std::optional<uint64_t> victim);
  void evict_down_to(uint64_t bytes, size_t blocks);
  void store(const KvArchiveShape& shape, std::span<const Write> writes, std::span<const size_t> chosen,
             uint64_t first, uint64_t& kept_bytes);

  void keep_house();
  bool may_cut_out() const;
  bool has_dirt() const;
  bool is_settled() const { return (!has_dirt() || cannot_clean_) && !cleaning_; }
  void not_kept(Lock& lock, const Error& error);
  bool clean_up(Lock& lock);
  void write_records(Lock& lock, const std::set<uint64_t>& touched);
  struct Erased {
    uint64_t rewritten = 0;       // bytes, for that
    std::vector<uint64_t> stuck;  // batches of which something could not be erased
  };
  Erased erase(std::span<const KvBatches::Range> ranges);
  void give_up(uint64_t batch);

  const std::shared_ptr<BulkStore> values_;
  const std::shared_ptr<KeyValue> records_;
  const Clock& clock_;
  const KvArchiveOptions options_;
  KvArchiveCounters counters_;

  std::mutex write_mutex_;  // one batch at a time; taken before the others
  std::mutex meta_mutex_;   // the last on disk is the newest; taken before the next
  mutable std::mutex mutex_;
  std::condition_variable to_clean_, cleaned_;
  KvArchiveIndex index_;
  KvBatches batches_;
  std::map<uint64_t, uint64_t> record_ends_;  // last serial of each record's batch, by the first
  std::set<uint64_t> used_records_;           // whose counts of uses changed
  std::vector<uint64_t> dead_;                // serials out of the index, on disk
  std::vector<KvBatches::Range> orphans_;     // written, without a record
  uint64_t erasing_bytes_ = 0, rooms_made_ = 0;
  uint64_t next_serial_ = 1;
  KvDayBudget day_;
  struct Ring {
    Lineage lineage;
    uint64_t blocks = 0, bytes = 0;  // that all its stages have room for
  };
  std::optional<Ring> ring_;
  Rate rate_;
  uint32_t failures_in_row_ = 0;
  Time off_until_{};
  bool crowded_ = false;
  bool stopping_ = false, cleaning_ = false, cannot_clean_ = false;
  std::thread house_;  // last
};

class KvArchive::Block {
 public:
  Block(KvArchive& archive, BlockTag tag, std::vector<ArchivedBlock> pieces)
      : archive_(archive), tag_(tag), pieces_(std::move(pieces)) {}
  ~Block() { archive_.unpin(*this); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  const BlockTag& tag() const { return tag_; }
  // Consecutive layers (of the model), one after the other to `to`. On an error, which names the block and
  // the layer, it is in quarantine: not found any more, and erased; unless there was only no memory to read
  // it.
  std::optional<Error> read(uint32_t first_layer, std::span<const uint64_t> part_bytes, std::byte* to) const {
    return archive_.read(*this, first_layer, part_bytes, to, true);
  }
  // In the background: without a share in what loading is expected to take.
  std::optional<Error> read_aside(uint32_t first_layer, std::span<const uint64_t> part_bytes,
                                  std::byte* to) const {
    return archive_.read(*this, first_layer, part_bytes, to, false);
  }

 private:
  friend class KvArchive;
  KvArchive& archive_;
  const BlockTag tag_;
  const std::vector<ArchivedBlock> pieces_;  // by layer
};

}  // namespace caravan
