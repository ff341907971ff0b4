#include "base/caught_error.h"

#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

namespace caravan {

namespace {

constexpr std::string_view kNoMemory =
    "the system gives this process no more memory; see what limits it (ulimit -v, the memory limit of a "
    "container or service), end other programs, or ask for less with --ram and --context";
constexpr std::string_view kNoThreads =
    "the system starts no more threads for this process; see what limits their number (ulimit -u, the pids "
    "limit of a container or service) or the memory for their stacks (ulimit -v), or use fewer with "
    "--threads N";

// Which is how a thread is refused, for want of a number or of memory for its stack.
bool is_no_thread(const std::system_error& error) {
  return error.code() == std::errc::resource_unavailable_try_again;
}

std::terminate_handler terminate_otherwise = nullptr;  // set once, before there are threads

// Without memory: only the calls that a signal handler may use.
[[noreturn]] void end_saying(std::string_view why) {
  constexpr std::string_view kBefore("caravan: "), kAfter("; what was kept on disk stays\n");
  for (const std::string_view part : {kBefore, why, kAfter})
    (void)!::write(STDERR_FILENO, part.data(), part.size());
  ::_exit(1);
}

[[noreturn]] void end_explained() {
  if (std::current_exception()) {
    try {
      throw;
    } catch (const std::bad_alloc&) {
      end_saying(kNoMemory);
    } catch (const std::system_error& error) {
      if (is_no_thread(error)) end_saying(kNoThreads);
    } catch (...) {  // a bug, which the handler before tells of
    }
  }
  terminate_otherwise();
  std::abort();
}

}  // namespace

Error caught_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {ErrorCode::kOutOfMemory, std::string(kNoMemory)};
  } catch (const std::system_error& error) {
    if (is_no_thread(error)) return {ErrorCode::kOutOfMemory, std::string(kNoThreads)};
    return {ErrorCode::kIo, error.what()};
  } catch (const std::exception& error) {
    return {ErrorCode::kIo, error.what()};
  }
}

void explain_lack_of_memory() {
  terminate_otherwise = std::set_terminate(end_explained);
}

}  // namespace caravan
