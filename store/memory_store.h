#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "base/key_value.h"

namespace caravan {

// The in-memory twin of RocksStore's families, with faults. Any thread, as KeyValue promises: hence the lock.
class MemoryStore final : public KeyValue {
 public:
  enum class Operation { kGet, kPut, kErase, kScan };
  // Asked before every operation (`key` is the prefix of a scan), under the lock; true: it fails as kIo and
  // changes nothing.
  using Fault = std::function<bool(Operation operation, std::string_view key)>;

  explicit MemoryStore(Fault fault = nullptr) : fault_(std::move(fault)) {}

  std::optional<std::string> get(std::string_view key) const override;
  void put(std::string_view key, std::string_view value) override;
  void erase(std::string_view key) override;
  void scan(std::string_view prefix,
            const std::function<bool(std::string_view key, std::string_view value)>& visit) const override;

 private:
  void check(Operation operation, std::string_view key) const;

  const Fault fault_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string, std::less<>> values_;
};

}  // namespace caravan
