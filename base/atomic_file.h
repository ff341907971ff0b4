#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace caravan {

// A file that appears under its name whole or not at all. Where the file system can, the bytes have no name
// until commit(), so that even a killed process leaves nothing behind; elsewhere they lie in
// PATH.partial-PID, which the destructor removes. Replaces a file that is there. One thread.
class AtomicFile {
 public:
  // Throws kIo (kNotFound when the folder is not there).
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  // Throws kIo, a full disk included.
  void append(std::span<const std::byte> bytes);
  uint64_t bytes() const { return bytes_; }
  // On disk (fsync) and under its name when it returns.
  void commit();

 private:
  [[noreturn]] void fail_io(const char* what) const;
  std::string folder() const;
  void open_named();

  const std::string path_;
  const std::string partial_;
  int descriptor_ = -1;
  bool named_ = false;  // partial_ is there
  uint64_t bytes_ = 0;
};

}  // namespace caravan
