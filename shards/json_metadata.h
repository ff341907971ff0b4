#pragma once

#include <cstdint>
#include <string_view>

#include "shards/metadata.h"

namespace caravan {

// Refuses JSON that is longer than `most_bytes` or nested deeper than limits::kMaxJsonDepth, by looking at
// its brackets alone: before a parser builds anything of it. Throws kLimit naming `where`.
void require_small_json(std::string_view text, std::string_view where, uint64_t most_bytes);

// An object's facts under dotted keys ("rope_scaling.factor"): numbers, booleans, strings and arrays of one
// kind of these; other arrays by index ("layers.0.kind"); null left out. Throws kMalformed, kLimit.
Metadata flatten_json(std::string_view text, std::string_view where);

}  // namespace caravan
