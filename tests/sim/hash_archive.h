#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "base/ids.h"
#include "base/random.h"
#include "base/unit_span.h"

namespace caravan {

// What a process of the simulator has archived, and what goes wrong with it, under a seed: blocks that never
// got there (a budget, a crash before the write), that go between question and load, that turn out damaged.
class HashArchive {
 public:
  // Of one block of one layer: not written (percent); gone when it is loaded, damaged then (per mille).
  struct Faults {
    uint32_t skipped = 0, gone = 0, damaged = 0;
  };
  HashArchive(Faults faults, uint64_t seed) : faults_(faults), random_(seed) {}

  // Of this lineage no more blocks are taken.
  void limit(const Lineage& lineage, uint64_t blocks) { most_[lineage] = blocks; }
  // What is there stays: a block is immutable. CHECKs that it says the same.
  void store(const BlockTag& tag, const Lineage& lineage, uint32_t layer, std::vector<uint64_t> values);
  // Leading blocks that are there for every layer.
  uint32_t find(std::span<const BlockTag> tags, const Lineage& lineage, UnitSpan layers) const;
  // Nothing for what is gone or damaged; that is not found again.
  std::optional<std::vector<uint64_t>> load(const BlockTag& tag, const Lineage& lineage, uint32_t layer);
  // The disk is lost.
  void clear() { blocks_.clear(); }
  size_t size() const { return blocks_.size(); }
  uint64_t loads() const { return loads_; }
  uint64_t losses() const { return losses_; }

 private:
  using Key = std::tuple<BlockTag, Lineage, uint32_t>;
  const Faults faults_;
  SeededRandom random_;
  std::map<Key, std::vector<uint64_t>> blocks_;
  std::map<Lineage, uint64_t> most_;
  std::map<Lineage, std::set<BlockTag>> taken_;
  uint64_t loads_ = 0, losses_ = 0;
};

}  // namespace caravan
