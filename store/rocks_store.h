#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/key_value.h"

namespace caravan {

// The one RocksDB handle of a state folder; its column families are handed out as KeyValue. Small on purpose:
// few threads, small buffers, logs that do not grow. Any thread.
class RocksStore {
 public:
  // Opens or makes `folder`/store with (at least) these families. Throws kIo, naming the folder: another
  // process holds it, it cannot be written (then --state is named, too), or the disk refuses; kMalformed when
  // it is damaged.
  RocksStore(const std::string& folder, const std::vector<std::string>& families);
  ~RocksStore();
  RocksStore(const RocksStore&) = delete;
  RocksStore& operator=(const RocksStore&) = delete;

  // Keeps the store open for as long as it lives. The family must have been named at opening.
  std::shared_ptr<KeyValue> family(const std::string& name);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace caravan
