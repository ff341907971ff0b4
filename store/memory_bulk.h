#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
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

  std::unique_ptr<Batch> begin() override;
  bool read(std::string_view key, const Use& use) const override;
  void erase_range(std::string_view first, std::string_view last) override;
  Bytes bytes() const override;
  // For tests: the value itself, to be damaged for good; null when the key is not there.
  std::vector<std::byte>* value(std::string_view key);
  std::vector<std::string> keys() const;

 private:
  class MemoryBatch;
  using Values = std::map<std::string, std::vector<std::byte>, std::less<>>;

  Fault ask(Operation operation, std::string_view key) const;
  void take(Values values);

  const Inject inject_;
  const Bytes room_;
  mutable std::mutex mutex_;
  Values values_;
};

}  // namespace caravan
