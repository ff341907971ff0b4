#include "shards/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace caravan {

namespace {

constexpr uint64_t kDataAt = 4096;
constexpr char kMagic[16] = "caravan part 1\n";

struct Header {
  char magic[16];
  uint8_t content[32];
  uint64_t have;
};

}  // namespace

// Only where it is; look() reads the header.
PartFile::PartFile(std::string path, int flags, const Hash256& content)
    : path_(std::move(path)), content_(content), descriptor_(::open(path_.c_str(), flags | O_CLOEXEC, 0600)) {
  if (descriptor_ < 0 && errno != ENOENT) fail_with(errno);
}

void PartFile::look() {
  Header header{};
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_with(errno);
  const auto bytes = static_cast<uint64_t>(status.st_size);
  if (bytes < kDataAt || !read_at(0, std::as_writable_bytes(std::span(&header, 1)))) return;
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 ||
      std::memcmp(header.content, content_.bytes.data(), content_.bytes.size()) != 0 ||
      header.have > bytes - kDataAt)
    return;
  have_ = header.have;
}

PartFile PartFile::make(const std::string& path, const Hash256& content) {
  PartFile file(path, O_RDWR | O_CREAT, content);
  if (file.descriptor_ < 0) file.fail_with(ENOENT);  // the folder is gone
  file.look();
  return file;
}

std::optional<PartFile> PartFile::open(const std::string& path, const Hash256& content) {
  PartFile file(path, O_RDWR, content);
  if (file.descriptor_ < 0) return std::nullopt;
  file.look();
  return file;
}

PartFile::~PartFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

PartFile::PartFile(PartFile&& other) noexcept
    : path_(other.path_),
      content_(other.content_),
      descriptor_(std::exchange(other.descriptor_, -1)),
      have_(other.have_) {}

void PartFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  CHECK(offset <= have_);
  write_at(kDataAt + offset, bytes);
  have_ = offset + bytes.size();
}

void PartFile::note_have() {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  std::memcpy(header.content, content_.bytes.data(), content_.bytes.size());
  header.have = have_;
  write_at(0, std::as_bytes(std::span(&header, 1)));
}

void PartFile::read(uint64_t offset, std::span<std::byte> bytes) const {
  if (!read_at(kDataAt + offset, bytes)) fail(ErrorCode::kMalformed, "{} cannot be read", path_);
}

void PartFile::write_at(uint64_t place, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(place));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_with(errno);
    place += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
}

// False when the file ends before, or is not to be read.
bool PartFile::read_at(uint64_t place, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = ::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(place));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    place += static_cast<uint64_t>(count);
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

void PartFile::fail_with(int error) const {
  fail(ErrorCode::kIo, "{}: {}{}", path_, std::strerror(error),
       error == ENOSPC ? "; what was fetched is kept, and the fetch goes on when there is room" : "");
}

}  // namespace caravan
