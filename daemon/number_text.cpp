#include "daemon/number_text.h"

#include <fmt/core.h>

#include <charconv>
#include <system_error>

namespace caravan {

namespace {

template <class Number>
std::string refuse(std::string_view text, Number least, Number most, std::string_view kind) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // Written so that NaN fails.
  if (error == std::errc() && end == text.data() + text.size() && number >= least && number <= most)
    return "";
  return fmt::format("'{}' is no {} from {} to {}", text, kind, least, most);
}

}  // namespace

std::string refuse_integer(std::string_view text, uint64_t least, uint64_t most) {
  return refuse(text, least, most, "integer");
}

std::string refuse_signed_integer(std::string_view text, int64_t least, int64_t most) {
  return refuse(text, least, most, "integer");
}

std::string refuse_number(std::string_view text, float least, float most) {
  return refuse(text, least, most, "number");
}

}  // namespace caravan
