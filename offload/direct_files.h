#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/source.h"

namespace caravan {

// The files of a source, opened again for direct I/O (or, on a file system without it, for plain reads whose
// pages are given back to the kernel).
class DirectFiles {
 public:
  // Null when the source is not made of files. Throws kIo naming the file.
  static std::unique_ptr<DirectFiles> open(const Source& source);
  ~DirectFiles();
  DirectFiles(const DirectFiles&) = delete;
  DirectFiles& operator=(const DirectFiles&) = delete;
  int descriptor(uint32_t file) const { return files_[file].descriptor; }
  bool direct(uint32_t file) const { return files_[file].direct; }

 private:
  DirectFiles() = default;
  struct File {
    int descriptor = -1;
    bool direct = false;
  };
  std::vector<File> files_;
};

}  // namespace caravan
