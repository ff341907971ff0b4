#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/check.h"
#include "base/error.h"

namespace caravan {

namespace {

constexpr mode_t kMode = 0644;

}  // namespace

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), partial_(fmt::format("{}.partial-{}", path_, ::getpid())) {
  struct stat status {};
  if (::stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    fail(ErrorCode::kInvalidArgument, "{}: is there and is no regular file", path_);
  descriptor_ = ::open(folder().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, kMode);
  // ENOENT is also what some file systems without unnamed files say.
  if (descriptor_ < 0) open_named();
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (named_) ::unlink(partial_.c_str());
}

void AtomicFile::open_named() {
  descriptor_ = ::open(partial_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, kMode);
  if (descriptor_ < 0)
    fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot be written: {}", path_,
         std::strerror(errno));
  named_ = true;
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  CHECK(descriptor_ >= 0);
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_io("cannot be written");
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

void AtomicFile::commit() {
  CHECK(descriptor_ >= 0);
  if (::fsync(descriptor_) != 0) fail_io("cannot be brought to disk");
  if (!named_) {
    // An unnamed file gets a name of its own first: a link cannot replace what is there, a rename can.
    ::unlink(partial_.c_str());
    const std::string self = fmt::format("/proc/self/fd/{}", descriptor_);
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, partial_.c_str(), AT_SYMLINK_FOLLOW) != 0)
      fail_io("cannot be named");
    named_ = true;
  }
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail_io("cannot be renamed");
  named_ = false;
  ::close(descriptor_);
  descriptor_ = -1;
  const int parent = ::open(folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) return;  // the file is there; its name may be lost with the power
  ::fsync(parent);
  ::close(parent);
}

std::string AtomicFile::folder() const {
  const size_t slash = path_.rfind('/');
  return slash == std::string::npos ? "." : path_.substr(0, slash + 1);
}

void AtomicFile::fail_io(const char* what) const {
  fail(ErrorCode::kIo, "{}: {}: {}", path_, what, std::strerror(errno));
}

}  // namespace caravan
