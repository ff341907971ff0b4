#include "offload/arena.h"

#include <sys/mman.h>

#include "base/bytes.h"
#include "base/error.h"

namespace caravan {

Arena::~Arena() {
  drop_kept_until(0);
}

std::byte* Arena::take(uint64_t bytes) {
  const auto found = kept_.find(bytes);
  if (found != kept_.end()) {
    std::byte* buffer = found->second;
    kept_.erase(found);
    return buffer;
  }
  drop_kept_until(limit_bytes_ > bytes ? limit_bytes_ - bytes : 0);
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail(ErrorCode::kOutOfMemory, "the system refuses {} for a weight group", to_string(Bytes{bytes}));
  // Fewer faults while a page is read in; only advice.
  (void)::madvise(memory, bytes, MADV_HUGEPAGE);
  held_bytes_ += bytes;
  return static_cast<std::byte*>(memory);
}

void Arena::give_back(std::byte* buffer, uint64_t bytes) {
  kept_.emplace(bytes, buffer);
  drop_kept_until(limit_bytes_);
}

void Arena::set_limit(uint64_t limit_bytes) {
  limit_bytes_ = limit_bytes;
  drop_kept_until(limit_bytes_);
}

void Arena::drop_kept_until(uint64_t bytes) {
  while (held_bytes_ > bytes && !kept_.empty()) {
    const auto largest = std::prev(kept_.end());
    (void)::munmap(largest->second, largest->first);
    held_bytes_ -= largest->first;
    kept_.erase(largest);
  }
}

}  // namespace caravan
