#pragma once

#include <cstdint>
#include <cstdlib>

namespace caravan::test {

// The sanitizers cost five to fifty times the time. What only repeats with other seeds or shapes does so less
// often under them; rel runs all of it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

// `./check --full` runs all of it under the sanitizers, too.
inline bool takes_less() {
  static const bool all = std::getenv("CARAVAN_TEST_ALL") != nullptr;
  return kSanitized && !all;
}
// Of so many seeds, rounds or things counted in them: those of this run.
inline uint32_t fewer(uint32_t all) {
  return takes_less() ? (all + 2) / 3 : all;
}

}  // namespace caravan::test
