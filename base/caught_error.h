#pragma once

#include "base/error.h"

namespace caravan {

// The exception that is being handled as an Error: what the system refuses, such as memory or a thread, with
// the way out. For main and for a thread's entry, within a catch.
Error caught_error();

}  // namespace caravan
