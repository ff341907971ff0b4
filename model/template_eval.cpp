#include "model/template_eval.h"

#include <algorithm>

#include "model/template_methods.h"
#include "model/template_operators.h"
#include "model/template_print.h"

namespace caravan::tmpl {

using Node = Expression::Kind;

namespace {

void check_depth(uint32_t depth) {
  if (depth > limits::kMaxTemplateValueDepth)
    fail(ErrorCode::kLimit, "values nested deeper than {}", limits::kMaxTemplateValueDepth);
}

}  // namespace

Value Interpreter::evaluate(const Expression& e, const ScopePtr& scope) {
  if (e.kind == Node::kConstant) return e.constant;
  const Depth depth(depth_, limits::kMaxTemplateTreeDepth);
  meter_.step();
  line_ = e.line;
  return evaluate_node(e, scope);
}

Value Interpreter::evaluate_node(const Expression& e, const ScopePtr& scope) {
  const auto child = [&](size_t i) { return evaluate(*e.children[i], scope); };
  switch (e.kind) {
    case Node::kConstant:
      return e.constant;
    case Node::kName: {
      const Value& value = lookup(e.symbol, scope);
      return value.is_missing() ? undefined_name(e.name) : value;
    }
    case Node::kList:
    case Node::kTuple:
      return evaluate_list(e, scope);
    case Node::kDict:
      return evaluate_dict(e, scope);
    case Node::kAttribute:
      return attribute(child(0), e.name);
    case Node::kItem: {
      const Value object = child(0);
      return item(object, child(1));
    }
    case Node::kSlice:
      return evaluate_slice(e, scope);
    case Node::kCall:
      return evaluate_call(e, scope);
    case Node::kFilter:
      return evaluate_filter(e, scope, nullptr);
    case Node::kTest:
      return evaluate_test(e, scope);
    case Node::kNot:
      return Value::boolean(!truth(child(0)));
    case Node::kNegate:
      return negate(child(0));
    case Node::kPositive:
      return positive(child(0));
    case Node::kBinary: {
      const Value left = child(0);
      return binary(*this, e.operators[0], left, child(1));
    }
    case Node::kCompare:
      return evaluate_compare(e, scope);
    case Node::kAnd: {
      Value left = child(0);
      return truth(left) ? child(1) : left;
    }
    case Node::kOr: {
      Value left = child(0);
      return truth(left) ? left : child(1);
    }
    case Node::kConcatenate:
      return evaluate_concatenation(e, scope);
    case Node::kConditional:
      if (truth(child(0))) return child(1);
      if (e.children[2]) return child(2);
      return undefined("the inline if-expression evaluated to false and no else section was defined.");
  }
  return Value::none();
}

Value Interpreter::evaluate_list(const Expression& e, const ScopePtr& scope) {
  std::vector<Value> items;
  items.reserve(e.children.size());
  for (const ExpressionPtr& child : e.children) items.push_back(evaluate(*child, scope));
  return list(std::move(items), e.kind == Node::kList ? Kind::kList : Kind::kTuple);
}

Value Interpreter::evaluate_dict(const Expression& e, const ScopePtr& scope) {
  auto entries = std::make_shared<Dict>();
  for (size_t i = 0; i < e.children.size(); i += 2) {
    Value key = evaluate(*e.children[i], scope);
    check_key(key);
    entries->set(std::move(key), evaluate(*e.children[i + 1], scope));
  }
  return dict(std::move(entries));
}

Value Interpreter::evaluate_slice(const Expression& e, const ScopePtr& scope) {
  const Value object = evaluate(*e.children[0], scope);
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i)
    bounds[i] = e.children[i + 1] ? evaluate(*e.children[i + 1], scope) : Value::none();
  return slice(*this, object, bounds[0], bounds[1], bounds[2]);
}

Value Interpreter::evaluate_call(const Expression& e, const ScopePtr& scope, const Value* caller) {
  const Expression& callee = *e.children[0];
  // A method is called on its object at once, without a value for the method itself.
  Value object;
  Value function;
  NativeFunction method = nullptr;
  if (callee.kind == Node::kAttribute) {
    object = evaluate(*callee.children[0], scope);
    method = find_method(object, callee.name);
    if (!method) function = attribute(object, callee.name);
  } else {
    function = evaluate(callee, scope);
  }
  Arguments arguments = evaluate_arguments(e, scope);
  if (caller) arguments.named.emplace_back("caller", *caller);
  line_ = e.line;
  return method ? method(*this, object, arguments) : call(function, std::move(arguments));
}

Arguments Interpreter::evaluate_arguments(const Expression& e, const ScopePtr& scope) {
  Arguments arguments;
  for (size_t i = 1; i < e.children.size(); ++i)
    arguments.positional.push_back(evaluate(*e.children[i], scope));
  for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value, scope));
  if (e.spread)
    for (Value& item : collect(evaluate(*e.spread, scope))) arguments.positional.push_back(std::move(item));
  if (e.named_spread) {
    const Value named = evaluate(*e.named_spread, scope);
    if (!named.is(Kind::kDict)) raise("argument after ** must be a mapping, not {}", type_name(named));
    for (const auto& [key, value] : named.dict().entries) {
      if (!key.is_string()) raise("keywords must be strings");
      arguments.named.emplace_back(key.text(), value);
    }
  }
  return arguments;
}

// In front of a block the innermost filter has no input of its own and takes `input`.
Value Interpreter::evaluate_filter(const Expression& e, const ScopePtr& scope, const Value* input) {
  const Depth depth(depth_, limits::kMaxTemplateTreeDepth);
  Value value;
  if (!e.children[0])
    value = *input;
  else if (e.children[0]->kind == Node::kFilter)
    value = evaluate_filter(*e.children[0], scope, input);
  else
    value = evaluate(*e.children[0], scope);
  const Arguments arguments = evaluate_arguments(e, scope);
  line_ = e.line;
  if (!e.function) raise("no filter named '{}'", e.name);
  return e.function(*this, value, arguments);
}

Value Interpreter::evaluate_test(const Expression& e, const ScopePtr& scope) {
  const Value value = evaluate(*e.children[0], scope);
  const Arguments arguments = evaluate_arguments(e, scope);
  line_ = e.line;
  if (!e.function) raise("no test named '{}'", e.name);
  return e.function(*this, value, arguments);
}

Value Interpreter::evaluate_compare(const Expression& e, const ScopePtr& scope) {
  Value left = evaluate(*e.children[0], scope);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.children[i + 1], scope);
    if (!compare(*this, e.operators[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_concatenation(const Expression& e, const ScopePtr& scope) {
  std::string joined;
  for (const ExpressionPtr& child : e.children) append_str(meter_, joined, evaluate(*child, scope));
  return text(std::move(joined));
}

Value Interpreter::attribute(const Value& object, const std::string& name) {
  Value own = own_attribute(object, name);
  if (!own.is_missing()) return own;
  if (object.is(Kind::kDict) && !is_method_name(object, name) && name.rfind("__", 0) != 0)
    if (const Value* value = object.dict().find(name)) return *value;
  return undefined_attribute(object, Value::constant(name));
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) raise("{}", object.as<Undefined>().message());
  if (object.is(Kind::kDict)) {
    if (!key.is(Kind::kList) && !key.is(Kind::kDict))
      if (const Value* value = object.dict().find(key)) return *value;
  } else if (key.is_integer() && (object.is_string() || object.is_sequence() || object.is(Kind::kRange))) {
    Value value = at_index(*this, object, key.as_int());
    if (!value.is_missing()) return value;
  }
  if (key.is_string()) {
    Value value = own_attribute(object, key.text());
    if (!value.is_missing()) return value;
  }
  return undefined_attribute(object, key);
}

// What the object's type has under this name, other than a dictionary's entries; missing if nothing.
Value Interpreter::own_attribute(const Value& object, std::string_view name) {
  switch (object.kind()) {
    case Kind::kUndefined:
      raise("{}", object.as<Undefined>().message());
    case Kind::kNamespace: {
      const Value* value = object.as<Namespace>().find(name);
      return value ? *value : Value();
    }
    case Kind::kLoop:
      return loop_attribute(object.as<Loop>(), object, name);
    case Kind::kRange: {
      const Range& range = object.as<Range>();
      if (name == "start") return Value::integer(range.start);
      if (name == "stop") return Value::integer(range.stop);
      if (name == "step") return Value::integer(range.step);
      break;
    }
    case Kind::kMacro:
      if (name == "name") return Value::constant(object.as<Macro>().statement->name);
      break;
    case Kind::kTuple:
      if (object.as<List>().group && name == "grouper") return object.items()[0];
      if (object.as<List>().group && name == "list") return object.items()[1];
      break;
    default:
      break;
  }
  const NativeFunction method = find_method(object, name);
  return method ? function(std::string(name), method, object) : Value();
}

Value Interpreter::call(const Value& callee, Arguments arguments) {
  switch (callee.kind()) {
    case Kind::kFunction: {
      const Function& function = callee.as<Function>();
      return function.call(*this, function.self, arguments);
    }
    case Kind::kMacro:
      return call_macro(callee.as<Macro>(), std::move(arguments));
    case Kind::kLoop:
      if (arguments.positional.size() != 1 || !arguments.named.empty()) raise("loop() takes one argument");
      return recurse(callee.as<Loop>(), arguments.positional[0]);
    case Kind::kUndefined:
      raise("{}", callee.as<Undefined>().message());
    default:
      raise("'{}' object is not callable", type_name(callee));
  }
}

Value Interpreter::text(std::string bytes, bool markup) {
  meter_.text(bytes.size());
  auto object = make<Text>(bytes.size());
  object->ascii = text::is_ascii(bytes);
  object->bytes = std::move(bytes);
  object->markup = markup;
  return Value::object(Kind::kString, std::move(object));
}

Value Interpreter::list(std::vector<Value> items, Kind kind) {
  auto object = make<List>(items.size() * sizeof(Value));
  for (const Value& item : items) object->depth = std::max(object->depth, item.depth() + 1);
  check_depth(object->depth);
  object->items = std::move(items);
  return Value::object(kind, std::move(object));
}

Value Interpreter::dict(std::shared_ptr<Dict> dict) {
  check_depth(dict->depth);
  const size_t bytes = sizeof(Dict) + dict->entries.size() * (2 * sizeof(Value) + 64);
  meter_.take(bytes);
  charge(*dict, bytes);
  return Value::object(Kind::kDict, std::move(dict));
}

Value Interpreter::iterator(const char* name, const Value& over,
                            std::function<bool(Interpreter&, Value&)> next) {
  auto object = make<Iterator>(128);  // for what `next` holds
  object->depth = over.depth() + 1;
  check_depth(object->depth);
  object->name = name;
  object->next = std::move(next);
  return Value::object(Kind::kIterator, std::move(object));
}

Value Interpreter::function(std::string name, NativeFunction code, Value self) {
  auto object = make<Function>();
  object->depth = self.depth() + 1;
  check_depth(object->depth);
  object->name = std::move(name);
  object->call = code;
  object->self = std::move(self);
  return Value::object(Kind::kFunction, std::move(object));
}

Value Interpreter::view(const Value& dict, View::Part part) {
  auto object = make<View>();
  object->depth = dict.depth() + 1;
  check_depth(object->depth);
  object->part = part;
  object->dict = dict;
  return Value::object(Kind::kView, std::move(object));
}

Value Interpreter::range(int64_t start, int64_t stop, int64_t step) {
  auto object = make<Range>();
  object->start = start;
  object->stop = stop;
  object->step = step;
  return Value::object(Kind::kRange, std::move(object));
}

Value Interpreter::make_namespace(std::vector<std::pair<std::string, Value>> attributes) {
  auto object = make<Namespace>(attributes.size() * 64);
  object->attributes = std::move(attributes);
  namespaces_.push_back(object);
  return Value::object(Kind::kNamespace, std::move(object));
}

Value Interpreter::undefined(std::string hint) {
  auto object = make<Undefined>(hint.size());
  object->hint = std::move(hint);
  return Value::object(Kind::kUndefined, std::move(object));
}

Value Interpreter::undefined_name(const std::string& name) {
  auto object = make<Undefined>(name.size());
  object->name = name;
  return Value::object(Kind::kUndefined, std::move(object));
}

Value Interpreter::undefined_attribute(const Value& owner, const Value& name) {
  auto object = make<Undefined>(64);
  object->name_is_text = name.is_string();
  object->name = name.is_string()      ? std::string(name.text().substr(0, 64))
                 : name.is(Kind::kInt) ? std::to_string(name.as_int())
                                       : std::string(type_name(name));
  object->owner_type = type_name(owner);
  return Value::object(Kind::kUndefined, std::move(object));
}

std::vector<Value> Interpreter::collect(const Value& iterable) {
  std::vector<Value> items;
  if (iterable.is_sequence()) {
    meter_.step(iterable.items().size());
    return iterable.items();
  }
  Cursor cursor(iterable);
  Value item;
  while (cursor.next(*this, item)) {
    meter_.step();
    items.push_back(std::move(item));
  }
  return items;
}

std::string Interpreter::str(const Value& v) {
  return tmpl::str(meter_, v);
}

}  // namespace caravan::tmpl
