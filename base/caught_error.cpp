#include "base/caught_error.h"

#include <exception>
#include <new>
#include <system_error>

namespace caravan {

Error caught_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {
        ErrorCode::kOutOfMemory,
        "the system gives this process no more memory; see what limits it (ulimit -v, the memory limit of a "
        "container or service), end other programs, or ask for less with --ram and --context"};
  } catch (const std::system_error& error) {
    // Which is how a thread is refused, for want of a number or of memory for its stack.
    if (error.code() == std::errc::resource_unavailable_try_again)
      return {
          ErrorCode::kOutOfMemory,
          "the system starts no more threads for this process; see what limits their number (ulimit -u, the "
          "pids limit of a container or service) or the memory for their stacks (ulimit -v), or use fewer "
          "with --threads N"};
    return {ErrorCode::kIo, error.what()};
  } catch (const std::exception& error) {
    return {ErrorCode::kIo, error.what()};
  }
}

}  // namespace caravan
