#include "tests/sim/hash_archive.h"

#include <utility>

#include "base/check.h"

namespace caravan {

void HashArchive::store(const BlockTag& tag, const Lineage& lineage, uint32_t layer,
                        std::vector<uint64_t> values) {
  const Key key(tag, lineage, layer);
  if (const auto found = blocks_.find(key); found != blocks_.end()) {
    CHECK(found->second == values);
    return;
  }
  std::set<BlockTag>& taken = taken_[lineage];
  const auto most = most_.find(lineage);
  if (most != most_.end() && taken.count(tag) == 0 && taken.size() >= most->second) return;
  taken.insert(tag);
  if (random_.below(100) >= faults_.skipped) blocks_.emplace(key, std::move(values));
}

uint32_t HashArchive::find(std::span<const BlockTag> tags, const Lineage& lineage, UnitSpan layers) const {
  for (uint32_t block = 0; block < tags.size(); ++block)
    for (uint32_t layer = layers.first; layer < layers.last; ++layer)
      if (!blocks_.count({tags[block], lineage, layer})) return block;
  return static_cast<uint32_t>(tags.size());
}

std::optional<std::vector<uint64_t>> HashArchive::load(const BlockTag& tag, const Lineage& lineage,
                                                       uint32_t layer) {
  const auto found = blocks_.find({tag, lineage, layer});
  if (found == blocks_.end()) return std::nullopt;
  ++loads_;
  if (random_.below(1000) >= faults_.gone + faults_.damaged) return found->second;
  ++losses_;
  blocks_.erase(found);
  return std::nullopt;
}

}  // namespace caravan
