#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/ids.h"

namespace caravan {

// The beginning of some content, in a file: a header that says of which and how much, then the bytes. What a
// power failure garbles is for the content's hash to find; a header that cannot be read counts as none.
// Throws kIo naming the file.
class PartFile {
 public:
  // Of `content`, empty when the file is new or was another's.
  static PartFile make(const std::string& path, const Hash256& content);
  // Nothing when there is no such file.
  static std::optional<PartFile> open(const std::string& path, const Hash256& content);
  ~PartFile();
  PartFile(PartFile&& other) noexcept;
  PartFile& operator=(PartFile&&) = delete;
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  uint64_t have() const { return have_; }
  // After the first `offset` bytes, which are there; what was behind them is no more. Counts when have() is
  // noted.
  void write(uint64_t offset, std::span<const std::byte> bytes);
  void note_have();
  // Throws kMalformed when they cannot be read.
  void read(uint64_t offset, std::span<std::byte> bytes) const;

 private:
  PartFile(std::string path, int flags, const Hash256& content);
  void look();
  [[noreturn]] void fail_with(int error) const;
  void write_at(uint64_t place, std::span<const std::byte> bytes);
  bool read_at(uint64_t place, std::span<std::byte> bytes) const;

  const std::string path_;
  const Hash256 content_;
  int descriptor_ = -1;
  uint64_t have_ = 0;
};

}  // namespace caravan
