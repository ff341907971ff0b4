#pragma once

#include <optional>
#include <string>

#include "base/config.h"
#include "daemon/child_process.h"

namespace caravan {

// Measures this machine in a process of its own, since it takes hundreds of MiB, which are not to be this
// process's: its memory has a bound. Nothing where the state folder keeps measurements of this machine and
// build. Throws kIo.
std::optional<ChildProcess> calibrate_apart(const Config& config, const std::string& state);

// Once that process has ended. A log line says if nothing was kept.
void check_calibrated(const Config& config, const std::string& state, ChildProcess& process);

}  // namespace caravan
