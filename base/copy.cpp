#include "base/copy.h"

#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "base/check.h"

namespace caravan {

void copy_past_caches(std::span<const std::byte> from, std::span<std::byte> to) {
  CHECK(to.size() >= from.size());
  const std::byte* source = from.data();
  std::byte* place = to.data();
  size_t left = from.size();
#if defined(__SSE2__)
  constexpr size_t kMuch = 256u << 10, kLine = 64;
  if (left >= kMuch) {
    const size_t before = (kLine - reinterpret_cast<uintptr_t>(place) % kLine) % kLine;
    std::memcpy(place, source, before);
    source += before, place += before, left -= before;
    for (; left >= kLine; source += kLine, place += kLine, left -= kLine) {
      const auto* words = reinterpret_cast<const __m128i*>(source);
      const __m128i line[4] = {_mm_loadu_si128(words), _mm_loadu_si128(words + 1), _mm_loadu_si128(words + 2),
                               _mm_loadu_si128(words + 3)};
      for (int i = 0; i < 4; ++i) _mm_stream_si128(reinterpret_cast<__m128i*>(place) + i, line[i]);
    }
    _mm_sfence();  // such writes are not in order with what tells others that they are done
  }
#endif
  if (left > 0) std::memcpy(place, source, left);
}

}  // namespace caravan
