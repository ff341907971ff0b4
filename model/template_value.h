#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/limits.h"
#include "model/template_text.h"

// The values that templates compute with. They behave like Python's: strings are sequences of code points,
// dictionaries keep their order, integers and floats compare across types. Values share their content; what a
// template cannot change (all but namespaces, iterators and loops) is never written after it is built.
namespace caravan::tmpl {

struct Limits {
  uint64_t steps = limits::kMaxTemplateSteps;
  size_t output_bytes = limits::kMaxTemplateOutputBytes;
  size_t memory_bytes = limits::kMaxTemplateMemoryBytes;
};

// Counts what one rendering uses and throws kLimit when it is too much. One thread. It outlives all values
// that were charged to it.
class Meter {
 public:
  explicit Meter(const Limits& limits) : limits_(limits) {}
  void step(uint64_t count = 1);
  void fits(size_t bytes) const;  // no text may be longer than a whole output
  void text(size_t bytes) {       // a text of this size is built, which counts as work
    fits(bytes);
    step(bytes / 512);
  }
  void take(size_t bytes);
  void give(size_t bytes) { memory_bytes_ -= bytes; }

 private:
  const Limits limits_;
  uint64_t steps_ = 0;
  size_t memory_bytes_ = 0;
};

class Interpreter;
class Value;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// A function of the interpreter: a method (of `self`), a filter or test (of the value before the bar) or a
// global.
using NativeFunction = Value (*)(Interpreter&, const Value& self, const Arguments&);

enum class Kind : uint8_t {
  kMissing,  // no value at all: an argument not given, a name not bound; templates never see it
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kHugeInt,  // an integer of the input beyond 64 bits, kept as its digits: it can be printed and compared
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kView,      // keys, values or items of a dictionary
  kIterator,  // used up by going through it once
  kNamespace,
  kLoop,
  kFunction,
  kMacro,
};

// What values refer to. Sizes charged to a meter are given back at the end.
struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() {
    if (meter) meter->give(charged_bytes);
  }
  Meter* meter = nullptr;
  size_t charged_bytes = 0;
  uint32_t depth = 1;  // of containers within containers, bounded so that no walk recurses without end
};

struct Undefined;
struct Text;
struct List;
struct Dict;
struct Range;
struct View;
struct Iterator;
struct Namespace;
struct Function;

class Value {
 public:
  Value() = default;
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool b);
  static Value integer(int64_t i);
  static Value real(double d);
  static Value object(Kind kind, std::shared_ptr<Object> object);
  static Value constant(std::string text);  // not charged to any meter, for what is fixed at parse

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_missing() const { return kind_ == Kind::kMissing; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_integer() const {
    return kind_ == Kind::kInt || kind_ == Kind::kBool;
  }  // as Python's arithmetic has it
  bool is_number() const { return is_integer() || kind_ == Kind::kFloat || kind_ == Kind::kHugeInt; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  bool as_bool() const { return integer_ != 0; }  // kBool
  int64_t as_int() const { return integer_; }     // kInt, kBool
  double as_float() const;                        // any number
  std::string_view text() const;                  // kString, kHugeInt
  bool is_markup() const;                         // kString that counts as escaped HTML
  const std::vector<Value>& items() const;        // kList, kTuple
  const Dict& dict() const;                       // kDict
  template <class T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  const Object* identity() const { return object_.get(); }
  const std::shared_ptr<Object>& shared() const { return object_; }
  uint32_t depth() const { return object_ ? object_->depth : 0; }

 private:
  explicit Value(Kind kind) : kind_(kind) {}

  Kind kind_ = Kind::kMissing;
  union {
    int64_t integer_ = 0;
    double real_;
  };
  std::shared_ptr<Object> object_;
};

struct Undefined : Object {
  std::string message() const;
  std::string hint;                  // the whole message, unless empty
  std::string name;                  // of the variable, attribute or element
  const char* owner_type = nullptr;  // type of the object without that attribute
  bool name_is_text = true;
};

struct Text : Object {
  std::string bytes;
  bool ascii = true;
  bool markup = false;
};

struct List : Object {
  std::vector<Value> items;
  bool group = false;  // a pair made by `groupby`, with the attributes `grouper` and `list`
};

// An order among all values that may be keys, in which numbers of equal value are equal.
struct KeyLess {
  bool operator()(const Value& a, const Value& b) const;
};

// Throws unless the value may be the key of a dictionary.
void check_key(const Value& key);

struct Dict : Object {
  const Value* find(const Value& key) const;  // the key must have passed check_key
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);
  std::vector<std::pair<Value, Value>> entries;

 private:
  static constexpr size_t kScanned = 8;     // up to here a scan is quicker than the index
  size_t position(const Value& key) const;  // entries.size() if it is not there
  std::map<Value, uint32_t, KeyLess> index_;
};

struct Range : Object {
  int64_t size() const;
  int64_t start = 0;
  int64_t stop = 0;
  int64_t step = 1;
};

struct View : Object {
  enum class Part { kKeys, kValues, kItems };
  Part part = Part::kItems;
  Value dict;
};

struct Iterator : Object {
  const char* name = "generator";
  std::function<bool(Interpreter&, Value&)> next;  // false at the end
};

struct Namespace : Object {
  std::vector<std::pair<std::string, Value>> attributes;
  Value* find(std::string_view name);
};

struct Function : Object {
  std::string name;
  NativeFunction call = nullptr;
  Value self;
};

const char* type_name(const Value& v);  // as Python calls it, such as "str"

bool truth(const Value& v);
std::optional<int64_t> length(const Value& v);  // of what has one
bool is_iterable(const Value& v);

// Comparisons as Python makes them; they count steps on the meter.
bool equal(Meter& meter, const Value& a, const Value& b);
bool less(Meter& meter, const Value& a, const Value& b);  // throws for types without an order
bool same(const Value& a, const Value& b);                // Python's `is`

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace caravan::tmpl
