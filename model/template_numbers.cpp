#include "model/template_numbers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_operators.h"

namespace caravan::tmpl {
namespace {

constexpr size_t kMaxDigits = 4300;  // Python's own limit for integers in texts

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char letter = static_cast<char>(c | 0x20);
  return letter >= 'a' && letter <= 'z' ? letter - 'a' + 10 : 99;
}

// The digits without the underscores between them; none if the text is not made of digits.
std::optional<std::string> clean_digits(std::string_view s, int64_t base) {
  std::string digits;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '_' && i > 0 && i + 1 < s.size() && s[i - 1] != '_') continue;
    if (digit_of(s[i]) >= base) return std::nullopt;
    digits += s[i];
  }
  return digits.empty() ? std::nullopt : std::optional(digits);
}

void refuse_undefined(const Value& v) {
  if (v.is_undefined()) raise("{}", v.as<Undefined>().message());
}

std::optional<Value> float_to_int(double d) {
  if (std::isnan(d) || std::isinf(d)) return std::nullopt;
  const double whole = std::trunc(d);
  if (std::fabs(whole) >= 9.2e18) fail(ErrorCode::kUnsupported, "an integer of more than 64 bits");
  return Value::integer(static_cast<int64_t>(whole));
}

double round_float(double d, int64_t precision) {
  if (!std::isfinite(d) || precision > 300) return d;
  if (precision < -300) return std::copysign(0.0, d);
  if (precision >= 0) {
    char buffer[700];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), d);
    return std::strtod(buffer, nullptr);
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(d / unit) * unit;
}

int64_t round_integer(int64_t value, int64_t precision) {
  if (precision >= 0) return value;
  if (precision < -18) return 0;
  int64_t unit = 1;
  for (int64_t i = precision; i < 0; ++i) unit *= 10;
  int64_t rest = value % unit;
  const int64_t down = value - rest;
  const int64_t twice = rest < 0 ? -rest : rest;
  const bool up = twice > unit / 2 || (twice == unit / 2 && (down / unit) % 2 != 0);
  return up ? down + (rest < 0 ? -unit : unit) : down;
}

}  // namespace

std::optional<Value> parse_integer(std::string_view s, int64_t base) {
  s = text::strip(s, text::Side::kBoth);
  const bool negative = !s.empty() && s[0] == '-';
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  const char prefix = s.size() > 1 && s[0] == '0' ? static_cast<char>(s[1] | 0x20) : ' ';
  const int64_t named = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
  if (named != 0 && (base == named || base == 0)) {
    base = named;
    s.remove_prefix(s.size() > 2 && s[2] == '_' ? 3 : 2);
  }
  if (base == 0) base = 10;
  const auto digits = clean_digits(s, base);
  if (!digits || (base == 10 && digits->size() > kMaxDigits)) return std::nullopt;
  const std::string signed_digits = (negative ? "-" : "") + *digits;
  int64_t value = 0;
  const char* end = signed_digits.data() + signed_digits.size();
  if (std::from_chars(signed_digits.data(), end, value, static_cast<int>(base)).ec == std::errc())
    return Value::integer(value);
  if (base != 10) fail(ErrorCode::kUnsupported, "an integer of more than 64 bits");
  const size_t first = std::min(digits->find_first_not_of('0'), digits->size() - 1);
  auto huge = std::make_shared<Text>();
  huge->bytes = (negative ? "-" : "") + digits->substr(first);
  return Value::object(Kind::kHugeInt, std::move(huge));
}

std::optional<double> parse_float(std::string_view s) {
  s = text::strip(s, text::Side::kBoth);
  std::string clean;
  size_t i = 0;
  if (i < s.size() && (s[i] == '-' || s[i] == '+')) clean += s[i++];
  std::string word = text::lower(s.substr(i));
  if (word == "inf" || word == "infinity" || word == "nan")
    return std::strtod((clean + word).c_str(), nullptr);
  const auto read_digits = [&] {
    const size_t start = i;
    for (; i < s.size(); ++i) {
      const bool digit = s[i] >= '0' && s[i] <= '9';
      const bool joint =
          s[i] == '_' && i > start && s[i - 1] != '_' && i + 1 < s.size() && digit_of(s[i + 1]) < 10;
      if (!digit && !joint) break;
      if (digit) clean += s[i];
    }
    return i > start;
  };
  const bool whole = read_digits();
  bool fraction = false;
  if (i < s.size() && s[i] == '.') {
    clean += s[i++];
    fraction = read_digits();
  }
  if (!whole && !fraction) return std::nullopt;
  if (i < s.size() && (s[i] == 'e' || s[i] == 'E')) {
    clean += s[i++];
    if (i < s.size() && (s[i] == '-' || s[i] == '+')) clean += s[i++];
    if (!read_digits()) return std::nullopt;
  }
  if (i != s.size()) return std::nullopt;
  return std::strtod(clean.c_str(), nullptr);
}

Value absolute(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  if (self.is(Kind::kFloat)) return Value::real(std::fabs(self.as_float()));
  if (self.is_integer()) return self.as_int() < 0 ? negate(self) : Value::integer(self.as_int());
  if (self.is(Kind::kHugeInt) && self.text().front() != '-') return self;
  raise("bad operand type for abs(): '{}'", type_name(self));
}

Value to_int(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  refuse_undefined(self);
  const Value otherwise = bound.get(0, Value::integer(0));
  if (self.is(Kind::kHugeInt)) return self;
  if (self.is_integer()) return Value::integer(self.as_int());
  if (self.is(Kind::kFloat)) {
    if (std::isinf(self.as_float())) raise("cannot convert float infinity to integer");
    return float_to_int(self.as_float()).value_or(otherwise);
  }
  if (!self.is_string()) return otherwise;
  const int64_t base = bound.integer(1, 10);
  if (base == 0 || (base >= 2 && base <= 36))
    if (const auto value = parse_integer(self.text(), base)) return *value;
  if (const auto value = parse_float(self.text())) return float_to_int(*value).value_or(otherwise);
  return otherwise;
}

Value to_float(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  refuse_undefined(self);
  if (self.is_number()) return Value::real(self.as_float());
  if (self.is_string())
    if (const auto value = parse_float(self.text())) return Value::real(*value);
  return bound.get(0, Value::real(0.0));
}

Value round_filter(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string_view method = bound.text(1, "common");
  if (method != "common" && method != "ceil" && method != "floor")
    raise("method must be common, ceil or floor");
  if (!self.is_number()) raise("type {} doesn't define a round method", type_name(self));
  if (method == "common") {
    if (self.is(Kind::kHugeInt)) return self;
    if (self.is_integer()) return Value::integer(round_integer(self.as_int(), precision));
    return Value::real(round_float(self.as_float(), precision));
  }
  if (precision > 300 || precision < -300) raise("precision {} is out of range", precision);
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = self.as_float() * unit;
  if (!std::isfinite(scaled)) raise("cannot round {}", scaled);
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Value file_size(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  static constexpr std::array<std::string_view, 8> kDecimal = {"kB", "MB", "GB", "TB",
                                                               "PB", "EB", "ZB", "YB"};
  static constexpr std::array<std::string_view, 8> kBinary = {"KiB", "MiB", "GiB", "TiB",
                                                              "PiB", "EiB", "ZiB", "YiB"};
  const bool binary = bound.flag(0, false);
  const double base = binary ? 1024 : 1000;
  const auto parsed = self.is_string() ? parse_float(self.text()) : std::optional<double>();
  if (!self.is_number() && !parsed) raise("filesizeformat needs a number, not {}", type_name(self));
  const double bytes = parsed ? *parsed : self.as_float();
  if (bytes == 1) return in.text("1 Byte");
  if (bytes < base)
    return in.text(fmt::format("{} Bytes", static_cast<int64_t>(std::trunc(std::max(bytes, -9e18)))));
  double unit = base;
  size_t i = 0;
  for (unit *= base; i + 1 < kDecimal.size() && bytes >= unit; ++i) unit *= base;
  return in.text(fmt::format("{:.1f} {}", base * bytes / unit, (binary ? kBinary : kDecimal)[i]));
}

}  // namespace caravan::tmpl
