#include "daemon/mapping_lost.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

namespace caravan {

namespace {

// In the handler only calls that are safe there.
void explain(int signal) {
  constexpr char kWhy[] =
      "caravan: a part of the model file that is mapped into memory cannot be read any more: the file became "
      "shorter while it was in use, or its disk failed. Put the file right and start again; caravan import "
      "MODEL --copy keeps a copy of its own\n";
  (void)!::write(STDERR_FILENO, kWhy, sizeof kWhy - 1);
  ::raise(signal);  // of its own accord by now
}

}  // namespace

void explain_lost_mappings() {
  struct sigaction action {};
  action.sa_handler = explain;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace caravan
