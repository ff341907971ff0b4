#include "base/bytes.h"

#include <fmt/core.h>

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/share.h"

namespace caravan {

std::string to_string(Bytes bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes.count);
  int unit = 0;
  while (value >= 999.5 && unit < 6) value /= 1024, ++unit;
  if (unit == 0) return fmt::format("{} B", bytes.count);
  return fmt::format("{:.3g} {}", value, kUnits[unit]);
}

Bytes parse_bytes(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  const bool number = end != copy.c_str();
  std::string unit;
  for (; *end; ++end)
    if (!std::isspace(static_cast<unsigned char>(*end)))
      unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*end)));
  double factor = 0;
  if (unit.empty() || unit == "b") factor = 1;
  for (int i = 0; i < 5; ++i) {
    const char prefix = "kmgtp"[i];
    if (unit == std::string{prefix} || unit == std::string{prefix} + "ib") factor = std::pow(1024.0, i + 1);
    if (unit == std::string{prefix} + "b") factor = std::pow(1000.0, i + 1);
  }
  if (!number || factor == 0 || !(value >= 0) || value * factor > 9e18)
    fail(ErrorCode::kInvalidArgument, "\"{}\" is no size; write it like 512MiB or 2GiB", copy);
  return {static_cast<uint64_t>(value * factor)};
}

std::optional<double> parse_share(std::string_view text) {
  if (text.empty() || text.back() != '%') return std::nullopt;
  const std::string copy(text.substr(0, text.size() - 1));
  char* end = nullptr;
  const double share = std::strtod(copy.c_str(), &end);
  if (end == copy.c_str() || *end != 0 || !(share > 0) || share > 100)
    fail(ErrorCode::kInvalidArgument, "\"{}\" is no share above 0 and up to 100; write it like 50%", text);
  return share;
}

Bytes share_of(Bytes whole, double percent) {
  return {static_cast<uint64_t>(static_cast<double>(whole.count) * percent / 100)};
}

Bytes parse_budget(std::string_view text, Bytes whole) {
  const std::optional<double> share = parse_share(text);
  return share ? share_of(whole, *share) : parse_bytes(text);
}

Bytes parse_budget(std::string_view flag, std::string_view text, Bytes whole) {
  try {
    return parse_budget(text, whole);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", flag, error.message()));
  }
}

}  // namespace caravan
