#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/source.h"

namespace caravan {

// Bytes that tell where they stand.
inline std::byte pattern_byte(uint64_t offset) {
  return static_cast<std::byte>((offset * 2654435761u) >> 13);
}
inline std::vector<std::byte> pattern(size_t bytes) {
  std::vector<std::byte> made(bytes);
  for (size_t i = 0; i < bytes; ++i) made[i] = pattern_byte(i);
  return made;
}

// A source of one patterned file that is not mapped, with faults: an unreadable byte, slow reads.
class FaultySource final : public Source {
 public:
  explicit FaultySource(uint64_t bytes) : bytes_(bytes) {}
  void fail_at(std::optional<uint64_t> offset) { fail_at_ = offset.value_or(UINT64_MAX); }
  void slow_down(std::chrono::microseconds a_read) { delay_us_ = a_read.count(); }

  std::string describe() const override { return "faulty"; }
  uint32_t file_count() const override { return 1; }
  uint64_t file_bytes(uint32_t) const override { return bytes_; }
  void read(uint32_t, uint64_t offset, std::span<std::byte> out) const override {
    if (delay_us_ > 0) std::this_thread::sleep_for(std::chrono::microseconds(delay_us_.load()));
    const uint64_t bad = fail_at_;
    if (bad >= offset && bad < offset + out.size())
      fail(ErrorCode::kIo, "faulty: byte {} is unreadable", bad);
    for (size_t i = 0; i < out.size(); ++i) out[i] = pattern_byte(offset + i);
  }
  std::span<const std::byte> mapped(Extent) const override { return {}; }

 private:
  const uint64_t bytes_;
  std::atomic<uint64_t> fail_at_{UINT64_MAX};
  std::atomic<int64_t> delay_us_{0};
};

}  // namespace caravan
