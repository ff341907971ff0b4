#pragma once

#include <compare>
#include <cstdint>

namespace caravan {

// Units [first, last): 0 is embed, 1..L the layers, L+1 output.
struct UnitSpan {
  uint32_t first = 0;
  uint32_t last = 0;
  auto operator<=>(const UnitSpan&) const = default;
  uint32_t count() const { return last - first; }
};

}  // namespace caravan
