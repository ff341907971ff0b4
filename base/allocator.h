#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace caravan {

// Lets the C library keep some tens of MiB of freed memory instead of giving it back to the system at once.
// Rows and parts of weight groups come and go by the thousand; a page that is given back costs a page fault,
// which in a virtual machine is dearer than all else that is done with the page. Every thread has a heap of
// its own that keeps as much, beside the budget: under a small one it is a share of it. Called first in
// main(), and again when the budget is known.
void keep_freed_memory(Bytes budget = {UINT64_MAX});

// Gives all of that back after all: where much was freed and others take as much next.
void give_back_freed_memory();

}  // namespace caravan
