#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "base/bytes.h"

namespace caravan {

// Large values by key, written once in sorted batches and read straight from disk: weights, archived KV. The
// store keeps no copy in memory and checks no value: who writes puts a checksum into the value, who reads
// looks at it. Any thread may read; writing and erasing at the same time is allowed for different ranges.
// Errors are thrown as kIo with the store's name, a full disk named as such; nothing of the failed call is
// then there.
class BulkStore {
 public:
  // Values that appear together. One thread.
  class Batch {
   public:
    virtual ~Batch() = default;  // uncommitted: leaves nothing behind
    // Keys ascend over the calls. The value is taken before the call returns.
    virtual void add(std::string_view key, std::span<const std::byte> value) = 0;
    // On disk and visible when it returns, all or nothing. Called once, last.
    virtual void commit() = 0;
  };
  // The value in place, for the length of the call.
  using Use = std::function<void(std::span<const std::byte> value)>;

  virtual ~BulkStore() = default;
  virtual std::unique_ptr<Batch> begin() = 0;
  // False when the key is not there.
  virtual bool read(std::string_view key, const Use& use) const = 0;
  // Keys from `first` up to, not with, `last`; the disk has their space again when it returns if they are
  // whole batches, and soon after if not.
  virtual void erase_range(std::string_view first, std::string_view last) = 0;
  // On disk.
  virtual Bytes bytes() const = 0;
};

}  // namespace caravan
