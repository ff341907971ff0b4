#include "store/memory_store.h"

#include "base/error.h"

namespace caravan {

void MemoryStore::check(Operation operation, std::string_view key) const {
  if (fault_ && fault_(operation, key)) fail(ErrorCode::kIo, "memory store: a fault at \"{}\"", key);
}

std::optional<std::string> MemoryStore::get(std::string_view key) const {
  std::lock_guard lock(mutex_);
  check(Operation::kGet, key);
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  return found->second;
}

void MemoryStore::put(std::string_view key, std::string_view value) {
  std::lock_guard lock(mutex_);
  check(Operation::kPut, key);
  values_.insert_or_assign(std::string(key), std::string(value));
}

void MemoryStore::erase(std::string_view key) {
  std::lock_guard lock(mutex_);
  check(Operation::kErase, key);
  if (const auto found = values_.find(key); found != values_.end()) values_.erase(found);
}

void MemoryStore::scan(std::string_view prefix,
                       const std::function<bool(std::string_view, std::string_view)>& visit) const {
  // A copy is visited, so that `visit` may call back.
  std::map<std::string, std::string> found;
  {
    std::lock_guard lock(mutex_);
    check(Operation::kScan, prefix);
    for (auto at = values_.lower_bound(prefix); at != values_.end(); ++at) {
      if (std::string_view(at->first).substr(0, prefix.size()) != prefix) break;
      found.insert(*at);
    }
  }
  for (const auto& [key, value] : found)
    if (!visit(key, value)) return;
}

}  // namespace caravan
