#include "daemon/standard_output.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace caravan {

int flush_standard_output(int status) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  if (errno != EPIPE)
    std::fprintf(stderr, "caravan: standard output cannot be written%s%s\n", errno == 0 ? "" : ": ",
                 errno == 0 ? "" : std::strerror(errno));
  return status == 0 ? 1 : status;
}

bool standard_output_is_terminal() {
  return ::isatty(STDOUT_FILENO) == 1;
}

}  // namespace caravan
