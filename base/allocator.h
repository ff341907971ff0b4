#pragma once

namespace caravan {

// Lets the C library keep some tens of MiB of freed memory instead of giving it back to the system at once.
// Rows and parts of weight groups come and go by the thousand; a page that is given back costs a page fault,
// which in a virtual machine is dearer than all else that is done with the page. Called first in main().
void keep_freed_memory();

// Gives all of that back after all: where much was freed and others take as much next.
void give_back_freed_memory();

}  // namespace caravan
