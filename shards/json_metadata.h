#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "shards/metadata.h"

namespace caravan {

// Refuses JSON that is longer than `most_bytes` or nested deeper than limits::kMaxJsonDepth, by looking at
// its brackets alone: before a parser builds anything of it. Throws kLimit naming `where`.
void require_small_json(std::string_view text, std::string_view where, uint64_t most_bytes);

// What the JSON library's exception says is wrong and where, without the library's own names: "line 1, column
// 2: syntax error ...".
std::string json_reason(std::string_view what);

// An object's facts under dotted keys ("rope_scaling.factor"): numbers, booleans, strings and arrays of one
// kind of these; other arrays by index ("layers.0.kind"); null left out, and its keys put into `nulls` if one
// is given. Throws kMalformed, kLimit.
Metadata flatten_json(std::string_view text, std::string_view where, std::set<std::string>* nulls = nullptr);

}  // namespace caravan
