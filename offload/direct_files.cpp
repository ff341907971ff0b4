#include "offload/direct_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "base/error.h"

namespace caravan {

std::unique_ptr<DirectFiles> DirectFiles::open(const Source& source) {
  std::unique_ptr<DirectFiles> files(new DirectFiles);
  for (uint32_t i = 0; i < source.file_count(); ++i) {
    const std::optional<std::string> path = source.file_path(i);
    if (!path) return nullptr;
    File file;
    file.descriptor = ::open(path->c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    file.direct = file.descriptor >= 0;
    // Some file systems (tmpfs among them) refuse O_DIRECT.
    if (!file.direct) file.descriptor = ::open(path->c_str(), O_RDONLY | O_CLOEXEC);
    if (file.descriptor < 0) fail(ErrorCode::kIo, "{}: {}", *path, std::strerror(errno));
    files->files_.push_back(file);
  }
  return files;
}

DirectFiles::~DirectFiles() {
  for (const File& file : files_) ::close(file.descriptor);
}

}  // namespace caravan
