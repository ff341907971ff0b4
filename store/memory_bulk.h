#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/bulk_store.h"

namespace caravan {

// The in-memory twin of RocksStore's bulk families, with faults. Any thread, as BulkStore promises: hence the
// lock. The object must outlive its batches.
class MemoryBulk final : public BulkStore {
 public:
  enum class Operation { kAdd, kCommit, kRead, kErase };
  enum class Fault {
    kNone,
    kShort,    // kRead: half of the value
    kCorrupt,  // kRead: one bit of it is flipped
    kIo,       // fails as kIo; nothing changes
    kFull,     // kAdd, kCommit: the disk is full; nothing changes
  };
  // Asked before every operation (`key` is the first of a range, empty of a commit); it may take its time, as
  // a slow disk does. Any thread.
  using Inject = std::function<Fault(Operation operation, std::string_view key)>;

  // `room`: values together may have so many bytes.
  explicit MemoryBulk(Inject inject = nullptr, Bytes room = Bytes{UINT64_MAX});

  std::unique_ptr<Batch> begin(Uncommitted then) override;
  void salvage(const UseSalvaged& use) override;
  bool read(std::string_view key, const Use& use) const override;
  void read_many(std::span<const std::string> keys, const UseOne& use) const override;
  void erase_ranges(std::span<const Range> ranges) override;
  Bytes rewritten() const override;
  Bytes bytes() const override;
  // For tests: the value itself, to be damaged for good; null when the key is not there.
  std::vector<std::byte>* value(std::string_view key);
  std::vector<std::string> keys() const;

 private:
  class MemoryBatch;
  struct Value {
    std::vector<std::byte> bytes;
    uint64_t batch = 0;
  };
  using Values = std::map<std::string, Value, std::less<>>;
  struct Kept {
    std::string notes;
    Values values;
  };

  Fault ask(Operation operation, std::string_view key) const;
  void take(Values values);

  const Inject inject_;
  const Bytes room_;
  mutable std::mutex mutex_;
  Values values_;
  std::vector<Kept> kept_;  // to be salvaged
  uint64_t batches_ = 0, rewritten_bytes_ = 0;
};

}  // namespace caravan
