#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "compute/format.h"

namespace caravan {

// What this machine does a second, as measured (daemon/calibrate.h); the planner reads nothing else of it.

// A rate with one thread and with all of them.
struct ThreadRate {
  double one = 0;
  double all = 0;
  bool operator==(const ThreadRate&) const = default;
};

// Products with one weight format.
struct KernelRates {
  ThreadRate row_bytes;        // bytes of weights a second, one row of activations
  ThreadRate many_operations;  // operations a second (a multiply and an add are two), a full step of rows
  bool operator==(const KernelRates&) const = default;
};

// Direct reads of `bytes` each by `readers` threads at once.
struct DiskRate {
  uint64_t bytes = 0;
  uint32_t readers = 0;
  double rate = 0;  // bytes a second, of all readers together
  bool operator==(const DiskRate&) const = default;
};

// Reads of weight groups from the shard store, which checks and copies what it reads.
struct StoreRates {
  double rate = 0;  // bytes a second, the pager's readers together
  // As below.
  double compute_while_reading = 1, read_while_computing = 1;
  bool operator==(const StoreRates&) const = default;
};

struct Measurements {
  uint32_t threads = 0;  // what "all" means
  ThreadRate memory;     // bytes a second, plain reads far larger than the caches
  std::map<TensorType, KernelRates> kernels;
  // Over keys and values of each type: their bytes for one row, operations for many.
  KernelRates attention_f32, attention_f16;
  double call_seconds = 0;        // of a call of the back end with next to no work
  std::vector<DiskRate> disk;     // at least one
  DiskRate kv;                    // reads as KV comes back in, checked and copied
  double small_read_seconds = 0;  // one read of 4 KiB, alone
  bool direct = false;            // the disk was read around the page cache (O_DIRECT)
  double sha256 = 0, xxh3 = 0;    // bytes a second, one thread
  // Of the rate alone, what is left while the other one runs too; at most 1.
  double compute_while_reading = 1;
  double read_while_computing = 1;
  double hash_while_both = 1;    // XXH3 while products and reads run
  double sha256_while_both = 1;  // likewise
  double memory_while_both = 1;  // of all threads, while reads and a hash run
  StoreRates store;

  // The same machine with weights that come out of the store instead of files.
  Measurements reading_from_store() const;
  // The fastest of the reads of at most `bytes` each; with only larger ones, the fastest of the smallest.
  DiskRate best_read(uint64_t bytes) const;
  // For `used` threads, between one and all; more than all give no more.
  double at(const ThreadRate& rate, uint32_t used) const;
  // Of an unmeasured format those of the slowest measured one.
  KernelRates rates(TensorType type) const;
  bool operator==(const Measurements&) const = default;
};

}  // namespace caravan
