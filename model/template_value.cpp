#include "model/template_value.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace caravan::tmpl {
namespace {

// Order of kinds among keys; numbers share one.
int rank(const Value& v) {
  return v.is_number() ? 0 : static_cast<int>(v.kind());
}

constexpr uint32_t kMaxKeyDepth = 2;
constexpr size_t kMaxKeyItems = 64;

// Below zero, zero, above: how a number compares with another. NaN counts as the least, which only keys see.
int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
  if (a.is(Kind::kHugeInt) && b.is(Kind::kHugeInt)) {
    const std::string_view x = a.text();
    const std::string_view y = b.text();
    if (x == y) return 0;
    const bool x_negative = x.front() == '-';
    if (x_negative != (y.front() == '-')) return x_negative ? -1 : 1;
    const bool shorter = x.size() != y.size() ? x.size() < y.size() : x < y;
    return shorter != x_negative ? -1 : 1;
  }
  if (a.is(Kind::kHugeInt) && !b.is(Kind::kFloat)) return a.text().front() == '-' ? -1 : 1;
  if (b.is(Kind::kHugeInt) && !a.is(Kind::kFloat)) return b.text().front() == '-' ? 1 : -1;
  const double x = a.as_float();
  const double y = b.as_float();
  if (std::isnan(x) || std::isnan(y)) return std::isnan(x) ? (std::isnan(y) ? 0 : -1) : 1;
  return x < y ? -1 : x > y;
}

bool is_nan(const Value& v) {
  return v.is(Kind::kFloat) && std::isnan(v.as_float());
}

bool equal_items(Meter& meter, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i]) && !equal(meter, a[i], b[i])) return false;
  return true;
}

bool equal_dicts(Meter& meter, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key);
    if (!other || (!same(value, *other) && !equal(meter, value, *other))) return false;
  }
  return true;
}

// Views of keys or items are equal as sets; views of values never are.
bool equal_views(Meter& meter, const View& a, const View& b) {
  if (a.part != b.part || a.part == View::Part::kValues) return &a == &b;
  if (a.part == View::Part::kItems) return equal(meter, a.dict, b.dict);
  const Dict& keys = a.dict.dict();
  return keys.entries.size() == b.dict.dict().entries.size() &&
         std::all_of(keys.entries.begin(), keys.entries.end(),
                     [&](const auto& entry) { return b.dict.dict().find(entry.first) != nullptr; });
}

bool equal_ranges(const Range& a, const Range& b) {
  const int64_t size = a.size();
  return size == b.size() && (size == 0 || (a.start == b.start && (size == 1 || a.step == b.step)));
}

}  // namespace

void Meter::step(uint64_t count) {
  steps_ += count;
  if (steps_ > limits_.steps) fail(ErrorCode::kLimit, "the template takes more than {} steps", limits_.steps);
}

void Meter::fits(size_t bytes) const {
  if (bytes > limits_.output_bytes)
    fail(ErrorCode::kLimit, "the template makes a text of more than {} bytes", limits_.output_bytes);
}

void Meter::take(size_t bytes) {
  if (bytes > limits_.memory_bytes - memory_bytes_)
    fail(ErrorCode::kLimit, "the template holds more than {} bytes", limits_.memory_bytes);
  memory_bytes_ += bytes;
}

Value Value::boolean(bool b) {
  Value v(Kind::kBool);
  v.integer_ = b;
  return v;
}

Value Value::integer(int64_t i) {
  Value v(Kind::kInt);
  v.integer_ = i;
  return v;
}

Value Value::real(double d) {
  Value v(Kind::kFloat);
  v.real_ = d;
  return v;
}

Value Value::object(Kind kind, std::shared_ptr<Object> object) {
  Value v(kind);
  v.object_ = std::move(object);
  return v;
}

Value Value::constant(std::string text) {
  auto object = std::make_shared<Text>();
  object->ascii = text::is_ascii(text);
  object->bytes = std::move(text);
  return Value::object(Kind::kString, std::move(object));
}

double Value::as_float() const {
  if (kind_ == Kind::kFloat) return real_;
  if (kind_ == Kind::kHugeInt) return std::strtod(as<Text>().bytes.c_str(), nullptr);
  return static_cast<double>(integer_);
}

std::string_view Value::text() const {
  return as<Text>().bytes;
}
bool Value::is_markup() const {
  return kind_ == Kind::kString && as<Text>().markup;
}
const std::vector<Value>& Value::items() const {
  return as<List>().items;
}
const Dict& Value::dict() const {
  return as<Dict>();
}

std::string Undefined::message() const {
  if (!hint.empty()) return hint;
  if (!owner_type) return fmt::format("'{}' is undefined", name);
  if (!name_is_text) return fmt::format("{} object has no element {}", owner_type, name);
  return fmt::format("'{} object' has no attribute '{}'", owner_type, name);
}

bool KeyLess::operator()(const Value& a, const Value& b) const {
  const int x = rank(a);
  const int y = rank(b);
  if (x != y) return x < y;
  if (x == 0) return compare_numbers(a, b) < 0;
  if (a.is_string()) return a.text() < b.text();
  if (!a.is(Kind::kTuple)) return a.identity() < b.identity();
  return std::lexicographical_compare(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(),
                                      KeyLess());
}

void check_key(const Value& key) {
  switch (key.kind()) {
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      raise("unhashable type: '{}'", type_name(key));
    case Kind::kTuple:
      if (key.depth() > kMaxKeyDepth || key.items().size() > kMaxKeyItems)
        fail(ErrorCode::kUnsupported, "a tuple of this size cannot be a key");
      for (const Value& item : key.items()) check_key(item);
      return;
    default:
      return;
  }
}

size_t Dict::position(const Value& key) const {
  if (entries.size() > kScanned) {
    const auto at = index_.find(key);
    return at == index_.end() ? entries.size() : at->second;
  }
  const KeyLess key_less;
  size_t i = 0;
  while (i < entries.size() && (key_less(entries[i].first, key) || key_less(key, entries[i].first))) ++i;
  return i;
}

const Value* Dict::find(const Value& key) const {
  const size_t i = position(key);
  return i < entries.size() ? &entries[i].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (entries.size() > kScanned) return find(Value::constant(std::string(key)));
  for (const auto& [name, value] : entries)
    if (name.is_string() && name.text() == key) return &value;
  return nullptr;
}

void Dict::set(Value key, Value value) {
  depth = std::max({depth, key.depth() + 1, value.depth() + 1});
  const size_t i = position(key);
  if (i < entries.size()) {
    entries[i].second = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
  if (entries.size() == kScanned + 1) {
    for (uint32_t j = 0; j < entries.size(); ++j) index_.emplace(entries[j].first, j);
  } else if (entries.size() > kScanned) {
    index_.emplace(entries.back().first, static_cast<uint32_t>(i));
  }
}

int64_t Range::size() const {
  if (step > 0 && start < stop) return (stop - start - 1) / step + 1;
  if (step < 0 && start > stop) return (start - stop - 1) / -step + 1;
  return 0;
}

Value* Namespace::find(std::string_view name) {
  for (auto& [key, value] : attributes)
    if (key == name) return &value;
  return nullptr;
}

const char* type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
    case Kind::kHugeInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return v.is_markup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kView:
      switch (v.as<View>().part) {
        case View::Part::kKeys:
          return "dict_keys";
        case View::Part::kValues:
          return "dict_values";
        case View::Part::kItems:
          return "dict_items";
      }
      return "dict_items";
    case Kind::kIterator:
      return v.as<Iterator>().name;
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kFunction:
      return "function";
    case Kind::kMacro:
      return "Macro";
  }
  return "object";
}

bool truth(const Value& v) {
  switch (v.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.as_int() != 0;
    case Kind::kFloat:
      return v.as_float() != 0;
    case Kind::kString:
      return !v.text().empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kRange:
    case Kind::kView:
      return *length(v) != 0;
    default:
      return true;
  }
}

std::optional<int64_t> length(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString: {
      const Text& text = v.as<Text>();
      return static_cast<int64_t>(text.ascii ? text.bytes.size() : text::length(text.bytes));
    }
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(v.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(v.dict().entries.size());
    case Kind::kRange:
      return v.as<Range>().size();
    case Kind::kView:
      return length(v.as<View>().dict);
    default:
      return std::nullopt;
  }
}

bool is_iterable(const Value& v) {
  return length(v).has_value() || v.is(Kind::kIterator) || v.is(Kind::kLoop);
}

bool same(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return a.as_int() == b.as_int();
    case Kind::kFloat:
      return false;
    default:
      return a.identity() == b.identity();
  }
}

bool equal(Meter& meter, const Value& a, const Value& b) {
  meter.step();
  if (a.is_number() && b.is_number()) return !is_nan(a) && !is_nan(b) && compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
      return equal_items(meter, a.items(), b.items());
    case Kind::kDict:
      return equal_dicts(meter, a.dict(), b.dict());
    case Kind::kView:
      return equal_views(meter, a.as<View>(), b.as<View>());
    case Kind::kRange:
      return equal_ranges(a.as<Range>(), b.as<Range>());
    default:
      return a.identity() == b.identity();
  }
}

bool less(Meter& meter, const Value& a, const Value& b) {
  meter.step();
  if (a.is_number() && b.is_number()) return !is_nan(a) && !is_nan(b) && compare_numbers(a, b) < 0;
  if (a.is_undefined()) raise("{}", a.as<Undefined>().message());
  if (b.is_undefined()) raise("{}", b.as<Undefined>().message());
  if (a.is_string() && b.is_string()) return a.text() < b.text();
  if (!a.is_sequence() || a.kind() != b.kind())
    raise("'<' not supported between instances of '{}' and '{}'", type_name(a), type_name(b));
  const std::vector<Value>& x = a.items();
  const std::vector<Value>& y = b.items();
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    if (!same(x[i], y[i]) && !equal(meter, x[i], y[i])) return less(meter, x[i], y[i]);
  return x.size() < y.size();
}

}  // namespace caravan::tmpl
