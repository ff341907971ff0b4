#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// A small ordered map of byte strings that survives the process: RocksDB column families (store/), or memory.
// Any thread may call. Errors are thrown as kIo with the store's name.
class KeyValue {
 public:
  virtual ~KeyValue() = default;
  virtual std::optional<std::string> get(std::string_view key) const = 0;
  // Acknowledged writes survive a kill: returns after the log is synced.
  virtual void put(std::string_view key, std::string_view value) = 0;
  virtual void erase(std::string_view key) = 0;
  // In key order, keys that start with `prefix`, until `visit` returns false.
  virtual void scan(std::string_view prefix,
                    const std::function<bool(std::string_view key, std::string_view value)>& visit) const = 0;
};

}  // namespace caravan
