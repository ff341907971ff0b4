#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"

namespace caravan::bpe {

inline constexpr uint32_t kNoSymbol = UINT32_MAX;

// A run of bytes of the piece at hand.
struct Symbol {
  uint32_t begin = 0;
  uint32_t bytes = 0;  // 0 once it has been merged into its left neighbour
  uint32_t id = kNoSymbol;
  uint32_t previous = kNoSymbol;  // indices of the neighbours
  uint32_t next = kNoSymbol;
};

struct Merge {
  uint32_t rank = 0;  // lower is merged first
  uint32_t result = 0;
};

// From a pair of symbols to their merge: open addressing, since this is asked for every pair of every word.
class MergeTable {
 public:
  explicit MergeTable(size_t count = 0) : slots_(count + count / 2 + 8) {}
  // The first of two equal pairs counts. At most the count given to the constructor may be added.
  void add(uint32_t left, uint32_t right, Merge merge) {
    Slot& slot = slots_[index(left, right)];
    if (slot.left == kNoSymbol) slot = {left, right, merge};
  }
  std::optional<Merge> find(uint32_t left, uint32_t right) const {
    const Slot& slot = slots_[index(left, right)];
    if (slot.left == kNoSymbol) return std::nullopt;
    return slot.merge;
  }
  Bytes memory() const { return {slots_.capacity() * sizeof(Slot)}; }

 private:
  struct Slot {
    uint32_t left = kNoSymbol;
    uint32_t right = kNoSymbol;
    Merge merge;
  };
  size_t index(uint32_t left, uint32_t right) const {
    uint64_t hash = (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0x9E3779B97F4A7C15u;
    size_t i = static_cast<size_t>((hash >> 32) * slots_.size() >> 32);
    while (slots_[i].left != kNoSymbol && (slots_[i].left != left || slots_[i].right != right))
      if (++i == slots_.size()) i = 0;
    return i;
  }
  std::vector<Slot> slots_;
};

// Buffers kept between pieces. One thread.
struct Scratch {
  struct Candidate {
    uint32_t rank, left, bytes, result;  // bytes: of both sides, which tells a stale candidate
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// Appends a symbol to the chain.
inline void push_symbol(std::vector<Symbol>& symbols, uint32_t begin, uint32_t bytes, uint32_t id) {
  const auto index = static_cast<uint32_t>(symbols.size());
  if (index > 0) symbols.back().next = index;
  symbols.push_back({begin, bytes, id, index > 0 ? index - 1 : kNoSymbol, kNoSymbol});
}

// Merges neighbours of scratch.symbols, lowest rank first, leftmost first among equals, until `find(left,
// right)` (two Symbols to an optional Merge) knows no more. Time n log n. Afterwards the symbols that still
// have bytes are the answer.
template <class Find>
void merge(Scratch& scratch, const Find& find) {
  using Candidate = Scratch::Candidate;
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  heap.clear();
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  const auto consider = [&](uint32_t left) {
    const Symbol& a = symbols[left];
    const Symbol& b = symbols[a.next];
    const std::optional<Merge> found = find(a, b);
    if (!found) return false;
    heap.push_back({found->rank, left, a.bytes + b.bytes, found->result});
    return true;
  };
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[best.left];
    if (left.bytes == 0 || left.next == kNoSymbol) continue;
    Symbol& right = symbols[left.next];
    if (left.bytes + right.bytes != best.bytes) continue;
    left.bytes = best.bytes;
    left.id = best.result;
    left.next = right.next;
    right.bytes = 0;
    if (left.next != kNoSymbol) symbols[left.next].previous = best.left;
    if (left.previous != kNoSymbol && consider(left.previous))
      std::push_heap(heap.begin(), heap.end(), later);
    if (left.next != kNoSymbol && consider(best.left)) std::push_heap(heap.begin(), heap.end(), later);
  }
}

}  // namespace caravan::bpe
