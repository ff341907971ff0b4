#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/template_tree.h"
#include "model/template_value.h"

namespace caravan::tmpl {

// What `raise_exception` throws: its message goes to the user as the template wrote it.
class RaisedByTemplate : public Error {
 public:
  using Error::Error;
};

// Counts depth while it lives, so that no template overruns the stack.
class Depth {
 public:
  Depth(uint32_t& depth, uint32_t most) : depth_(depth) {
    if (depth_ >= most) fail(ErrorCode::kLimit, "the template runs nested deeper than {}", most);
    ++depth_;
  }
  ~Depth() { --depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  uint32_t& depth_;
};

// The names bound within one body; those of the whole template are kept apart (Interpreter::root_).
struct Scope {
  std::shared_ptr<Scope> parent;  // null: the template
  std::vector<std::pair<uint32_t, Value>> variables;
};
using ScopePtr = std::shared_ptr<Scope>;

// Goes through the items of a value once. Throws for what has none.
class Cursor {
 public:
  Cursor() = default;
  explicit Cursor(Value source);
  bool next(Interpreter& interpreter, Value& item);
  bool is_open() const { return !source_.is_missing(); }

 private:
  Value source_;
  size_t position_ = 0;  // of the next item; of a string, in bytes
};

struct Macro : Object {
  const Statement* statement = nullptr;
  ScopePtr scope;
};

// `loop`, while the loop runs; afterwards it keeps its numbers and drops its items.
struct Loop : Object {
  bool next(Interpreter& interpreter, Value& item);
  void close();
  int64_t size(Interpreter& interpreter);
  const Value& peek(Interpreter& interpreter);  // missing at the end

  Value source;
  Cursor cursor;
  int64_t index0 = -1;
  int64_t level = 0;  // of recursion
  int64_t known_size = -1;
  Value ahead;  // taken from the cursor and not given out yet
  bool peeked = false;
  Value previous;
  Value current;
  Value last_changed;
  const Statement* statement = nullptr;
  ScopePtr scope;  // around the loop
};

// Renders a template once. One thread. Its functions throw Error: kInvalidArgument for what Jinja refuses as
// it runs, kUnsupported for what only this engine lacks, kLimit.
class Interpreter {
 public:
  Interpreter(const Tree& tree, Meter& meter, int64_t now_unix_seconds);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string run(const Dict& input);
  uint32_t line() const { return line_; }  // of what ran last, for messages

  Meter& meter() { return meter_; }
  int64_t now_unix_seconds() const { return now_unix_seconds_; }

  // New values, charged to the meter.
  Value text(std::string bytes, bool markup = false);
  Value list(std::vector<Value> items, Kind kind = Kind::kList);
  Value tuple(std::vector<Value> items) { return list(std::move(items), Kind::kTuple); }
  Value dict(std::shared_ptr<Dict> dict);
  Value iterator(const char* name, const Value& over, std::function<bool(Interpreter&, Value&)> next);
  Value function(std::string name, NativeFunction code, Value self);
  Value make_namespace(std::vector<std::pair<std::string, Value>> attributes);
  Value undefined(std::string hint);
  Value undefined_name(const std::string& name);
  Value undefined_attribute(const Value& owner, const Value& name);
  Value view(const Value& dict, View::Part part);
  Value range(int64_t start, int64_t stop, int64_t step);

  // What `object.name` and `object[key]` mean: undefined if nothing.
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  // As attribute(), without a look into a dictionary's entries: missing if nothing.
  Value own_attribute(const Value& object, std::string_view name);
  Value call(const Value& callee, Arguments arguments);

  std::vector<Value> collect(const Value& iterable);
  std::string str(const Value& v);
  bool equals(const Value& a, const Value& b) { return equal(meter_, a, b); }

  // One step of a `for` with a condition: the next item that meets it.
  bool next_matching(const Statement& loop, const ScopePtr& scope, Cursor& cursor, Value& item);
  Value recurse(const Loop& loop, const Value& items);

 private:
  // A new object, charged with its own size and `extra_bytes`.
  template <class T>
  std::shared_ptr<T> make(size_t extra_bytes = 0) {
    const size_t bytes = sizeof(T) + extra_bytes;
    meter_.take(bytes);
    auto object = std::make_shared<T>();
    charge(*object, bytes);
    return object;
  }
  void charge(Object& object, size_t bytes) {
    object.meter = &meter_;
    object.charged_bytes = bytes;
  }

  enum class Flow { kOn, kBreak, kContinue };
  class Output;

  Flow run_body(const Body& body, const ScopePtr& scope);
  Flow run_statement(const Statement& s, const ScopePtr& scope);
  Flow run_if(const Statement& s, const ScopePtr& scope);
  Flow run_loop(const Statement& s, const ScopePtr& scope);
  Flow run_for(const Statement& s, const ScopePtr& scope, const Value& items, int64_t level);
  Flow run_set_block(const Statement& s, const ScopePtr& scope);
  Flow run_with(const Statement& s, const ScopePtr& scope);
  Flow run_filter_block(const Statement& s, const ScopePtr& scope);
  void run_call(const Statement& s, const ScopePtr& scope);
  void run_output(const Statement& s, const ScopePtr& scope);
  void write(std::string_view bytes);

  Value make_macro(const Statement& s, const ScopePtr& scope);
  Value call_macro(const Macro& macro, Arguments arguments);
  void bind_parameters(const Statement& s, const ScopePtr& scope, Arguments& arguments);
  void bind_special(const Statement& s, const ScopePtr& scope, Arguments& arguments);

  const Value& lookup(uint32_t symbol, const ScopePtr& scope) const;
  void bind(uint32_t symbol, const ScopePtr& scope, Value value);
  void assign(const Target& target, const ScopePtr& scope, const Value& value);
  ScopePtr inner(const ScopePtr& scope) const;
  void keep(const ScopePtr& scope);

  Value evaluate(const Expression& e, const ScopePtr& scope);
  Value evaluate_node(const Expression& e, const ScopePtr& scope);
  Value evaluate_list(const Expression& e, const ScopePtr& scope);
  Value evaluate_dict(const Expression& e, const ScopePtr& scope);
  Value evaluate_slice(const Expression& e, const ScopePtr& scope);
  Value evaluate_call(const Expression& e, const ScopePtr& scope, const Value* caller = nullptr);
  Value evaluate_filter(const Expression& e, const ScopePtr& scope, const Value* input);
  Value evaluate_test(const Expression& e, const ScopePtr& scope);
  Value evaluate_compare(const Expression& e, const ScopePtr& scope);
  Value evaluate_concatenation(const Expression& e, const ScopePtr& scope);
  Arguments evaluate_arguments(const Expression& e, const ScopePtr& scope);

  Value loop_attribute(Loop& loop, const Value& self, std::string_view name);

  const Tree& tree_;
  Meter& meter_;
  const int64_t now_unix_seconds_;
  uint32_t line_ = 1;
  uint32_t depth_ = 0;  // of statements and expressions being run
  uint32_t calls_ = 0;  // of macros and loops calling themselves
  std::string* output_ = nullptr;
  std::vector<Value> root_;  // by symbol
  // What can be part of a circle of references, kept so that the circles can be broken at the end.
  std::vector<ScopePtr> kept_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace caravan::tmpl
