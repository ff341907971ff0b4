#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace caravan {

// A size that a file of /proc tells in a line of its own, such as "MemTotal:" of /proc/meminfo or "VmHWM:" of
// /proc/self/status; none where there is no such file or line.
std::optional<Bytes> memory_line(const std::string& file, std::string_view name);

}  // namespace caravan
