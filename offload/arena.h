#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace caravan {

// Memory for pages, in buffers aligned for direct I/O. A buffer that comes back is kept for the next page of
// its size (layers repeat the same few sizes) as long as all buffers together stay under the limit. One
// thread at a time.
class Arena {
 public:
  explicit Arena(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `bytes`: a multiple of kDirectAlignment. Throws kOutOfMemory when the system refuses.
  std::byte* take(uint64_t bytes);
  void give_back(std::byte* buffer, uint64_t bytes);
  void set_limit(uint64_t limit_bytes);
  uint64_t held_bytes() const { return held_bytes_; }  // in use and kept

 private:
  void drop_kept_until(uint64_t bytes);
  uint64_t limit_bytes_;
  uint64_t held_bytes_ = 0;
  std::multimap<uint64_t, std::byte*> kept_;  // by size
};

}  // namespace caravan
