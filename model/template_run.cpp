#include <algorithm>

#include "model/template_eval.h"
#include "model/template_methods.h"
#include "model/template_print.h"

// The interpreter's statements: scopes, assignments, branches, macros. Loops are in template_loop.cpp.
namespace caravan::tmpl {

using Tag = Statement::Kind;

// Sends what is written to a text of its own while it lives.
class Interpreter::Output {
 public:
  explicit Output(Interpreter& interpreter) : interpreter_(interpreter), outer_(interpreter.output_) {
    interpreter.output_ = &bytes_;
  }
  ~Output() { interpreter_.output_ = outer_; }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  std::string take() { return std::move(bytes_); }

 private:
  Interpreter& interpreter_;
  std::string* outer_;
  std::string bytes_;
};

Interpreter::Interpreter(const Tree& tree, Meter& meter, int64_t now_unix_seconds)
    : tree_(tree), meter_(meter), now_unix_seconds_(now_unix_seconds), root_(tree.symbols.size()) {}

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : kept_scopes_) scope->variables.clear();
  for (const auto& space : namespaces_) space->attributes.clear();
}

std::string Interpreter::run(const Dict& input) {
  for (size_t i = 0; i < root_.size(); ++i) {
    const Value* value = input.find(tree_.symbols[i]);
    root_[i] = value ? *value : find_global(*this, tree_.symbols[i]);
  }
  if (!tree_.blocks.empty()) {
    std::vector<std::pair<std::string, Value>> blocks;
    for (const Statement* block : tree_.blocks) blocks.emplace_back(block->name, make_macro(*block, nullptr));
    root_[tree_.self] = make_namespace(std::move(blocks));
  }
  Output output(*this);
  run_body(tree_.body, nullptr);
  return output.take();
}

void Interpreter::write(std::string_view bytes) {
  meter_.fits(output_->size() + bytes.size());
  meter_.step(bytes.size() / 512);
  *output_ += bytes;
}

const Value& Interpreter::lookup(uint32_t symbol, const ScopePtr& scope) const {
  for (const Scope* s = scope.get(); s; s = s->parent.get())
    for (const auto& [name, value] : s->variables)
      if (name == symbol && !value.is_missing()) return value;
  return root_[symbol];
}

void Interpreter::bind(uint32_t symbol, const ScopePtr& scope, Value value) {
  if (!scope) {
    root_[symbol] = std::move(value);
    return;
  }
  for (auto& [name, old] : scope->variables) {
    if (name != symbol) continue;
    old = std::move(value);
    return;
  }
  scope->variables.emplace_back(symbol, std::move(value));
}

void Interpreter::assign(const Target& target, const ScopePtr& scope, const Value& value) {
  switch (target.kind) {
    case Target::Kind::kName:
      bind(target.symbol, scope, value);
      return;
    case Target::Kind::kAttribute: {
      const Value space = lookup(target.symbol, scope);
      if (!space.is(Kind::kNamespace)) raise("cannot assign attribute on non-namespace object");
      Namespace& attributes = space.as<Namespace>();
      if (Value* old = attributes.find(target.attribute)) {
        *old = value;
      } else {
        meter_.take(64);  // given back with the namespace
        attributes.charged_bytes += 64;
        attributes.attributes.emplace_back(target.attribute, value);
      }
      return;
    }
    case Target::Kind::kTuple:
      break;
  }
  const std::vector<Value> items = collect(value);
  if (items.size() != target.items.size())
    raise("{} values to unpack (expected {}, got {})",
          items.size() < target.items.size() ? "not enough" : "too many", target.items.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i) assign(target.items[i], scope, items[i]);
}

ScopePtr Interpreter::inner(const ScopePtr& scope) const {
  auto made = std::make_shared<Scope>();
  made->parent = scope;
  return made;
}

void Interpreter::keep(const ScopePtr& scope) {
  if (!scope || (!kept_scopes_.empty() && kept_scopes_.back() == scope)) return;
  meter_.take(256);  // until the end
  kept_scopes_.push_back(scope);
}

Interpreter::Flow Interpreter::run_body(const Body& body, const ScopePtr& scope) {
  for (const StatementPtr& statement : body) {
    const Flow flow = run_statement(*statement, scope);
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_statement(const Statement& s, const ScopePtr& scope) {
  const Depth depth(depth_, limits::kMaxTemplateTreeDepth);
  meter_.step();
  line_ = s.line;
  switch (s.kind) {
    case Tag::kOutput:
      run_output(s, scope);
      return Flow::kOn;
    case Tag::kFor:
      return run_loop(s, scope);
    case Tag::kIf:
      return run_if(s, scope);
    case Tag::kSet:
      assign(s.target, scope, evaluate(*s.expressions[0], scope));
      return Flow::kOn;
    case Tag::kSetBlock:
      return run_set_block(s, scope);
    case Tag::kMacro:
      keep(scope);
      bind(s.symbol, scope, make_macro(s, scope));
      return Flow::kOn;
    case Tag::kCall:
      run_call(s, scope);
      return Flow::kOn;
    case Tag::kFilterBlock:
      return run_filter_block(s, scope);
    case Tag::kWith:
      return run_with(s, scope);
    case Tag::kBlock:
      run_body(s.body, inner(s.scoped ? scope : nullptr));
      return Flow::kOn;
    case Tag::kScope:
      return run_body(s.body, inner(scope));
    case Tag::kAutoEscape:
      if (truth(evaluate(*s.expressions[0], scope)))
        fail(ErrorCode::kUnsupported, "autoescape is not supported");
      return run_body(s.body, inner(scope));
    case Tag::kBreak:
      return Flow::kBreak;
    case Tag::kContinue:
      return Flow::kContinue;
    case Tag::kRefused:
      fail(ErrorCode::kUnsupported, "'{}' needs another template, and there is none", s.name);
  }
  return Flow::kOn;
}

void Interpreter::run_output(const Statement& s, const ScopePtr& scope) {
  for (const ExpressionPtr& expression : s.expressions) {
    const Value value = evaluate(*expression, scope);
    if (value.is_string())
      write(value.text());
    else
      append_str(meter_, *output_, value);
  }
}

Interpreter::Flow Interpreter::run_if(const Statement& s, const ScopePtr& scope) {
  for (size_t i = 0; i < s.expressions.size(); ++i)
    if (truth(evaluate(*s.expressions[i], scope))) return run_body(s.branches[i], scope);
  if (s.branches.size() > s.expressions.size()) return run_body(s.branches.back(), scope);
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_set_block(const Statement& s, const ScopePtr& scope) {
  const ScopePtr body = inner(scope);
  Value value;
  {
    Output output(*this);
    const Flow flow = run_body(s.body, body);
    if (flow != Flow::kOn) return flow;
    value = text(output.take());
  }
  if (!s.expressions.empty()) value = evaluate_filter(*s.expressions[0], body, &value);
  assign(s.target, scope, value);
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_with(const Statement& s, const ScopePtr& scope) {
  const ScopePtr body = inner(scope);
  for (size_t i = 0; i < s.targets.size(); ++i)
    assign(s.targets[i], body, evaluate(*s.expressions[i], scope));
  return run_body(s.body, body);
}

Interpreter::Flow Interpreter::run_filter_block(const Statement& s, const ScopePtr& scope) {
  const ScopePtr body = inner(scope);
  Value value;
  {
    Output output(*this);
    const Flow flow = run_body(s.body, body);
    if (flow != Flow::kOn) return flow;
    value = text(output.take());
  }
  append_str(meter_, *output_, evaluate_filter(*s.expressions[0], body, &value));
  return Flow::kOn;
}

void Interpreter::run_call(const Statement& s, const ScopePtr& scope) {
  const Value caller = make_macro(s, scope);
  append_str(meter_, *output_, evaluate_call(*s.expressions[0], scope, &caller));
  if (caller.shared().use_count() > 1) keep(scope);
}

Value Interpreter::make_macro(const Statement& s, const ScopePtr& scope) {
  auto macro = make<Macro>();
  macro->statement = &s;
  macro->scope = scope;
  return Value::object(Kind::kMacro, std::move(macro));
}

Value Interpreter::call_macro(const Macro& macro, Arguments arguments) {
  const Depth depth(calls_, limits::kMaxTemplateDepth);
  const uint32_t line = line_;
  const ScopePtr scope = inner(macro.scope);
  bind_parameters(*macro.statement, scope, arguments);
  Output output(*this);
  run_body(macro.statement->body, scope);
  line_ = line;
  return text(output.take());
}

// Values that the call gives are bound before any default is worked out, so that a default can use them.
void Interpreter::bind_parameters(const Statement& s, const ScopePtr& scope, Arguments& arguments) {
  std::vector<const Parameter*> absent;
  for (size_t i = 0; i < s.parameters.size(); ++i) {
    const Parameter& parameter = s.parameters[i];
    if (i < arguments.positional.size()) {
      bind(parameter.symbol, scope, std::move(arguments.positional[i]));
      continue;
    }
    const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&](const auto& entry) { return entry.first == parameter.name; });
    if (named != arguments.named.end()) {
      bind(parameter.symbol, scope, std::move(named->second));
      arguments.named.erase(named);
    } else {
      bind(parameter.symbol, scope, undefined("parameter '" + parameter.name + "' was not provided"));
      if (parameter.default_value) absent.push_back(&parameter);
    }
  }
  bind_special(s, scope, arguments);
  for (const Parameter* parameter : absent)
    bind(parameter->symbol, scope, evaluate(*parameter->default_value, scope));
}

void Interpreter::bind_special(const Statement& s, const ScopePtr& scope, Arguments& arguments) {
  const std::string name = s.name.empty() ? "caller" : s.name;
  if (s.uses_caller) {
    const auto caller = std::find_if(arguments.named.begin(), arguments.named.end(),
                                     [](const auto& entry) { return entry.first == "caller"; });
    if (caller == arguments.named.end()) {
      bind(tree_.caller, scope, undefined("no caller is defined"));
    } else {
      bind(tree_.caller, scope, std::move(caller->second));
      arguments.named.erase(caller);
    }
  }
  if (s.uses_kwargs) {
    auto rest = std::make_shared<Dict>();
    for (auto& [key, value] : arguments.named) rest->set(text(std::move(key)), std::move(value));
    bind(tree_.kwargs, scope, dict(std::move(rest)));
  } else if (!arguments.named.empty()) {
    raise("macro '{}' takes no keyword argument '{}'", name, arguments.named.front().first);
  }
  const auto positional = static_cast<int64_t>(std::min(s.parameters.size(), arguments.positional.size()));
  std::vector<Value> rest(arguments.positional.begin() + positional, arguments.positional.end());
  if (s.uses_varargs)
    bind(tree_.varargs, scope, tuple(std::move(rest)));
  else if (!rest.empty())
    raise("macro '{}' takes not more than {} argument(s)", name, s.parameters.size());
}

Value Interpreter::recurse(const Loop& loop, const Value& items) {
  if (!loop.statement->recursive) raise("the loop must have the 'recursive' marker to be called recursively");
  const Depth depth(calls_, limits::kMaxTemplateDepth);
  const Statement& statement = *loop.statement;
  const ScopePtr scope = loop.scope;
  Output output(*this);
  run_for(statement, scope, items, loop.level + 1);
  return text(output.take());
}

}  // namespace caravan::tmpl
