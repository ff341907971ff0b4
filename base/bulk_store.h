#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
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
  // What becomes of a batch that is given up, or whose process is killed, before it is committed.
  enum class Uncommitted {
    kGone,
    kKept,  // what reached the disk can be salvaged, also after commit() by who is killed before its end
  };
  // Values that appear together. One thread.
  class Batch {
   public:
    virtual ~Batch() = default;
    // Kept ones: what is told with salvaged values, all notes one after the other. It survives a kill of the
    // process when it returns.
    virtual void note(std::string_view text) = 0;
    // Keys ascend over the calls. The value is taken before the call returns.
    virtual void add(std::string_view key, std::span<const std::byte> value) = 0;
    // On disk and visible when it returns, all or nothing. Called once, last.
    virtual void commit() = 0;
  };
  // The value in place, for the length of the call.
  using Use = std::function<void(std::span<const std::byte> value)>;

  virtual ~BulkStore() = default;
  virtual std::unique_ptr<Batch> begin(Uncommitted then = Uncommitted::kGone) = 0;
  // Values of kept batches that were given up, in this life or an earlier one, as far as they reached the
  // disk: each batch's in ascending order. They are what was added only as far as sums say so. What `use` has
  // returned for may be gone from then on, and the one for which it throws comes again. One thread.
  using UseSalvaged =
      std::function<void(std::string_view notes, std::string_view key, std::span<const std::byte> value)>;
  virtual void salvage(const UseSalvaged& use) = 0;
  // False when the key is not there.
  virtual bool read(std::string_view key, const Use& use) const = 0;
  // The same in pieces, in their order, each as soon as it is there. When it begins again at the first, those
  // before count for nothing. `of`: the size of the value.
  using UsePart = std::function<void(uint64_t offset, uint64_t of, std::span<const std::byte> part)>;
  virtual bool read_in_parts(std::string_view key, const UsePart& use) const {
    return read(key, [&](std::span<const std::byte> value) { use(0, value.size(), value); });
  }
  // Several at once, in ascending order, which is cheaper where they lie next to one another. `use` is called
  // for those that are there, by their place in `keys`, as far as the call does not throw.
  using UseOne = std::function<void(size_t place, std::span<const std::byte> value)>;
  virtual void read_many(std::span<const std::string> keys, const UseOne& use) const = 0;
  struct Range {
    std::string first, last;  // keys from the one up to, not with, the other
  };
  // Ascending ranges; the disk has their space again when it returns if they are whole batches, and soon
  // after if not. What else is in a batch of which a part goes is written again, once for ranges that come
  // together: those of one batch, not of batches far apart. Where it throws, a part of them may be gone.
  virtual void erase_ranges(std::span<const Range> ranges) = 0;
  void erase_range(std::string_view first, std::string_view last) {
    const Range range{std::string(first), std::string(last)};
    erase_ranges({&range, 1});
  }
  // So much was written again for that since the store was opened.
  virtual Bytes rewritten() const = 0;
  // On disk.
  virtual Bytes bytes() const = 0;
};

}  // namespace caravan
