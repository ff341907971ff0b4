#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"

// Going through values: cursors, `for`, and what `loop` offers in its body.
namespace caravan::tmpl {
namespace {

const Loop& loop_of(const Value& self) {
  return self.as<Loop>();
}

Value loop_cycle(Interpreter&, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) raise("no items for cycling given");
  const auto index = static_cast<size_t>(loop_of(self).index0);
  return arguments.positional[index % arguments.positional.size()];
}

Value loop_changed(Interpreter& in, const Value& self, const Arguments& arguments) {
  Loop& loop = self.as<Loop>();
  Value now = in.tuple(arguments.positional);
  if (!loop.last_changed.is_missing() && in.equals(loop.last_changed, now)) return Value::boolean(false);
  loop.last_changed = std::move(now);
  return Value::boolean(true);
}

// Ends a loop's hold on its items however its body is left.
class Closing {
 public:
  explicit Closing(Loop& loop) : loop_(loop) {}
  ~Closing() { loop_.close(); }
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;

 private:
  Loop& loop_;
};

}  // namespace

Cursor::Cursor(Value source) : source_(std::move(source)) {
  if (!is_iterable(source_) || source_.is(Kind::kLoop))
    raise("'{}' object is not iterable", type_name(source_));
}

bool Cursor::next(Interpreter& in, Value& item) {
  switch (source_.kind()) {
    case Kind::kList:
    case Kind::kTuple:
      if (position_ >= source_.items().size()) return false;
      item = source_.items()[position_++];
      return true;
    case Kind::kDict:
      if (position_ >= source_.dict().entries.size()) return false;
      item = source_.dict().entries[position_++].first;
      return true;
    case Kind::kView: {
      const View& view = source_.as<View>();
      if (position_ >= view.dict.dict().entries.size()) return false;
      const auto& [key, value] = view.dict.dict().entries[position_++];
      item = view.part == View::Part::kKeys     ? key
             : view.part == View::Part::kValues ? value
                                                : in.tuple({key, value});
      return true;
    }
    case Kind::kRange: {
      const Range& range = source_.as<Range>();
      if (static_cast<int64_t>(position_) >= range.size()) return false;
      item = Value::integer(range.start + static_cast<int64_t>(position_++) * range.step);
      return true;
    }
    case Kind::kString: {
      const std::string_view s = source_.text();
      if (position_ >= s.size()) return false;
      const size_t start = position_;
      text::decode(s, position_);
      item = in.text(std::string(s.substr(start, position_ - start)));
      return true;
    }
    case Kind::kIterator:
      return source_.as<Iterator>().next(in, item);
    default:
      return false;  // an undefined value has no items
  }
}

bool Loop::next(Interpreter& in, Value& item) {
  if (peeked) {
    peeked = false;
    if (ahead.is_missing()) return false;
    item = std::exchange(ahead, Value());
  } else if (!cursor.next(in, item)) {
    return false;
  }
  ++index0;
  previous = std::exchange(current, item);
  return true;
}

const Value& Loop::peek(Interpreter& in) {
  if (!peeked) {
    peeked = true;
    if (!cursor.next(in, ahead)) ahead = Value();
  }
  return ahead;
}

int64_t Loop::size(Interpreter& in) {
  if (known_size >= 0) return known_size;
  if (const auto length = tmpl::length(source)) return known_size = *length;
  std::vector<Value> rest;
  for (Value item; cursor.next(in, item);) {
    in.meter().step();
    rest.push_back(std::move(item));
  }
  known_size = index0 + 1 + static_cast<int64_t>(rest.size()) + (peeked && !ahead.is_missing());
  cursor = Cursor(in.list(std::move(rest)));
  return known_size;
}

void Loop::close() {
  source = cursor.is_open() ? Value::none() : Value();
  cursor = Cursor();
  scope.reset();
  for (Value* value : {&ahead, &previous, &current, &last_changed}) *value = Value();
  peeked = true;
}

Interpreter::Flow Interpreter::run_loop(const Statement& s, const ScopePtr& scope) {
  const Value items = evaluate(*s.expressions[0], scope);
  return run_for(s, scope, items, 0);
}

Interpreter::Flow Interpreter::run_for(const Statement& s, const ScopePtr& scope, const Value& items,
                                       int64_t level) {
  auto loop = make<Loop>();
  const Closing closing(*loop);
  loop->statement = &s;
  loop->scope = scope;
  loop->level = level;
  loop->source = items;
  if (s.condition) {
    loop->source = iterator("generator", items,
                            [&s, scope, cursor = Cursor(items)](Interpreter& in, Value& item) mutable {
                              return in.next_matching(s, scope, cursor, item);
                            });
  }
  loop->cursor = Cursor(loop->source);
  const Value self = Value::object(Kind::kLoop, loop);
  ScopePtr body = inner(scope);
  bool completed = false;  // as Jinja has it: `else` runs unless some turn came to its end
  for (Value item; loop->next(*this, item);) {
    meter_.step();
    if (body.use_count() > 1) body = inner(scope);
    body->variables.clear();
    body->variables.emplace_back(tree_.loop, self);
    assign(s.target, body, item);
    const Flow flow = run_body(s.body, body);
    if (flow == Flow::kBreak) break;
    completed |= flow == Flow::kOn;
  }
  body->variables.clear();
  return completed || s.other.empty() ? Flow::kOn : run_body(s.other, inner(scope));
}

bool Interpreter::next_matching(const Statement& loop, const ScopePtr& scope, Cursor& cursor, Value& item) {
  const ScopePtr test = inner(scope);
  while (cursor.next(*this, item)) {
    test->variables.clear();
    assign(loop.target, test, item);
    if (truth(evaluate(*loop.condition, test))) return true;
  }
  return false;
}

Value Interpreter::loop_attribute(Loop& loop, const Value& self, std::string_view name) {
  if (name == "index0") return Value::integer(loop.index0);
  if (name == "index") return Value::integer(loop.index0 + 1);
  if (name == "first") return Value::boolean(loop.index0 == 0);
  if (name == "last") return Value::boolean(loop.peek(*this).is_missing());
  if (name == "length") return Value::integer(loop.size(*this));
  if (name == "revindex") return Value::integer(loop.size(*this) - loop.index0);
  if (name == "revindex0") return Value::integer(loop.size(*this) - loop.index0 - 1);
  if (name == "depth") return Value::integer(loop.level + 1);
  if (name == "depth0") return Value::integer(loop.level);
  if (name == "cycle") return function("cycle", loop_cycle, self);
  if (name == "changed") return function("changed", loop_changed, self);
  if (name == "previtem") return loop.index0 == 0 ? undefined("there is no previous item") : loop.previous;
  if (name == "nextitem") {
    const Value& next = loop.peek(*this);
    return next.is_missing() ? undefined("there is no next item") : next;
  }
  return Value();
}

}  // namespace caravan::tmpl
