#include "cache/kv_batches.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "cache/kv_value.h"

namespace caravan {

void KvBatches::add(uint64_t first, uint64_t last, uint64_t block_bytes) {
  CHECK(first <= last);
  const bool fresh = batches_.emplace(first, Batch{last, block_bytes, {}, 0}).second;
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
    if (batch.live(found->first) > 0) continue;
    ranges.push_back({found->first, batch.last, found->first});
    blocks_dead_ -= batch.dead.size();
    bytes_dead_ -= batch.dead.size() * batch.block_bytes;
    batches_.erase(found);
  }
  return ranges;
}

std::vector<KvBatches::Range> KvBatches::compact() {
  std::vector<Range> ranges;
  for (auto& [first, batch] : batches_) {
    std::sort(batch.dead.begin(), batch.dead.end());
    for (size_t i = 0; i < batch.dead.size();) {
      const uint64_t from = batch.dead[i];
      uint64_t to = from;
      while (++i < batch.dead.size() && batch.dead[i] == to + 1) ++to;
      ranges.push_back({from, to, first});
    }
    batch.gone += batch.dead.size();
    batch.dead.clear();
  }
  blocks_dead_ = 0;
  bytes_dead_ = 0;
  return ranges;
}

uint64_t KvBatches::bytes_beside_dead() const {
  uint64_t bytes = 0;
  for (const auto& [first, batch] : batches_)
    if (!batch.dead.empty()) bytes += batch.live(first) * batch.block_bytes;
  return bytes;
}

std::vector<std::vector<BulkStore::Range>> KvBatches::keys_of(std::span<const Range> ranges) {
  std::vector<std::vector<BulkStore::Range>> keys;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (i == 0 || ranges[i].batch != ranges[i - 1].batch) keys.emplace_back();
    keys.back().push_back({kv_key(ranges[i].first, 0), kv_key(ranges[i].last + 1, 0)});
  }
  return keys;
}

}  // namespace caravan
