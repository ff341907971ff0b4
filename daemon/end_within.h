#pragma once

#include <atomic>
#include <chrono>
#include <memory>

#include "base/clock.h"

namespace caravan {

// True while a process that ends saves what is worth some more patience. Any thread.
using Saving = std::shared_ptr<std::atomic<bool>>;
// How long that may take.
inline constexpr Duration kSavingPatience = std::chrono::seconds(2);

// For Ctrl-C: the process ends with `status` after `patience` at the latest, whatever its threads compute;
// when it is saving something then, after that, and what its destructors take. Its files go with their
// destructors, which come before those that wait for the compute thread.
void end_within(Duration patience, int status, Saving saving);

}  // namespace caravan
