#include "base/source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace caravan {

namespace {

void require_inside(const std::string& name, uint64_t bytes, uint64_t offset, uint64_t length) {
  if (offset > bytes || length > bytes - offset)
    fail(ErrorCode::kMalformed, "{}: bytes {} to {}+{} lie past its end at {}", name, offset, offset, length,
         bytes);
}

}  // namespace

FileSource::FileSource(std::vector<std::string> paths) {
  files_.reserve(paths.size());
  for (std::string& path : paths) {
    File& file = files_.emplace_back();
    file.path = std::move(path);
    file.descriptor = ::open(file.path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file.descriptor < 0)
      fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}", file.path,
           std::strerror(errno));
    struct stat status {};
    if (::fstat(file.descriptor, &status) != 0)
      fail(ErrorCode::kIo, "{}: {}", file.path, std::strerror(errno));
    if (!S_ISREG(status.st_mode)) fail(ErrorCode::kInvalidArgument, "{}: not a regular file", file.path);
    file.bytes = static_cast<uint64_t>(status.st_size);
    if (file.bytes == 0) continue;
    void* data = ::mmap(nullptr, file.bytes, PROT_READ, MAP_SHARED, file.descriptor, 0);
    if (data == MAP_FAILED) fail(ErrorCode::kIo, "{}: cannot be mapped: {}", file.path, std::strerror(errno));
    file.data = static_cast<const std::byte*>(data);
  }
}

FileSource::~FileSource() {
  for (File& file : files_) {
    if (file.data) ::munmap(const_cast<std::byte*>(file.data), file.bytes);
    if (file.descriptor >= 0) ::close(file.descriptor);
  }
}

void FileSource::let_go() const {
  for (const File& file : files_)
    if (file.data) ::madvise(const_cast<std::byte*>(file.data), file.bytes, MADV_DONTNEED);
}

std::string FileSource::describe() const {
  return files_.empty() ? "no files" : files_.front().path;
}

uint64_t FileSource::file_bytes(uint32_t file) const {
  CHECK(file < files_.size());
  return files_[file].bytes;
}

const std::string& FileSource::path(uint32_t file) const {
  CHECK(file < files_.size());
  return files_[file].path;
}

void FileSource::read(uint32_t index, uint64_t offset, std::span<std::byte> out) const {
  CHECK(index < files_.size());
  const File& file = files_[index];
  require_inside(file.path, file.bytes, offset, out.size());
  while (!out.empty()) {
    const ssize_t count = ::pread(file.descriptor, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(ErrorCode::kIo, "{}: {}", file.path, std::strerror(errno));
    if (count == 0) fail(ErrorCode::kIo, "{}: became shorter while it was read", file.path);
    out = out.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
}

std::span<const std::byte> FileSource::mapped(Extent extent) const {
  CHECK(extent.file < files_.size());
  const File& file = files_[extent.file];
  require_inside(file.path, file.bytes, extent.offset, extent.length);
  return {file.data + extent.offset, extent.length};
}

uint64_t MemorySource::file_bytes(uint32_t file) const {
  CHECK(file < files_.size());
  return files_[file].size();
}

void MemorySource::read(uint32_t file, uint64_t offset, std::span<std::byte> out) const {
  const auto bytes = mapped({file, offset, out.size()});
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), out.size());
}

std::span<const std::byte> MemorySource::mapped(Extent extent) const {
  CHECK(extent.file < files_.size());
  require_inside("memory", files_[extent.file].size(), extent.offset, extent.length);
  return std::span<const std::byte>(files_[extent.file]).subspan(extent.offset, extent.length);
}

}  // namespace caravan
