#include "cache/kv_batches.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace caravan {

void KvBatches::add(uint64_t first, uint64_t last, uint64_t block_bytes) {
  CHECK(first <= last);
  const bool fresh = batches_.emplace(first, Batch{last, block_bytes, {}}).second;
  CHECK(fresh);
  blocks_live_ += last - first + 1;
  bytes_live_ += (last - first + 1) * block_bytes;
}

std::vector<KvBatches::Range> KvBatches::bury(std::span<const uint64_t> serials) {
  std::vector<Range> ranges;
  for (const uint64_t serial : serials) {
    auto found = batches_.upper_bound(serial);
    CHECK((found != batches_.begin()));
    Batch& batch = (--found)->second;
    CHECK(serial <= batch.last);
    batch.dead.push_back(serial);
    --blocks_live_;
    ++blocks_dead_;
    bytes_live_ -= batch.block_bytes;
    bytes_dead_ += batch.block_bytes;
    if (batch.dead.size() <= batch.last - found->first) continue;
    ranges.push_back({found->first, batch.last});
    blocks_dead_ -= batch.dead.size();
    bytes_dead_ -= batch.dead.size() * batch.block_bytes;
    batches_.erase(found);
  }
  return ranges;
}

std::vector<KvBatches::Range> KvBatches::compact() {
  std::vector<Range> ranges;
  std::map<uint64_t, Batch> kept;
  for (auto& [first, batch] : batches_) {
    std::sort(batch.dead.begin(), batch.dead.end());
    uint64_t start = first;
    for (size_t i = 0; i < batch.dead.size();) {
      const uint64_t from = batch.dead[i];
      uint64_t to = from;
      while (++i < batch.dead.size() && batch.dead[i] == to + 1) ++to;
      ranges.push_back({from, to});
      if (from > start) kept[start] = {from - 1, batch.block_bytes, {}};
      start = to + 1;
    }
    if (start <= batch.last) kept[start] = {batch.last, batch.block_bytes, {}};
  }
  batches_ = std::move(kept);
  blocks_dead_ = 0;
  bytes_dead_ = 0;
  return ranges;
}

}  // namespace caravan
