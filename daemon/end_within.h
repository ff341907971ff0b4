#pragma once

#include "base/clock.h"

namespace caravan {

// For Ctrl-C: the process ends with `status` after `patience` at the latest, whatever its threads compute.
// Its files go with their destructors, which come before those that wait for the compute thread. Once.
void end_within(Duration patience, int status);

}  // namespace caravan
