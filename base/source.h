#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace caravan {

// A run of bytes in a file.
struct Extent {
  uint32_t file = 0;  // index into the files of the source
  uint64_t offset = 0;
  uint64_t length = 0;
};

// Where bytes lie: a file, the store, another peer, memory. Reads may come from any thread.
class Source {
 public:
  virtual ~Source() = default;
  virtual std::string describe() const = 0;
  virtual uint32_t file_count() const = 0;
  virtual uint64_t file_bytes(uint32_t file) const = 0;
  // Fills `out` from `offset`; throws kIo or kMalformed (past the end).
  virtual void read(uint32_t file, uint64_t offset, std::span<std::byte> out) const = 0;
  // The path of a file on this machine, if that is what it is.
  virtual std::optional<std::string> file_path(uint32_t /*file*/) const { return std::nullopt; }
  // The extent in memory for as long as the source lives, or empty when the source cannot be mapped.
  virtual std::span<const std::byte> mapped(Extent extent) const = 0;
};

// Files of a folder, mapped read-only; the mapping shares the page cache. Throws kIo, kNotFound.
class FileSource final : public Source {
 public:
  explicit FileSource(std::vector<std::string> paths);
  ~FileSource() override;
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  std::string describe() const override;
  uint32_t file_count() const override { return static_cast<uint32_t>(files_.size()); }
  uint64_t file_bytes(uint32_t file) const override;
  void read(uint32_t file, uint64_t offset, std::span<std::byte> out) const override;
  std::span<const std::byte> mapped(Extent extent) const override;
  // What was touched of the mappings leaves this process's memory until it is touched again; the page cache
  // keeps it.
  void let_go() const;
  std::optional<std::string> file_path(uint32_t file) const override { return path(file); }
  const std::string& path(uint32_t file) const;

 private:
  struct File {
    std::string path;
    int descriptor = -1;
    uint64_t bytes = 0;
    const std::byte* data = nullptr;
  };
  std::vector<File> files_;
};

// The in-memory twin.
class MemorySource final : public Source {
 public:
  explicit MemorySource(std::vector<std::vector<std::byte>> files) : files_(std::move(files)) {}
  std::string describe() const override { return "memory"; }
  uint32_t file_count() const override { return static_cast<uint32_t>(files_.size()); }
  uint64_t file_bytes(uint32_t file) const override;
  void read(uint32_t file, uint64_t offset, std::span<std::byte> out) const override;
  std::span<const std::byte> mapped(Extent extent) const override;

 private:
  std::vector<std::vector<std::byte>> files_;
};

}  // namespace caravan
