#include "model/template_expression_parser.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "model/template_filters.h"

namespace caravan::tmpl {

using Node = Expression::Kind;

ExpressionParser::ExpressionParser(std::string_view source, Tree& tree)
    : tree_(tree), tokens_(tokenize(source)) {
  tree_.loop = symbol("loop");
  tree_.caller = symbol("caller");
  tree_.varargs = symbol("varargs");
  tree_.kwargs = symbol("kwargs");
  tree_.self = symbol("self");
  tree_.super = symbol("super");
}

ExpressionParser::Nesting::Nesting(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.nesting_ > limits::kMaxTemplateDepth) {
    --parser_.nesting_;
    fail(ErrorCode::kLimit, "line {}: nested deeper than {}", parser_.current().line,
         limits::kMaxTemplateDepth);
  }
}

Token ExpressionParser::next() {
  Token token = current();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!at_operator(op)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}

Token ExpressionParser::expect(TokenKind kind, std::string_view what) {
  if (!at(kind)) refuse(current().line, "expected {}, got {}", what, describe(current()));
  return next();
}

void ExpressionParser::expect_operator(std::string_view op) {
  if (!at_operator(op)) refuse(current().line, "expected '{}', got {}", op, describe(current()));
  next();
}

std::string ExpressionParser::describe(const Token& t) {
  switch (t.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kBlockBegin:
      return "the begin of a statement";
    case TokenKind::kBlockEnd:
      return "the end of the statement";
    case TokenKind::kVariableBegin:
      return "the begin of an expression";
    case TokenKind::kVariableEnd:
      return "the end of the expression";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return fmt::format("'{}'", t.text);
  }
}

uint32_t ExpressionParser::symbol(std::string_view name) {
  const auto known = symbols_.find(name);
  if (known != symbols_.end()) return known->second;
  const auto id = static_cast<uint32_t>(tree_.symbols.size());
  tree_.symbols.emplace_back(name);
  symbols_.emplace(name, id);
  return id;
}

ExpressionPtr ExpressionParser::make(Node kind, uint32_t line) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExpressionPtr ExpressionParser::add_child(ExpressionPtr parent, ExpressionPtr child) const {
  if (child) {
    parent->depth = std::max(parent->depth, child->depth + 1);
    if (parent->depth > limits::kMaxTemplateTreeDepth)
      fail(ErrorCode::kLimit, "line {}: an expression of more than {} steps", parent->line,
           limits::kMaxTemplateTreeDepth);
  }
  parent->children.push_back(std::move(child));
  return parent;
}

ExpressionPtr ExpressionParser::binary(Operator op, ExpressionPtr left, ExpressionPtr right,
                                       uint32_t line) const {
  ExpressionPtr node = make(Node::kBinary, line);
  node->operators.push_back(op);
  return add_child(add_child(std::move(node), std::move(left)), std::move(right));
}

ExpressionPtr ExpressionParser::parse_expression(bool with_conditional) {
  return with_conditional ? parse_conditional() : parse_or();
}

ExpressionPtr ExpressionParser::parse_conditional() {
  const Nesting nesting(*this);
  const size_t unknown = unknown_.size();
  const uint32_t line = current().line;
  ExpressionPtr value = parse_or();
  while (skip_name("if")) {
    ExpressionPtr node = add_child(make(Node::kConditional, line), parse_or());
    node = add_child(std::move(node), std::move(value));
    value = add_child(std::move(node), skip_name("else") ? parse_conditional() : nullptr);
    unknown_.resize(unknown);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_or() {
  ExpressionPtr left = parse_and();
  while (at_name("or")) {
    const uint32_t line = next().line;
    left = add_child(add_child(make(Node::kOr, line), std::move(left)), parse_and());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_and() {
  ExpressionPtr left = parse_not();
  while (at_name("and")) {
    const uint32_t line = next().line;
    left = add_child(add_child(make(Node::kAnd, line), std::move(left)), parse_not());
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const uint32_t line = next().line;
  return add_child(make(Node::kNot, line), parse_not());
}

ExpressionPtr ExpressionParser::parse_compare() {
  static constexpr std::array<std::pair<std::string_view, Operator>, 6> kOperators = {
      {{"==", Operator::kEqual},
       {"!=", Operator::kNotEqual},
       {"<", Operator::kLess},
       {"<=", Operator::kLessEqual},
       {">", Operator::kGreater},
       {">=", Operator::kGreaterEqual}}};
  const uint32_t line = current().line;
  ExpressionPtr first = parse_sum();
  ExpressionPtr node;
  while (true) {
    const auto known = std::find_if(kOperators.begin(), kOperators.end(),
                                    [&](const auto& entry) { return at_operator(entry.first); });
    Operator op;
    if (known != kOperators.end()) {
      op = known->second;
      next();
    } else if (skip_name("in")) {
      op = Operator::kIn;
    } else if (at_name("not") && is_name(ahead(), "in")) {
      next();
      next();
      op = Operator::kNotIn;
    } else {
      return node ? std::move(node) : std::move(first);
    }
    if (!node) node = add_child(make(Node::kCompare, line), std::move(first));
    node->operators.push_back(op);
    node = add_child(std::move(node), parse_sum());
  }
}

ExpressionPtr ExpressionParser::parse_sum() {
  ExpressionPtr left = parse_concatenation();
  while (at_operator("+") || at_operator("-")) {
    const Token token = next();
    const Operator op = token.text == "+" ? Operator::kAdd : Operator::kSubtract;
    left = binary(op, std::move(left), parse_concatenation(), token.line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  ExpressionPtr first = parse_product();
  if (!at_operator("~")) return first;
  ExpressionPtr node = add_child(make(Node::kConcatenate, current().line), std::move(first));
  while (skip_operator("~")) node = add_child(std::move(node), parse_product());
  return node;
}

ExpressionPtr ExpressionParser::parse_product() {
  ExpressionPtr left = parse_power();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    const Token token = next();
    const Operator op = token.text == "*"    ? Operator::kMultiply
                        : token.text == "/"  ? Operator::kDivide
                        : token.text == "//" ? Operator::kFloorDivide
                                             : Operator::kModulo;
    left = binary(op, std::move(left), parse_power(), token.line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_power() {
  ExpressionPtr left = parse_unary();
  while (at_operator("**")) {
    const uint32_t line = next().line;
    left = binary(Operator::kPower, std::move(left), parse_unary(), line);
  }
  return left;
}

ExpressionPtr ExpressionParser::parse_unary(bool with_filters) {
  ExpressionPtr node;
  if (at_operator("-") || at_operator("+")) {
    const Nesting nesting(*this);
    const Token token = next();
    const Node kind = token.text == "-" ? Node::kNegate : Node::kPositive;
    node = add_child(make(kind, token.line), parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::parse_primary() {
  const Token& token = current();
  switch (token.kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString: {
      ExpressionPtr node = make(Node::kConstant, token.line);
      std::string text;
      while (at(TokenKind::kString)) text += next().text;
      node->constant = Value::constant(std::move(text));
      return node;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return parse_number(next());
    case TokenKind::kOperator:
      break;
    default:
      refuse(token.line, "expected an expression, got {}", describe(token));
  }
  const Nesting nesting(*this);
  if (token.text == "[") return parse_list();
  if (token.text == "{") return parse_dict();
  if (token.text != "(") refuse(token.line, "expected an expression, got {}", describe(token));
  next();
  ExpressionPtr node = parse_tuple(true, true);
  expect_operator(")");
  return node;
}

ExpressionPtr ExpressionParser::parse_name() {
  const Token token = next();
  ExpressionPtr node = make(Node::kConstant, token.line);
  const std::string& name = token.text;
  if (name == "true" || name == "True") {
    node->constant = Value::boolean(true);
  } else if (name == "false" || name == "False") {
    node->constant = Value::boolean(false);
  } else if (name == "none" || name == "None") {
    node->constant = Value::none();
  } else {
    node->kind = Node::kName;
    node->name = name;
    node->symbol = symbol(name);
    for (SpecialNames& macro : macros_) {
      macro.caller |= node->symbol == tree_.caller;
      macro.varargs |= node->symbol == tree_.varargs;
      macro.kwargs |= node->symbol == tree_.kwargs;
    }
  }
  return node;
}

ExpressionPtr ExpressionParser::parse_number(const Token& token) {
  ExpressionPtr node = make(Node::kConstant, token.line);
  const std::string& digits = token.text;
  if (token.kind == TokenKind::kFloat) {
    node->constant = Value::real(std::strtod(digits.c_str(), nullptr));
    return node;
  }
  const char prefix = digits.size() > 1 ? static_cast<char>(digits[1] | 0x20) : ' ';
  const int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
  const char* begin = digits.data() + (base == 10 ? 0 : 2);
  int64_t value = 0;
  const auto result = std::from_chars(begin, digits.data() + digits.size(), value, base);
  if (result.ec != std::errc())
    fail(ErrorCode::kUnsupported, "line {}: the number {} has more than 64 bits", token.line, digits);
  node->constant = Value::integer(value);
  return node;
}

ExpressionPtr ExpressionParser::parse_list() {
  ExpressionPtr node = make(Node::kList, next().line);
  while (!at_operator("]")) {
    if (!node->children.empty()) expect_operator(",");
    if (at_operator("]")) break;
    node = add_child(std::move(node), parse_expression());
  }
  next();
  return node;
}

ExpressionPtr ExpressionParser::parse_dict() {
  ExpressionPtr node = make(Node::kDict, next().line);
  while (!at_operator("}")) {
    if (!node->children.empty()) expect_operator(",");
    if (at_operator("}")) break;
    node = add_child(std::move(node), parse_expression());
    expect_operator(":");
    node = add_child(std::move(node), parse_expression());
  }
  next();
  return node;
}

bool ExpressionParser::at_tuple_end() const {
  return at(TokenKind::kVariableEnd) || at(TokenKind::kBlockEnd) || at_operator(")");
}

ExpressionPtr ExpressionParser::parse_tuple(bool with_conditional, bool in_parentheses) {
  ExpressionPtr tuple = make(Node::kTuple, current().line);
  bool is_tuple = false;
  while (true) {
    if (!tuple->children.empty()) expect_operator(",");
    if (at_tuple_end()) break;
    tuple = add_child(std::move(tuple), parse_expression(with_conditional));
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return tuple;
  if (!tuple->children.empty()) return std::move(tuple->children.front());
  if (!in_parentheses) refuse(current().line, "expected an expression, got {}", describe(current()));
  return tuple;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr node) {
  while (true) {
    if (at_operator(".") || at_operator("["))
      node = parse_subscript(std::move(node));
    else if (at_operator("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

ExpressionPtr ExpressionParser::parse_filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (at_operator("|"))
      node = parse_filters(std::move(node));
    else if (at_name("is"))
      node = parse_test(std::move(node));
    else if (at_operator("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr object) {
  const Token token = next();
  if (token.text == ".") {
    const Token attribute = next();
    if (attribute.kind == TokenKind::kName) {
      ExpressionPtr node = add_child(make(Node::kAttribute, token.line), std::move(object));
      node->name = attribute.text;
      return node;
    }
    if (attribute.kind != TokenKind::kInteger)
      refuse(attribute.line, "expected a name or number behind a dot");
    ExpressionPtr node = add_child(make(Node::kItem, token.line), std::move(object));
    return add_child(std::move(node), parse_number(attribute));
  }
  std::vector<ExpressionPtr> arguments;
  bool is_slice = false;
  while (!at_operator("]")) {
    if (!arguments.empty()) expect_operator(",");
    arguments.push_back(parse_subscript_argument(object, is_slice));
  }
  next();
  if (is_slice && arguments.size() > 1)
    fail(ErrorCode::kUnsupported, "line {}: slices of several dimensions are not supported", token.line);
  if (is_slice) return std::move(arguments.front());
  ExpressionPtr node = add_child(make(Node::kItem, token.line), std::move(object));
  if (arguments.size() == 1) return add_child(std::move(node), std::move(arguments.front()));
  ExpressionPtr tuple = make(Node::kTuple, token.line);
  for (ExpressionPtr& argument : arguments) tuple = add_child(std::move(tuple), std::move(argument));
  return add_child(std::move(node), std::move(tuple));
}

// A slice takes `object` along; anything else leaves it to the caller.
ExpressionPtr ExpressionParser::parse_subscript_argument(ExpressionPtr& object, bool& is_slice) {
  const uint32_t line = current().line;
  ExpressionPtr start;
  if (!at_operator(":")) {
    start = parse_expression();
    if (!at_operator(":")) return start;
  }
  next();
  const auto bound = [&]() -> ExpressionPtr {
    return at_operator("]") || at_operator(",") || at_operator(":") ? nullptr : parse_expression();
  };
  ExpressionPtr stop = bound();
  ExpressionPtr step = skip_operator(":") ? bound() : nullptr;
  is_slice = true;
  ExpressionPtr node = add_child(make(Node::kSlice, line), std::move(object));
  for (ExpressionPtr* part : {&start, &stop, &step}) node = add_child(std::move(node), std::move(*part));
  return node;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr callee) {
  ExpressionPtr node = add_child(make(Node::kCall, current().line), std::move(callee));
  parse_arguments(*node);
  return node;
}

void ExpressionParser::parse_arguments(Expression& call) {
  expect_operator("(");
  const uint32_t line = call.line;
  const auto grow = [&](const ExpressionPtr& child) {
    call.depth = std::max(call.depth, child->depth + 1);
    if (call.depth > limits::kMaxTemplateTreeDepth) fail(ErrorCode::kLimit, "line {}: nested too deep", line);
  };
  const auto ensure = [&](bool ok) {
    if (!ok) refuse(line, "arguments in an order that a call cannot have");
  };
  for (bool first = true; !at_operator(")"); first = false) {
    if (!first) {
      expect_operator(",");
      if (at_operator(")")) break;
    }
    if (skip_operator("*")) {
      ensure(!call.spread && !call.named_spread);
      grow(call.spread = parse_expression());
    } else if (skip_operator("**")) {
      ensure(!call.named_spread);
      grow(call.named_spread = parse_expression());
    } else if (at(TokenKind::kName) && is_operator(ahead(), "=")) {
      ensure(!call.named_spread);
      std::string name = next().text;
      next();
      call.named.emplace_back(std::move(name), parse_expression());
      grow(call.named.back().second);
    } else {
      ensure(!call.spread && !call.named_spread && call.named.empty());
      call.children.push_back(parse_expression());
      grow(call.children.back());
    }
  }
  next();
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = expect(TokenKind::kName, "a name").text;
  while (skip_operator(".")) name += "." + expect(TokenKind::kName, "a name").text;
  return name;
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr input, bool inline_start) {
  while (inline_start || at_operator("|")) {
    if (!inline_start) next();
    inline_start = false;
    const uint32_t line = current().line;
    ExpressionPtr node = add_child(make(Node::kFilter, line), std::move(input));
    node->name = parse_dotted_name();
    node->function = find_filter(node->name);
    if (!node->function && !conditional_) unknown_.emplace_back(line, "no filter named '" + node->name + "'");
    if (at_operator("(")) parse_arguments(*node);
    input = std::move(node);
  }
  return input;
}

bool ExpressionParser::at_test_argument() const {
  switch (current().kind) {
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    case TokenKind::kName:
      return !at_name("else") && !at_name("or") && !at_name("and");
    default:
      return at_operator("[") || at_operator("{");
  }
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr value) {
  const uint32_t line = next().line;
  const bool negated = skip_name("not");
  ExpressionPtr node = add_child(make(Node::kTest, line), std::move(value));
  node->name = parse_dotted_name();
  node->function = find_test(node->name);
  if (!node->function && !conditional_) unknown_.emplace_back(line, "no test named '" + node->name + "'");
  if (at_operator("(")) {
    parse_arguments(*node);
  } else if (at_test_argument()) {
    if (at_name("is")) refuse(line, "tests cannot be chained with 'is'");
    ExpressionPtr argument = parse_primary();
    node = add_child(std::move(node), parse_postfix(std::move(argument)));
  }
  return negated ? add_child(make(Node::kNot, line), std::move(node)) : std::move(node);
}

Target ExpressionParser::parse_name_target() {
  const Token token = expect(TokenKind::kName, "a name");
  for (std::string_view reserved : {"true", "false", "none", "True", "False", "None"})
    if (token.text == reserved) refuse(token.line, "cannot assign to '{}'", token.text);
  Target target;
  target.line = token.line;
  target.symbol = symbol(token.text);
  return target;
}

Target ExpressionParser::parse_single_target(bool with_attributes) {
  const Nesting nesting(*this);
  if (skip_operator("(")) {
    Target inner = parse_target(false);
    expect_operator(")");
    return inner;
  }
  if (!at(TokenKind::kName)) refuse(current().line, "cannot assign to {}", describe(current()));
  Target target = parse_name_target();
  if (with_attributes && skip_operator(".")) {
    target.kind = Target::Kind::kAttribute;
    target.attribute = expect(TokenKind::kName, "an attribute").text;
  }
  return target;
}

Target ExpressionParser::parse_target(bool with_attributes) {
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  tuple.line = current().line;
  bool is_tuple = false;
  while (true) {
    if (!tuple.items.empty()) expect_operator(",");
    if (at_tuple_end()) break;
    tuple.items.push_back(parse_single_target(with_attributes));
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return tuple;
  if (tuple.items.empty()) refuse(tuple.line, "expected a name to assign to, got {}", describe(current()));
  Target only = std::move(tuple.items.front());
  return only;
}

}  // namespace caravan::tmpl
