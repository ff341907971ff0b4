#pragma once

#include <cstdint>
#include <filesystem>

// What this test program is told of the disk. One of each at a time.
namespace caravan::test {

// Reads of the first bytes of this file give EIO, as of a sector that the disk cannot read.
class UnreadableFile {
 public:
  UnreadableFile(const std::filesystem::path& file, uint64_t bytes);
  ~UnreadableFile();
  UnreadableFile(const UnreadableFile&) = delete;
  UnreadableFile& operator=(const UnreadableFile&) = delete;
  static uint64_t refused_reads();  // since it was made
};

// The disk has so many bytes left, whatever is written.
class DiskWithLittleRoom {
 public:
  explicit DiskWithLittleRoom(uint64_t bytes);
  ~DiskWithLittleRoom();
  DiskWithLittleRoom(const DiskWithLittleRoom&) = delete;
  DiskWithLittleRoom& operator=(const DiskWithLittleRoom&) = delete;
};

}  // namespace caravan::test
