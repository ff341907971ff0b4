#include "model/template_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_print.h"

namespace caravan::tmpl {
namespace {

constexpr int kMaxPrecision = 1000;

// What stands behind a percent sign or a colon.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '=', '^', or none given
  char sign = '-';
  bool alternate = false;
  char group = '\0';  // ',' or '_'
  size_t width = 0;
  int precision = -1;
  char type = '\0';
};

std::string pad(Interpreter& in, std::string body, const Spec& spec, char default_align) {
  const size_t length = text::length(body);
  if (length >= spec.width) return body;
  const size_t missing = spec.width - length;
  in.meter().text(body.size() + missing * spec.fill.size());
  const char align = spec.align ? spec.align : default_align;
  size_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string out;
  size_t signs = 0;
  if (align == '=') {  // behind the sign
    while (signs < body.size() && (body[signs] == '-' || body[signs] == '+' || body[signs] == ' ')) ++signs;
    if (spec.alternate && body.size() > signs + 1 && body[signs] == '0' && std::isalpha(body[signs + 1]))
      signs += 2;
    out += body.substr(0, signs);
  }
  for (size_t i = 0; i < left; ++i) out += spec.fill;
  out += body.substr(signs);
  for (size_t i = left; i < missing; ++i) out += spec.fill;
  return out;
}

std::string with_sign(bool negative, char sign, const std::string& digits) {
  if (negative) return "-" + digits;
  return sign == '+' ? "+" + digits : sign == ' ' ? " " + digits : digits;
}

std::string grouped(const std::string& digits, char separator, size_t size) {
  if (!separator) return digits;
  size_t whole = 0;
  while (whole < digits.size() && std::isalnum(static_cast<unsigned char>(digits[whole])) &&
         digits[whole] != 'e')
    ++whole;
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % size == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(whole);
}

std::string integer_digits(uint64_t magnitude, char type) {
  switch (type) {
    case 'x':
      return fmt::format("{:x}", magnitude);
    case 'X':
      return fmt::format("{:X}", magnitude);
    case 'o':
      return fmt::format("{:o}", magnitude);
    case 'b':
      return fmt::format("{:b}", magnitude);
    default:
      return fmt::format("{}", magnitude);
  }
}

std::string format_integer(const Value& v, const Spec& spec) {
  if (v.is(Kind::kHugeInt)) {
    const bool negative = v.text().front() == '-';
    return with_sign(negative, spec.sign, grouped(std::string(v.text().substr(negative)), spec.group, 3));
  }
  const int64_t value = v.as_int();
  const uint64_t magnitude = value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  const bool decimal =
      spec.type == 'd' || spec.type == 'i' || spec.type == 'u' || spec.type == 'n' || !spec.type;
  std::string digits = grouped(integer_digits(magnitude, spec.type), spec.group, decimal ? 3 : 4);
  if (spec.alternate && !decimal) digits = std::string("0") + spec.type + digits;
  return with_sign(value < 0, spec.sign, digits);
}

// Digits of a float by C's rules, which are Python's too.
std::string float_digits(double magnitude, char type, int precision, bool alternate) {
  if (std::isnan(magnitude)) return std::isupper(type) ? "NAN" : "nan";
  if (std::isinf(magnitude)) return std::isupper(type) ? "INF" : "inf";
  char pattern[8];
  std::snprintf(pattern, sizeof pattern, alternate ? "%%#.*%c" : "%%.*%c", type);
  char buffer[1500];
  const int size = std::snprintf(buffer, sizeof buffer, pattern, precision, magnitude);
  return std::string(buffer, static_cast<size_t>(std::min<int>(size, sizeof buffer - 1)));
}

std::string format_float(double value, const Spec& spec) {
  const double magnitude = std::fabs(value);
  const bool negative = std::signbit(value) && !std::isnan(value);
  std::string digits;
  if (spec.type == '%') {
    digits =
        float_digits(magnitude * 100, 'f', spec.precision < 0 ? 6 : spec.precision, spec.alternate) + "%";
  } else if (!spec.type && spec.precision < 0) {
    digits = float_repr(magnitude);
  } else if (!spec.type) {
    digits = float_digits(magnitude, 'g', std::max(spec.precision, 1), spec.alternate);
    if (digits.find_first_of(".en") == std::string::npos) digits += ".0";
  } else {
    const char type = spec.type == 'n' ? 'g' : spec.type;
    const int precision = spec.precision < 0 ? 6 : spec.precision;
    digits = float_digits(magnitude, type, type == 'g' || type == 'G' ? std::max(precision, 1) : precision,
                          spec.alternate);
  }
  return with_sign(negative, spec.sign, grouped(digits, spec.group, 3));
}

std::string shortened(std::string text, int precision) {
  if (precision < 0) return text;
  return text.substr(0, text::byte_offset(text, static_cast<size_t>(precision)));
}

int64_t percent_integer(const Value& v) {
  if (v.is(Kind::kFloat)) {
    const double d = std::trunc(v.as_float());
    if (!(std::fabs(d) < 9.2e18)) fail(ErrorCode::kUnsupported, "an integer of more than 64 bits");
    return static_cast<int64_t>(d);
  }
  if (!v.is_integer()) raise("%d format: a real number is required, not {}", type_name(v));
  return v.as_int();
}

std::string character(const Value& v) {
  if (v.is_string() && length(v) == 1) return std::string(v.text());
  const int64_t code = v.is(Kind::kInt) ? v.as_int() : -1;
  if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) raise("%c requires int or char");
  std::string out;
  text::append(out, static_cast<char32_t>(code));
  return out;
}

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& in, const Value& text, const Value& values)
      : in_(in), s_(text.text()), markup_(text.is_markup()), values_(values) {}

  Value run() {
    while (at_ < s_.size()) {
      const size_t percent = std::min(s_.find('%', at_), s_.size());
      out_ += s_.substr(at_, percent - at_);
      at_ = percent + 1;
      if (percent < s_.size()) convert();
      in_.meter().fits(out_.size());
    }
    const bool all =
        values_.is(Kind::kTuple) ? used_ == values_.items().size() : used_ > 0 || values_.is(Kind::kDict);
    const bool lenient = values_.is(Kind::kList) || values_.is(Kind::kRange) || values_.is_undefined();
    if (!all && !lenient) raise("not all arguments converted during string formatting");
    return in_.text(std::move(out_), markup_);
  }

 private:
  char peek() const {
    if (at_ >= s_.size()) raise("incomplete format");
    return s_[at_];
  }

  const Value& next_value() {
    if (!values_.is(Kind::kTuple)) {
      if (used_++ > 0) raise("not enough arguments for format string");
      return values_;
    }
    if (used_ >= values_.items().size()) raise("not enough arguments for format string");
    return values_.items()[used_++];
  }

  int number() {
    if (peek() == '*') {
      ++at_;
      return static_cast<int>(std::clamp<int64_t>(to_integer(next_value()), -1000000, 1000000));
    }
    int value = 0;
    for (; std::isdigit(static_cast<unsigned char>(peek())); ++at_)
      value = std::min(value * 10 + (s_[at_] - '0'), 100'000'000);
    return value;
  }

  const Value& named_value() {
    const size_t end = s_.find(')', at_);
    if (end == std::string_view::npos) raise("incomplete format key");
    if (!values_.is(Kind::kDict)) raise("format requires a mapping");
    const std::string key(s_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    const Value* value = values_.dict().find(key);
    if (!value) raise("no value for the key '{}'", key);
    return *value;
  }

  void convert() {
    if (peek() == '%') {
      out_ += '%';
      ++at_;
      return;
    }
    const Value* value = peek() == '(' ? &named_value() : nullptr;
    Spec spec;
    for (; std::string_view("-+ #0").find(peek()) != std::string_view::npos; ++at_) {
      const char flag = s_[at_];
      if (flag == '-')
        spec.align = '<';
      else if (flag == '+')
        spec.sign = '+';
      else if (flag == ' ')
        spec.sign = spec.sign == '+' ? '+' : ' ';
      else if (flag == '#')
        spec.alternate = true;
      else
        spec.fill = "0";
    }
    const int width = number();
    if (width < 0) spec.align = '<';
    spec.width = static_cast<size_t>(std::abs(width));
    if (peek() == '.') {
      ++at_;
      spec.precision = std::max(number(), 0);
    }
    while (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    spec.type = peek();
    ++at_;
    write(spec, value ? *value : next_value());
  }

  void write(Spec& spec, const Value& value) {
    const bool zeros = spec.fill == "0";
    if (spec.align == '<') spec.fill = " ";
    switch (spec.type) {
      case 's':
      case 'r':
      case 'a': {
        std::string text = spec.type == 's' ? in_.str(value) : repr(in_.meter(), value);
        if (markup_ && !value.is_markup()) text = text::escape_html(text);
        spec.fill = " ";
        out_ += pad(in_, shortened(std::move(text), spec.precision), spec, '>');
        return;
      }
      case 'c':
        spec.fill = " ";
        out_ += pad(in_, character(value), spec, '>');
        return;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        const bool exact =
            value.is(Kind::kHugeInt) && spec.type != 'x' && spec.type != 'X' && spec.type != 'o';
        std::string digits = format_integer(exact ? value : Value::integer(percent_integer(value)), spec);
        const size_t sign = !digits.empty() && !std::isalnum(static_cast<unsigned char>(digits[0]));
        if (spec.precision > kMaxPrecision) fail(ErrorCode::kLimit, "a precision of {}", spec.precision);
        if (static_cast<int>(digits.size() - sign) < spec.precision)
          digits.insert(sign, static_cast<size_t>(spec.precision) - (digits.size() - sign), '0');
        out_ += pad(in_, digits, spec, zeros ? '=' : '>');
        return;
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.is_number()) raise("must be real number, not {}", type_name(value));
        if (spec.precision > kMaxPrecision) fail(ErrorCode::kLimit, "a precision of {}", spec.precision);
        out_ += pad(in_, format_float(value.as_float(), spec), spec, zeros ? '=' : '>');
        return;
      default:
        raise("unsupported format character '{}'", spec.type);
    }
  }

  Interpreter& in_;
  std::string_view s_;
  bool markup_;
  const Value& values_;
  size_t at_ = 0;
  size_t used_ = 0;
  std::string out_;
};

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, bool markup, const Arguments& arguments)
      : in_(in), markup_(markup), arguments_(arguments) {}

  std::string run(std::string_view s, int nested) {
    std::string out;
    for (size_t i = 0; i < s.size();) {
      const char c = s[i];
      if (c != '{' && c != '}') {
        out += c;
        ++i;
      } else if (i + 1 < s.size() && s[i + 1] == c && nested == 0) {
        out += c;
        i += 2;
      } else if (c == '}') {
        raise("Single '}}' encountered in format string");
      } else {
        const size_t end = field_end(s, i + 1);
        out += field(s.substr(i + 1, end - i - 1), nested);
        in_.meter().fits(out.size());
        i = end + 1;
      }
    }
    return out;
  }

 private:
  static size_t field_end(std::string_view s, size_t at) {
    int open = 1;
    bool bracket = false;  // in [ ] braces are plain, until the spec begins
    for (; at < s.size(); ++at) {
      if (s[at] == '[' && open == 1) bracket = true;
      if (s[at] == ']') bracket = false;
      if (bracket) continue;
      if (s[at] == '{') ++open;
      if (s[at] == '}' && --open == 0) return at;
    }
    raise("expected '}}' before end of string");
  }

  std::string field(std::string_view f, int nested) {
    if (nested > 1) raise("Max string recursion exceeded");
    in_.meter().step();
    size_t end = 0;
    for (bool bracket = false; end < f.size(); ++end) {
      if (f[end] == '[') bracket = true;
      if (f[end] == ']') bracket = false;
      if (!bracket && (f[end] == '!' || f[end] == ':')) break;
    }
    Value value = resolve(f.substr(0, end));
    f.remove_prefix(end);
    if (!f.empty() && f[0] == '!') {
      if (f.size() < 2 || (f.size() > 2 && f[2] != ':')) raise("expected ':' after conversion specifier");
      value = convert(value, f[1]);
      f.remove_prefix(2);
    }
    const std::string spec = f.empty() ? "" : run(f.substr(1), nested + 1);
    std::string text = format(value, spec);
    return markup_ && !value.is_markup() ? text::escape_html(text) : text;
  }

  Value convert(const Value& value, char how) {
    if (how == 's') return in_.text(in_.str(value));
    if (how == 'r' || how == 'a') return in_.text(repr(in_.meter(), value));
    raise("Unknown conversion specifier {}", how);
  }

  // name.attribute[key]...
  Value resolve(std::string_view path) {
    size_t end = std::min(path.find_first_of(".["), path.size());
    Value value = root(path.substr(0, end));
    while (end < path.size()) {
      if (path[end] == '.') {
        const size_t next = std::min(path.find_first_of(".[", end + 1), path.size());
        if (next == end + 1) raise("Empty attribute in format string");
        value = in_.attribute(value, std::string(path.substr(end + 1, next - end - 1)));
        end = next;
      } else if (path[end] == '[') {
        const size_t close = path.find(']', end);
        if (close == std::string_view::npos) raise("Missing ']' in format string");
        if (close == end + 1) raise("Empty attribute in format string");
        value = in_.item(value, key(path.substr(end + 1, close - end - 1)));
        end = close + 1;
      } else {
        raise("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static bool is_index(std::string_view s) {
    return !s.empty() && s.size() < 10 &&
           std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
  }

  Value key(std::string_view s) {
    if (is_index(s)) return Value::integer(std::atoi(std::string(s).c_str()));
    return in_.text(std::string(s));
  }

  Value root(std::string_view name) {
    if (name.empty() || is_index(name)) {
      if (name.empty() ? manual_ : automatic_ > 0) raise("cannot mix numbered and unnumbered fields");
      manual_ |= !name.empty();
      const size_t i =
          name.empty() ? automatic_++ : static_cast<size_t>(std::atoi(std::string(name).c_str()));
      if (i >= arguments_.positional.size()) raise("no argument for field {}", i);
      return arguments_.positional[i];
    }
    for (const auto& [key, value] : arguments_.named)
      if (key == name) return value;
    raise("no argument named '{}'", name);
  }

  Spec parse(std::string_view s, bool numeric) {
    Spec spec;
    size_t i = 0;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
    size_t first = 0;
    if (!s.empty()) text::decode(s, first);
    if (first > 0 && first < s.size() && is_align(s[first])) {
      spec.fill = s.substr(0, first);
      spec.align = s[first];
      i = first + 1;
    } else if (!s.empty() && is_align(s[0])) {
      spec.align = s[i++];
    }
    const auto at = [&](std::string_view any) {
      return i < s.size() && any.find(s[i]) != std::string_view::npos;
    };
    if (at("+- ")) spec.sign = s[i++];
    if (at("#")) spec.alternate = s[i++] == '#';
    if (at("0")) {
      ++i;
      if (!spec.align) {
        spec.fill = "0";
        if (numeric) spec.align = '=';
      }
    }
    const auto number = [&] {
      int value = 0;
      for (; at("0123456789"); ++i) value = std::min(value * 10 + (s[i] - '0'), 100'000'000);
      return value;
    };
    spec.width = static_cast<size_t>(number());
    if (at(",_")) spec.group = s[i++];
    if (at(".")) {
      ++i;
      if (!at("0123456789")) raise("Format specifier missing precision");
      spec.precision = number();
    }
    if (i < s.size()) spec.type = s[i++];
    if (i < s.size()) raise("Invalid format specifier");
    return spec;
  }

  std::string format(const Value& value, const std::string& text) {
    if (text.empty()) return in_.str(value);
    const bool numeric = value.is_number();
    Spec spec = parse(text, numeric);
    const auto unknown = [&] {
      raise("Unknown format code '{}' for object of type '{}'", spec.type, type_name(value));
    };
    if (!numeric) {
      if (!value.is_string()) raise("unsupported format string passed to {}.__format__", type_name(value));
      if ((spec.type && spec.type != 's') || spec.sign != '-' || spec.align == '=' || spec.group) unknown();
      return pad(in_, shortened(std::string(value.text()), spec.precision), spec, '<');
    }
    if (spec.precision > kMaxPrecision) fail(ErrorCode::kLimit, "a precision of {}", spec.precision);
    static constexpr std::string_view kFloatTypes = "eEfFgG%";
    const bool as_float = spec.type && kFloatTypes.find(spec.type) != std::string_view::npos;
    if (value.is(Kind::kFloat) || as_float) {
      if (spec.type && !as_float && spec.type != 'n') unknown();
      return pad(in_, format_float(value.as_float(), spec), spec, '>');
    }
    if (spec.type == 'c') return pad(in_, character(value), spec, '<');
    if (spec.type && std::string_view("bdnoxX").find(spec.type) == std::string_view::npos) unknown();
    if (spec.precision >= 0) raise("Precision not allowed in integer format specifier");
    return pad(in_, format_integer(value, spec), spec, '>');
  }

  Interpreter& in_;
  const bool markup_;
  const Arguments& arguments_;
  size_t automatic_ = 0;
  bool manual_ = false;
};

}  // namespace

Value format_percent(Interpreter& in, const Value& text, const Value& values) {
  return PercentFormatter(in, text, values).run();
}

Value format_braces(Interpreter& in, const Value& text, const Arguments& arguments) {
  std::string out = BraceFormatter(in, text.is_markup(), arguments).run(text.text(), 0);
  return in.text(std::move(out), text.is_markup());
}

}  // namespace caravan::tmpl
