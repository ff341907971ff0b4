#include "model/template_operators.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "model/template_eval.h"
#include "model/template_format.h"

namespace caravan::tmpl {
namespace {

const char* symbol_of(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "**";
    case Operator::kEqual:
      return "==";
    case Operator::kNotEqual:
      return "!=";
    case Operator::kLess:
      return "<";
    case Operator::kLessEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    case Operator::kGreaterEqual:
      return ">=";
    case Operator::kIn:
      return "in";
    case Operator::kNotIn:
      return "not in";
  }
  return "?";
}

[[noreturn]] void refuse_types(Operator op, const Value& a, const Value& b) {
  if (op == Operator::kAdd && a.is_string())
    raise("can only concatenate str (not \"{}\") to str", type_name(b));
  raise("unsupported operand type(s) for {}: '{}' and '{}'", symbol_of(op), type_name(a), type_name(b));
}

[[noreturn]] void refuse_size() {
  fail(ErrorCode::kUnsupported, "an integer of more than 64 bits");
}

void refuse_undefined(const Value& v) {
  if (v.is_undefined()) raise("{}", v.as<Undefined>().message());
}

int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0) && ((a < 0) != (b < 0)));
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) raise("0.0 cannot be raised to a negative power");
    return Value::real(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) refuse_size();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) refuse_size();
  }
  return Value::integer(result);
}

Value integer_arithmetic(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) refuse_size();
      return Value::integer(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) refuse_size();
      return Value::integer(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) refuse_size();
      return Value::integer(result);
    case Operator::kPower:
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) raise("division by zero");
  if (op == Operator::kDivide) return Value::real(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) return op == Operator::kModulo ? Value::integer(0) : negate(Value::integer(a));
  const int64_t quotient = floor_divide(a, b);
  return Value::integer(op == Operator::kFloorDivide ? quotient : a - quotient * b);
}

double float_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

Value float_power(double a, double b) {
  if (a == 0 && b < 0) raise("0.0 cannot be raised to a negative power");
  if (a < 0 && b != std::floor(b) && std::isfinite(b)) fail(ErrorCode::kUnsupported, "complex numbers");
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) raise("a power too large");
  return Value::real(result);
}

Value float_arithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::real(a + b);
    case Operator::kSubtract:
      return Value::real(a - b);
    case Operator::kMultiply:
      return Value::real(a * b);
    case Operator::kPower:
      return float_power(a, b);
    default:
      break;
  }
  if (b == 0) raise("float division by zero");
  if (op == Operator::kDivide) return Value::real(a / b);
  const double rest = float_modulo(a, b);
  if (op == Operator::kModulo) return Value::real(rest);
  const double quotient = (a - rest) / b;
  const double floored = std::floor(quotient);
  return Value::real(quotient - floored > 0.5 ? floored + 1 : floored);
}

Value arithmetic(Operator op, const Value& a, const Value& b) {
  if (a.is(Kind::kHugeInt) || b.is(Kind::kHugeInt)) refuse_size();
  if (a.is_integer() && b.is_integer()) return integer_arithmetic(op, a.as_int(), b.as_int());
  return float_arithmetic(op, a.as_float(), b.as_float());
}

Value concatenate(Interpreter& in, const Value& a, const Value& b) {
  if (!a.is_string()) {
    std::vector<Value> items = a.items();
    in.meter().step(items.size() + b.items().size());
    items.insert(items.end(), b.items().begin(), b.items().end());
    return in.list(std::move(items), a.kind());
  }
  const bool markup = a.is_markup() || b.is_markup();
  std::string joined = markup && !a.is_markup() ? text::escape_html(a.text()) : std::string(a.text());
  joined += markup && !b.is_markup() ? text::escape_html(b.text()) : std::string(b.text());
  return in.text(std::move(joined), markup);
}

Value repeat(Interpreter& in, const Value& sequence, int64_t times) {
  const size_t count = times > 0 ? static_cast<size_t>(times) : 0;
  if (sequence.is_string()) {
    const std::string_view piece = sequence.text();
    if (!piece.empty() && count > limits::kMaxTemplateOutputBytes / piece.size())
      fail(ErrorCode::kLimit, "a text repeated {} times", count);
    in.meter().text(piece.size() * count);
    std::string repeated;
    repeated.reserve(piece.size() * count);
    if (piece.size() == 1)
      repeated.assign(count, piece[0]);
    else
      for (size_t i = 0; i < count && !piece.empty(); ++i) repeated += piece;
    return in.text(std::move(repeated), sequence.is_markup());
  }
  const std::vector<Value>& piece = sequence.items();
  if (!piece.empty() && count > limits::kMaxTemplateSteps / piece.size())
    fail(ErrorCode::kLimit, "a list repeated {} times", count);
  in.meter().step(piece.size() * count);
  std::vector<Value> repeated;
  for (size_t i = 0; i < count && !piece.empty(); ++i)
    repeated.insert(repeated.end(), piece.begin(), piece.end());
  return in.list(std::move(repeated), sequence.kind());
}

bool is_repeatable(const Value& v) {
  return v.is_string() || v.is_sequence();
}

int64_t slice_bound(const Value& v) {
  refuse_undefined(v);
  if (!v.is_integer()) raise("slice indices must be integers or None");
  return v.as_int();
}

// The positions that a slice takes of a sequence of `size`: first, count and step.
struct Positions {
  int64_t first = 0;
  int64_t end = 0;  // the bound, not the last position
  int64_t count = 0;
  int64_t step = 1;
};

Positions slice_positions(int64_t size, const Value& start, const Value& stop, const Value& step) {
  Positions p;
  if (!step.is_none()) p.step = slice_bound(step);
  if (p.step == 0) raise("slice step cannot be zero");
  p.step = std::clamp(p.step, -INT64_MAX, INT64_MAX);
  const bool forward = p.step > 0;
  const int64_t lowest = forward ? 0 : -1;
  const int64_t highest = forward ? size : size - 1;
  const auto place = [&](const Value& v, int64_t otherwise) {
    if (v.is_none()) return otherwise;
    int64_t i = slice_bound(v);
    if (i < 0) i = i < -size ? lowest : i + size;
    return std::clamp(i, lowest, highest);
  };
  p.first = place(start, forward ? lowest : highest);
  p.end = place(stop, forward ? highest : lowest);
  if (forward && p.first < p.end) p.count = (p.end - p.first - 1) / p.step + 1;
  if (!forward && p.first > p.end) p.count = (p.first - p.end - 1) / -p.step + 1;
  return p;
}

Value slice_text(Interpreter& in, const Value& v, const Positions& p) {
  const Text& text = v.as<Text>();
  const auto first = static_cast<size_t>(std::max<int64_t>(p.first, 0));
  const auto count = static_cast<size_t>(p.count);
  if (p.step == 1) {
    const std::string_view s = text.bytes;
    if (text.ascii) return in.text(std::string(s.substr(count ? first : 0, count)), text.markup);
    const size_t begin = text::byte_offset(s, first);
    return in.text(std::string(s.substr(begin, text::byte_offset(s.substr(begin), count))), text.markup);
  }
  std::u32string all;
  for (size_t i = 0; i < text.bytes.size();) all += text::decode(text.bytes, i);
  in.meter().step(all.size() / 16);
  std::string taken;
  for (int64_t n = 0; n < p.count; ++n) text::append(taken, all[static_cast<size_t>(p.first + n * p.step)]);
  return in.text(std::move(taken), text.markup);
}

Value slice_range(Interpreter& in, const Range& range, const Positions& p) {
  int64_t step = 0;
  if (__builtin_mul_overflow(range.step, p.step, &step)) refuse_size();
  return in.range(range.start + p.first * range.step, range.start + p.end * range.step, step);
}

bool contains_in_view(Interpreter& in, const View& view, const Value& item) {
  const Dict& dict = view.dict.dict();
  if (view.part == View::Part::kKeys) {
    check_key(item);
    return dict.find(item) != nullptr;
  }
  if (view.part == View::Part::kItems) {
    if (!item.is(Kind::kTuple) || item.items().size() != 2) return false;
    check_key(item.items()[0]);
    const Value* value = dict.find(item.items()[0]);
    return value && in.equals(*value, item.items()[1]);
  }
  return std::any_of(dict.entries.begin(), dict.entries.end(),
                     [&](const auto& entry) { return in.equals(entry.second, item); });
}

}  // namespace

Value binary(Interpreter& in, Operator op, const Value& a, const Value& b) {
  refuse_undefined(a);
  if (op == Operator::kModulo && a.is_string()) return format_percent(in, a, b);
  refuse_undefined(b);
  if (a.is_number() && b.is_number()) return arithmetic(op, a, b);
  if (op == Operator::kAdd && a.kind() == b.kind() && is_repeatable(a)) return concatenate(in, a, b);
  if (op == Operator::kMultiply && is_repeatable(a) && b.is_integer()) return repeat(in, a, b.as_int());
  if (op == Operator::kMultiply && is_repeatable(b) && a.is_integer()) return repeat(in, b, a.as_int());
  refuse_types(op, a, b);
}

bool compare(Interpreter& in, Operator op, const Value& a, const Value& b) {
  Meter& meter = in.meter();
  switch (op) {
    case Operator::kEqual:
      return equal(meter, a, b);
    case Operator::kNotEqual:
      return !equal(meter, a, b);
    case Operator::kIn:
      return contains(in, b, a);
    case Operator::kNotIn:
      return !contains(in, b, a);
    case Operator::kLess:
      return less(meter, a, b);
    case Operator::kGreater:
      return less(meter, b, a);
    case Operator::kLessEqual:
      return less(meter, a, b) || equal(meter, a, b);
    case Operator::kGreaterEqual:
      return less(meter, b, a) || equal(meter, a, b);
    default:
      refuse_types(op, a, b);
  }
}

bool contains(Interpreter& in, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) raise("'in <string>' requires string as left operand, not {}", type_name(item));
      in.meter().step(container.text().size() / 512);
      return container.text().find(item.text()) != std::string_view::npos;
    case Kind::kDict:
      check_key(item);
      return container.dict().find(item) != nullptr;
    case Kind::kView:
      return contains_in_view(in, container.as<View>(), item);
    case Kind::kList:
    case Kind::kTuple:
      return std::any_of(container.items().begin(), container.items().end(),
                         [&](const Value& other) { return same(other, item) || in.equals(other, item); });
    case Kind::kRange:
    case Kind::kIterator: {
      Cursor cursor(container);
      Value other;
      while (cursor.next(in, other))
        if (in.equals(other, item)) return true;
      return false;
    }
    default:
      raise("argument of type '{}' is not iterable", type_name(container));
  }
}

Value negate(const Value& v) {
  refuse_undefined(v);
  if (v.is(Kind::kFloat)) return Value::real(-v.as_float());
  if (v.is(Kind::kHugeInt) || (v.is_integer() && v.as_int() == INT64_MIN)) refuse_size();
  if (v.is_integer()) return Value::integer(-v.as_int());
  raise("bad operand type for unary -: '{}'", type_name(v));
}

Value positive(const Value& v) {
  refuse_undefined(v);
  if (v.is(Kind::kBool)) return Value::integer(v.as_int());
  if (v.is_number()) return v;
  raise("bad operand type for unary +: '{}'", type_name(v));
}

Value slice(Interpreter& in, const Value& v, const Value& start, const Value& stop, const Value& step) {
  refuse_undefined(v);
  if (v.is(Kind::kDict)) raise("unhashable type: 'slice'");
  if (!is_repeatable(v) && !v.is(Kind::kRange)) raise("'{}' object is not subscriptable", type_name(v));
  const Positions p = slice_positions(*length(v), start, stop, step);
  if (v.is_string()) return slice_text(in, v, p);
  if (v.is(Kind::kRange)) return slice_range(in, v.as<Range>(), p);
  std::vector<Value> taken;
  in.meter().step(static_cast<uint64_t>(p.count));
  for (int64_t n = 0; n < p.count; ++n) taken.push_back(v.items()[static_cast<size_t>(p.first + n * p.step)]);
  return in.list(std::move(taken), v.kind());
}

Value at_index(Interpreter& in, const Value& sequence, int64_t index) {
  const int64_t size = *length(sequence);
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value();
  const auto i = static_cast<size_t>(index);
  if (sequence.is_sequence()) return sequence.items()[i];
  if (sequence.is(Kind::kRange)) {
    const Range& range = sequence.as<Range>();
    return Value::integer(range.start + index * range.step);
  }
  const Text& text = sequence.as<Text>();
  if (text.ascii) return in.text(text.bytes.substr(i, 1), text.markup);
  in.meter().step(text.bytes.size() / 64);
  const size_t begin = text::byte_offset(text.bytes, i);
  size_t end = begin;
  text::decode(text.bytes, end);
  return in.text(text.bytes.substr(begin, end - begin), text.markup);
}

}  // namespace caravan::tmpl
