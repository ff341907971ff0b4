#pragma once

#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace caravan {

// Of a budget that is a share ("50%"), the percentage; nothing of any other. Throws kInvalidArgument.
std::optional<double> parse_share(std::string_view text);
// As much as parse_budget makes of it.
Bytes share_of(Bytes whole, double percent);

}  // namespace caravan
