#include "tests/store/faulty_disk.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace caravan::test {

namespace {

std::atomic<uint64_t> unreadable_inode{0}, unreadable_bytes{0}, refused{0};
std::atomic<int64_t> room{-1};  // bytes; what there is, if negative

}  // namespace

UnreadableFile::UnreadableFile(const std::filesystem::path& file, uint64_t bytes) {
  struct stat status {};
  if (::stat(file.c_str(), &status) == 0) unreadable_inode = status.st_ino;
  unreadable_bytes = bytes;
  refused = 0;
}

UnreadableFile::~UnreadableFile() {
  unreadable_bytes = 0;
}

uint64_t UnreadableFile::refused_reads() {
  return refused;
}

DiskWithLittleRoom::DiskWithLittleRoom(uint64_t bytes) {
  room = static_cast<int64_t>(bytes);
}

DiskWithLittleRoom::~DiskWithLittleRoom() {
  room = -1;
}

}  // namespace caravan::test

// In the place of the C library's, also for what other libraries read.
extern "C" __attribute__((visibility("default"))) ssize_t pread(int descriptor, void* to, size_t bytes,
                                                                off_t offset) {
  using namespace caravan::test;
  struct stat status {};
  if (static_cast<uint64_t>(offset) < unreadable_bytes && ::fstat(descriptor, &status) == 0 &&
      status.st_ino == unreadable_inode) {
    ++refused;
    errno = EIO;
    return -1;
  }
  return ::syscall(SYS_pread64, descriptor, to, bytes, offset);
}

extern "C" __attribute__((visibility("default"))) int statvfs(const char* path,
                                                              struct statvfs* disk) noexcept {
  static const auto real =
      reinterpret_cast<int (*)(const char*, struct statvfs*)>(::dlsym(RTLD_NEXT, "statvfs"));
  const int result = real(path, disk);
  if (caravan::test::room >= 0 && result == 0)
    disk->f_bavail = static_cast<uint64_t>(caravan::test::room) / disk->f_frsize;
  return result;
}
