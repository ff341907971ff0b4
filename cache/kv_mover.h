#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/bulk_store.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/error.h"
#include "cache/kv_archive.h"
#include "cache/kv_batches.h"
#include "cache/kv_residency.h"

namespace caravan {

// Of blocks that spill; the archive counts its own (KvArchiveCounters).
struct KvCounters {
  Counter bytes_written;  // to disk
  Counter bytes_read;     // back
  Counter waited_ns;      // time in which the computation waited for either, or for the archive
};

// The parts of consecutive layers in one block, on their way back, one after the other to `to`.
struct KvRead {
  uint64_t serial = 0;
  uint32_t first_layer = 0, layers = 1;
  std::byte* to = nullptr;
};

// What a block is called in the archive, and how it stands with it there.
struct KvTag {
  BlockTag tag, previous;  // of the block before it in its sequence; zeros: it is the first
  bool computed = false;   // since the archive gave or took it
  bool refused = false;    // by the archive, at least once
};

// Moves KV blocks between RAM and disk: to a BulkStore that is this cache's own, or to the archive, where
// they stay and are found again by their tags. One thread writes to each, several read from both. In the
// store a block lies as kv_value.h says; blocks that wait together are written in one batch; a batch's space
// is given back when none of it is needed any more, or when more than a third of all is dead. Called by one
// thread; its own threads share a lock with it, because they answer. What they find no memory for fails; room
// for their answers is made by the caller.
class KvMover {
 public:
  // `shape.part_bytes`: of each layer in a block, one after the other. `name` is what errors say of the
  // store. Either store may be null.
  KvMover(BulkStore* store, KvArchive* archive, KvArchiveShape shape, const Clock& clock,
          KvCounters& counters, std::string name, uint32_t readers);
  ~KvMover();  // waits for what is under way
  KvMover(const KvMover&) = delete;
  KvMover& operator=(const KvMover&) = delete;

  static bool is_archived(uint64_t serial) { return (serial & KvResidency::kArchived) != 0; }
  static bool is_copied(uint64_t serial) { return (serial & KvResidency::kCopied) != 0; }

  // The block stays as it is until it is told by take_written. Serials of a kind go up.
  void write(uint64_t serial, const std::byte* block);
  // The same, to the archive, which may refuse.
  void archive(uint64_t serial, const KvTag& tag, const std::byte* block);
  // The serial stands for a block of the archive from now on.
  void adopt(uint64_t serial, KvArchive::Handle block);
  // What the serial `archived` stands for, to the store. It waits for writes, they not for it. Of what the
  // archive cannot read any more there is a copy that cannot be read either.
  void copy(uint64_t serial, uint64_t archived);
  // It is not read any more. What is in the archive stays there.
  void erase(uint64_t serial);
  struct Written {
    uint64_t serial = 0;
    bool refused = false;  // by the archive
    std::optional<Error> error;
  };
  // What was done since the last call.
  std::vector<Written> take_written();
  // Waits until there is something to take; returns at once when nothing is under way.
  void wait_written();
  // The same for so long at most; false when it was in vain. Not counted as waiting.
  bool wait_written(Duration most);

  class Reading;
  using Ticket = std::shared_ptr<Reading>;
  // Starts reading; the targets stay until it was waited for.
  Ticket read(std::span<const KvRead> parts);
  // kIo or kMalformed, naming block and layer, when a part is not there, short or damaged; kOutOfMemory when
  // there was none to read it.
  std::optional<Error> wait(const Ticket& ticket);

 private:
  struct Part {
    Ticket ticket;
    KvRead read;
    KvArchive::Handle archived;
  };
  struct Write {
    uint64_t serial = 0;
    const std::byte* block = nullptr;
    KvTag tag = {};
    KvArchive::Handle archived = {};  // of what is copied, instead of `block`
  };
  using Lock = std::unique_lock<std::mutex>;

  void end();
  void queue(std::deque<Write>& queue, Write write);
  static void take_batch(std::deque<Write>& queue, std::vector<Write>& batch, size_t most);
  void write_loop();
  void archive_loop();
  void read_loop();
  std::optional<Error> write_batch(std::span<const Write> writes);
  bool read_archived(const Write& write, uint32_t layer, std::vector<std::byte>& to) const;
  std::vector<KvArchive::Handle> archive_batch(std::span<const Write> batch) const;
  void bury(std::span<const uint64_t> serials);
  std::optional<Error> read_part(const Part& part) const;

  BulkStore* const store_;
  KvArchive* const archive_;
  const KvArchiveShape shape_;
  const Clock& clock_;
  KvCounters& counters_;
  const std::string name_;

  std::mutex mutex_;
  std::condition_variable to_write_, to_archive_, to_read_, done_;
  bool stopping_ = false;
  std::deque<Write> writes_, copies_, archive_writes_;
  std::vector<uint64_t> erased_;
  std::unordered_map<uint64_t, KvArchive::Handle> archived_;  // by serial; null while it is being written
  std::vector<Written> written_;
  size_t writes_under_way_ = 0;
  std::deque<Part> reads_;

  KvBatches batches_;  // of the writing thread alone

  std::vector<std::thread> threads_;  // last
};

}  // namespace caravan
