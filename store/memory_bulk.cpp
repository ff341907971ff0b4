#include "store/memory_bulk.h"

#include <set>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace caravan {

class MemoryBulk::MemoryBatch final : public BulkStore::Batch {
 public:
  MemoryBatch(MemoryBulk& store, Uncommitted then) : store_(store), then_(then) {}
  ~MemoryBatch() override {
    if (then_ == Uncommitted::kGone || committed_) return;
    const std::lock_guard lock(store_.mutex_);
    store_.kept_.push_back({std::move(notes_), std::move(values_)});
  }
  void note(std::string_view text) override { notes_ += text; }
  void add(std::string_view key, std::span<const std::byte> value) override {
    CHECK((values_.empty() || values_.rbegin()->first < key));
    store_.ask(Operation::kAdd, key);
    values_.emplace(key, Value{{value.begin(), value.end()}});
  }
  void commit() override {
    store_.ask(Operation::kCommit, "");
    store_.take(values_);
    committed_ = true;
  }

 private:
  MemoryBulk& store_;
  const Uncommitted then_;
  std::string notes_;
  Values values_;
  bool committed_ = false;
};

MemoryBulk::MemoryBulk(Inject inject, Bytes room) : inject_(std::move(inject)), room_(room) {}

MemoryBulk::Fault MemoryBulk::ask(Operation operation, std::string_view key) const {
  const Fault fault = inject_ ? inject_(operation, key) : Fault::kNone;
  if (fault == Fault::kIo) fail(ErrorCode::kIo, "memory bulk store: a fault");
  if (fault == Fault::kFull) fail(ErrorCode::kIo, "the disk of the memory bulk store is full");
  return fault;
}

std::unique_ptr<BulkStore::Batch> MemoryBulk::begin(Uncommitted then) {
  return std::make_unique<MemoryBatch>(*this, then);
}

void MemoryBulk::salvage(const UseSalvaged& use) {
  for (;;) {
    Kept kept;
    {
      const std::lock_guard lock(mutex_);
      if (kept_.empty()) return;
      kept = kept_.front();
    }
    for (const auto& [key, value] : kept.values) use(kept.notes, key, value.bytes);
    const std::lock_guard lock(mutex_);
    kept_.erase(kept_.begin());
  }
}

void MemoryBulk::take(Values values) {
  uint64_t added = 0;
  for (const auto& [key, value] : values) added += value.bytes.size();
  if (bytes().count + added > room_.count) fail(ErrorCode::kIo, "the disk of the memory bulk store is full");
  std::lock_guard lock(mutex_);
  ++batches_;
  for (auto& [key, value] : values) {
    value.batch = batches_;
    values_.insert_or_assign(key, std::move(value));
  }
}

bool MemoryBulk::read(std::string_view key, const Use& use) const {
  const Fault fault = ask(Operation::kRead, key);
  std::vector<std::byte> value;  // a copy, so that `use` runs without the lock
  {
    std::lock_guard lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return false;
    value = found->second.bytes;
  }
  if (fault == Fault::kShort) value.resize(value.size() / 2);
  if (fault == Fault::kCorrupt && !value.empty()) value[value.size() / 2] ^= std::byte{0x10};
  use(value);
  return true;
}

void MemoryBulk::read_many(std::span<const std::string> keys, const UseOne& use) const {
  for (size_t place = 0; place < keys.size(); ++place)
    read(keys[place], [&](std::span<const std::byte> value) { use(place, value); });
}

void MemoryBulk::erase_ranges(std::span<const Range> ranges) {
  if (!ranges.empty()) ask(Operation::kErase, ranges.front().first);
  std::lock_guard lock(mutex_);
  std::set<uint64_t> touched;
  for (const Range& range : ranges) {
    const auto first = values_.lower_bound(range.first), last = values_.lower_bound(range.last);
    for (auto at = first; at != last; ++at) touched.insert(at->second.batch);
    values_.erase(first, last);
  }
  for (const auto& [key, value] : values_)
    if (touched.count(value.batch) > 0) rewritten_bytes_ += value.bytes.size();
}

Bytes MemoryBulk::rewritten() const {
  std::lock_guard lock(mutex_);
  return Bytes{rewritten_bytes_};
}

Bytes MemoryBulk::bytes() const {
  std::lock_guard lock(mutex_);
  Bytes sum;
  for (const auto& [key, value] : values_) sum += Bytes{value.bytes.size()};
  return sum;
}

std::vector<std::byte>* MemoryBulk::value(std::string_view key) {
  std::lock_guard lock(mutex_);
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second.bytes;
}

std::vector<std::string> MemoryBulk::keys() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> found;
  for (const auto& [key, value] : values_) found.push_back(key);
  return found;
}

}  // namespace caravan
