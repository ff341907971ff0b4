#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace caravan {

// From texts to their numbers: open addressing over texts that lie elsewhere. `text_of` is a function from a
// number to its text, the same in every call.
class TextIndex {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // Grows only when clearly more than `expected` are added.
  explicit TextIndex(size_t expected = 0) : slots_(expected + expected / 2 + 8) {}

  // The number of an equal text; kNone when there is none.
  template <class TextOf>
  uint32_t find(std::string_view text, const TextOf& text_of) const {
    return slots_[place(text, hash_of(text), text_of)].number;
  }
  // False when an equal text is there already, which stays.
  template <class TextOf>
  bool add(std::string_view text, uint32_t number, const TextOf& text_of) {
    if (count_ * 4 >= slots_.size() * 3) grow();
    const uint32_t hash = hash_of(text);
    Slot& slot = slots_[place(text, hash, text_of)];
    if (slot.number != kNone) return false;
    slot = {number, hash};
    ++count_;
    return true;
  }
  Bytes memory() const { return {slots_.capacity() * sizeof(Slot)}; }

 private:
  struct Slot {
    uint32_t number = kNone;
    uint32_t hash = 0;  // spares most looks at texts that are not equal
  };
  static uint32_t hash_of(std::string_view text) {
    return static_cast<uint32_t>(std::hash<std::string_view>()(text));
  }
  size_t first_place(uint32_t hash) const {
    return static_cast<size_t>(uint64_t{hash} * slots_.size() >> 32);
  }
  size_t next_place(size_t i) const { return i + 1 == slots_.size() ? 0 : i + 1; }
  // Where the text is or would be.
  template <class TextOf>
  size_t place(std::string_view text, uint32_t hash, const TextOf& text_of) const {
    size_t i = first_place(hash);
    while (slots_[i].number != kNone && (slots_[i].hash != hash || text_of(slots_[i].number) != text))
      i = next_place(i);
    return i;
  }
  void grow() {
    const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.size() * 2));
    for (const Slot& slot : old) {
      if (slot.number == kNone) continue;
      size_t i = first_place(slot.hash);
      while (slots_[i].number != kNone) i = next_place(i);
      slots_[i] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t count_ = 0;
};

}  // namespace caravan
