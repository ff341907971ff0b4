// What sums leave behind.
#include "base/hash.h"

#include <gtest/gtest.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace caravan {
namespace {

#if defined(__x86_64__)
// Which parts of the processor's state are in use (XGETBV with ECX = 1), where it can say that.
std::optional<uint32_t> state_in_use() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kSaysWhatIsInUse = 1u << 2, kHasXgetbv = 1u << 27;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & kHasXgetbv)) return std::nullopt;
  if (!__get_cpuid_count(0xd, 1, &eax, &ebx, &ecx, &edx) || !(eax & kSaysWhatIsInUse)) return std::nullopt;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(1));
  return eax;
}

// Or all code that was compiled for any x86-64 would be slow on this thread from then on.
TEST(Xxh3, LeavesNoUpperHalvesOfVectorRegistersInUse) {
  constexpr uint32_t kUpperHalves = 1u << 2;
  if (!state_in_use()) return;  // nothing to be seen on this processor
  const std::vector<std::byte> bytes(1 << 20, std::byte{7});
  (void)xxh3(bytes);
  EXPECT_EQ(*state_in_use() & kUpperHalves, 0u);
}
#endif

}  // namespace
}  // namespace caravan
