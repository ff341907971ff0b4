#pragma once

namespace caravan {

// Says on standard error what it means when memory mapped from a file is gone (SIGBUS), before that ends the
// process: the file became shorter while it was in use, or its disk failed.
void explain_lost_mappings();

}  // namespace caravan
