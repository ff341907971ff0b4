#include "base/seconds_text.h"

#include <fmt/core.h>

#include <cstdint>

namespace caravan {

std::string seconds_text(double seconds) {
  // Below each bound three digits need no exponent.
  if (seconds < 0.9995) return fmt::format("{:.3g} ms", seconds * 1e3);
  if (seconds < 99.95) return fmt::format("{:.3g} s", seconds);
  if (seconds < 119.5) return fmt::format("{:.0f} s", seconds);
  constexpr double kMost = 1e15;  // to be counted
  const auto whole = static_cast<uint64_t>((seconds < kMost ? seconds : kMost) + 0.5);
  const uint64_t minutes = whole / 60, hours = minutes / 60;
  if (hours < 2) return fmt::format("{} min {} s", minutes, whole % 60);
  if (hours < 48) return fmt::format("{} h {} min", hours, minutes % 60);
  return fmt::format("{} days {} h", hours / 24, hours % 24);
}

}  // namespace caravan
