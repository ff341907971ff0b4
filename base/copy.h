#pragma once

#include <cstddef>
#include <span>

namespace caravan {

// Copies what is not read again soon: past the processor's caches, where it is much. An ordinary copy first
// reads the place that it writes to. The spans do not overlap; `to` has room for all of `from`.
void copy_past_caches(std::span<const std::byte> from, std::span<std::byte> to);

}  // namespace caravan
