#pragma once

#include "base/error.h"

namespace caravan {

// The exception that is being handled as an Error: what the system refuses, such as memory or a thread, with
// the way out. For main and for a thread's entry, within a catch.
Error caught_error();

// For the start of main(). Where nothing catches that the system refuses memory or a thread, such as in a
// library's own threads, the process ends as one that was killed, but with that reason on standard error and
// exit code 1.
void explain_lack_of_memory();

}  // namespace caravan
