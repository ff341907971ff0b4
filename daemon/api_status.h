#pragma once

#include <string>
#include <string_view>

#include "daemon/generation.h"

namespace caravan {

// The body of /v1/caravan/status, and back (for `caravan status`). Reading throws kMalformed; names that are
// missing keep their defaults, unknown ones are passed over, so that versions may differ.
std::string status_json(const ServiceStatus& status);
ServiceStatus parse_status_json(std::string_view text);

// For people: the ring, then a line for each stage.
std::string status_table(const ServiceStatus& status, int64_t now_unix);

}  // namespace caravan
