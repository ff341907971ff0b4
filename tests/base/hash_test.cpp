// What sums leave behind.
#include "base/hash.h"

#include <gtest/gtest.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/random.h"

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
  Xxh3 sum;
  sum.update(bytes);
  EXPECT_EQ(*state_in_use() & kUpperHalves, 0u);
  (void)sum.sum();
  EXPECT_EQ(*state_in_use() & kUpperHalves, 0u);
}
#endif

TEST(Xxh3, OfPiecesIsThatOfTheWhole) {
  SeededRandom random(1);
  std::vector<std::byte> bytes(100'000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.below(256));
  Xxh3 sum(77);
  for (int round = 0; round < 50; ++round) {
    const auto whole = std::span(bytes).first(random.below(round % 2 == 0 ? 300 : bytes.size()));
    sum.update(bytes);  // of no account
    sum.begin_again();
    for (size_t at = 0; at < whole.size();) {
      const size_t count = std::min<size_t>(random.below(40'000), whole.size() - at);
      sum.update(whole.subspan(at, count));
      at += count;
    }
    EXPECT_EQ(sum.sum(), xxh3(whole, 77)) << whole.size();
  }
}

}  // namespace
}  // namespace caravan
