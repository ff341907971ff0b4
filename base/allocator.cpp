#include "base/allocator.h"

#include <malloc.h>

namespace caravan {

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_TRIM_THRESHOLD, 32 << 20);
  mallopt(M_TOP_PAD, 16 << 20);
  // The default grows by itself only as long as none of these is set.
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
#endif
}

void give_back_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace caravan
