#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "daemon/process_folder.h"
#include "shards/shard_store.h"

namespace caravan {

// Weight groups of noise in a shard store of its own, read as the pager reads a model that was copied into
// the store. One thread.
class StoreProbe {
 public:
  // In `folder`, of about `bytes`, less where its disk has little room; gone with this object, and what a
  // killed process left there goes, too. Throws kIo naming the folder, also when its disk is full.
  StoreProbe(const Clock& clock, const std::string& folder, uint64_t bytes);
  // Bytes a second of the pager's reader, for so long.
  double rate(double lasting) const;

 private:
  const Clock& clock_;
  const ProcessFolder folder_;
  const std::shared_ptr<ShardStore> store_;
  std::vector<Hash256> groups_;
};

}  // namespace caravan
