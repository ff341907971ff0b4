#include "base/copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace caravan {
namespace {

TEST(CopyPastCaches, CopiesWhatIsAskedForAndNothingBeside) {
  SeededRandom random(1);
  std::vector<uint8_t> drawn(1 << 20);
  random.fill(drawn);
  const auto bytes = std::as_bytes(std::span(drawn));
  for (int round = 0; round < 60; ++round) {
    const size_t count = round % 3 == 0 ? random.below(1000) : random.below(900'000);
    const size_t source = random.below(200), place = random.below(200);
    std::vector<std::byte> to(count + 400, std::byte{0x5a});
    copy_past_caches(bytes.subspan(source, count), std::span(to).subspan(place));
    ASSERT_TRUE(std::equal(to.begin() + static_cast<ptrdiff_t>(place),
                           to.begin() + static_cast<ptrdiff_t>(place + count),
                           bytes.begin() + static_cast<ptrdiff_t>(source)));
    const auto untouched = [](std::byte byte) { return byte == std::byte{0x5a}; };
    ASSERT_TRUE(std::all_of(to.begin(), to.begin() + static_cast<ptrdiff_t>(place), untouched));
    ASSERT_TRUE(std::all_of(to.begin() + static_cast<ptrdiff_t>(place + count), to.end(), untouched));
  }
}

}  // namespace
}  // namespace caravan
