#pragma once

namespace caravan {

// Flushes standard output before the process ends with `status`: what a full disk did not take must not pass
// for done. Returns the status to end with. A reader that went away has had enough, and is told nothing.
int flush_standard_output(int status);

bool standard_output_is_terminal();

}  // namespace caravan
