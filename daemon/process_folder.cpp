#include "daemon/process_folder.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace caravan {

namespace fs = std::filesystem;

ProcessFolder::ProcessFolder(const std::string& parent, std::string_view prefix)
    : path_(fmt::format("{}/{}{}", parent, prefix, ::getpid())) {
  remove_left_over(parent, prefix);
  std::error_code error;
  fs::remove_all(path_, error);
  if (!error) fs::create_directories(path_, error);
  if (error)
    fail(ErrorCode::kIo, "{}: {}; choose a folder that can be written with --state DIR", path_,
         error.message());
}

ProcessFolder::~ProcessFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void remove_left_over(const std::string& parent, std::string_view prefix) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix)) continue;
    const auto pid = static_cast<pid_t>(std::atoi(name.c_str() + prefix.size()));
    if (pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH) fs::remove_all(entry.path(), ignored);
  }
}

}  // namespace caravan
