#include "base/allocator.h"

#include <malloc.h>

#include <algorithm>

namespace caravan {

namespace {

constexpr uint64_t kMostKept = 32u << 20, kLeastKept = 2u << 20, kShareKept = 32;

}  // namespace

void keep_freed_memory(Bytes budget) {
#ifdef __GLIBC__
  const auto kept = static_cast<int>(std::clamp(budget.count / kShareKept, kLeastKept, kMostKept));
  mallopt(M_TRIM_THRESHOLD, kept);
  mallopt(M_TOP_PAD, kept / 2);
  // The default grows by itself only as long as none of these is set.
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
#else
  (void)budget;
#endif
}

void give_back_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace caravan
