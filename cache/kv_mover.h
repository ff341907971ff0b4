#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/bulk_store.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/error.h"

namespace caravan {

struct KvCounters {
  Counter bytes_written;  // to disk
  Counter bytes_read;     // back
  Counter waited_ns;      // time in which the computation waited for either
};

// The part of one layer in one block, on its way back to `to`.
struct KvRead {
  uint64_t serial = 0;
  uint32_t layer = 0;
  std::byte* to = nullptr;
};

// Moves KV blocks between RAM and a BulkStore: one thread that writes, several that read. On disk each
// layer's part of a block is a value of its own, keyed (serial, layer), with an XXH3 checksum behind it.
// Blocks that wait together are written in one batch; a batch's space is given back when none of it is needed
// any more, or when more than a third of all is dead. Called by one thread; its own threads share a lock with
// it, because they answer.
class KvMover {
 public:
  // `part_bytes`: of each layer in a block, one after the other. `name` is what errors say of the store.
  KvMover(BulkStore& store, const Clock& clock, KvCounters& counters, std::vector<uint64_t> part_bytes,
          std::string name, uint32_t first_layer, uint32_t readers);
  ~KvMover();  // waits for what is under way
  KvMover(const KvMover&) = delete;
  KvMover& operator=(const KvMover&) = delete;

  // The block stays as it is until it is told by take_written. Serials go up.
  void write(uint64_t serial, const std::byte* block);
  // It is not read any more.
  void erase(uint64_t serial);
  struct Written {
    uint64_t serial = 0;
    std::optional<Error> error;
  };
  // What was done since the last call.
  std::vector<Written> take_written();
  // Waits until there is something to take; returns at once when nothing is under way.
  void wait_written();

  class Reading;
  using Ticket = std::shared_ptr<Reading>;
  // Starts reading; the targets stay until it was waited for.
  Ticket read(std::span<const KvRead> parts);
  // kIo or kMalformed, naming block and layer, when a part is not there, short or damaged.
  std::optional<Error> wait(const Ticket& ticket);

 private:
  struct Part {
    Ticket ticket;
    KvRead read;
  };
  struct Write {
    uint64_t serial = 0;
    const std::byte* block = nullptr;
  };
  struct Batch {
    uint64_t last = 0;
    std::vector<uint64_t> dead;
  };
  using Lock = std::unique_lock<std::mutex>;

  void write_loop();
  void read_loop();
  std::optional<Error> write_batch(std::span<const Write> writes);
  void bury(std::span<const uint64_t> serials);
  void erase_range(uint64_t first, uint64_t last);
  void compact();
  std::optional<Error> read_part(const KvRead& read) const;

  BulkStore& store_;
  const Clock& clock_;
  KvCounters& counters_;
  const std::vector<uint64_t> part_bytes_;
  const std::string name_;
  const uint32_t first_layer_;

  std::mutex mutex_;
  std::condition_variable to_write_, to_read_, done_;
  bool stopping_ = false;
  std::deque<Write> writes_;
  std::vector<uint64_t> erased_;
  std::vector<Written> written_;
  size_t writes_under_way_ = 0;
  std::deque<Part> reads_;

  // Of the writing thread alone: batches on disk by first serial, and what of them is dead.
  std::map<uint64_t, Batch> batches_;
  uint64_t blocks_live_ = 0, blocks_dead_ = 0;

  std::vector<std::thread> threads_;  // last
};

}  // namespace caravan
