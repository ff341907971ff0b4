#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "offload/measurements.h"

namespace caravan {

// Reads a file around the page cache as the pager does. One thread.
class DiskProbe {
 public:
  // The file at `path`, or an own one of at most `scratch_bytes` in `folder` when `path` is empty: it has no
  // name, so that nothing is left whatever ends the process. Throws kIo (naming the folder, also when its
  // disk is full), kNotFound.
  static DiskProbe open_file(const Clock& clock, const std::string& path);
  static DiskProbe make_scratch(const Clock& clock, const std::string& folder, uint64_t scratch_bytes);
  ~DiskProbe();
  DiskProbe(DiskProbe&&) noexcept;
  DiskProbe& operator=(DiskProbe&&) = delete;

  uint64_t bytes() const { return bytes_; }
  // False when the file system refuses direct reads: then the kernel is asked to forget the file before each
  // measurement, and figures may still be those of the page cache.
  bool direct() const { return direct_; }
  // Fills disk, kv, small_read_seconds and direct.
  void measure(Measurements& measurements, double seconds_each) const;
  // Bytes a second of the pager's reader, for so long.
  double rate(double lasting) const;

 private:
  DiskProbe(const Clock& clock, std::string path) : clock_(&clock), path_(std::move(path)) {}
  void set_direct();
  void forget() const;
  double small_read() const;
  DiskRate kv_rate(double lasting) const;

  const Clock* clock_;
  std::string path_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
  bool direct_ = false;
};

}  // namespace caravan
