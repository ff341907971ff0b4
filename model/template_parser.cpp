#include "model/template_parser.h"

#include <array>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>

#include "model/template_expression_parser.h"

namespace caravan::tmpl {
namespace {

using Tag = Statement::Kind;

class StatementParser : public ExpressionParser {
 public:
  StatementParser(std::string_view source, Tree& tree) : ExpressionParser(source, tree) {}

  void parse() {
    tree_.body = parse_body({});
    if (!unknown_.empty()) refuse(unknown_.front().first, "{}", unknown_.front().second);
  }

 private:
  // What changes where a body begins that runs on its own: a macro, a block, a call.
  class Function {
   public:
    explicit Function(StatementParser& parser)
        : parser_(parser),
          loops_(std::exchange(parser.loops_, 0)),
          conditional_(std::exchange(parser.conditional_, false)) {}
    ~Function() {
      parser_.loops_ = loops_;
      parser_.conditional_ = conditional_;
    }
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;

   private:
    StatementParser& parser_;
    const uint32_t loops_;
    const bool conditional_;
  };

  StatementPtr make(Tag kind, uint32_t line) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line;
    return statement;
  }

  // Statements up to one of the names in `ends`, which stays the current token; without ends, up to the end.
  Body parse_body(std::initializer_list<std::string_view> ends) {
    Body body;
    while (!at(TokenKind::kEnd)) {
      if (at(TokenKind::kBlockBegin)) {
        next();
        for (std::string_view end : ends)
          if (at_name(end)) return body;
        body.push_back(parse_statement());
        expect(TokenKind::kBlockEnd, "the end of the statement");
      } else {
        add_output(body);
      }
    }
    if (ends.size() > 0)
      refuse(current().line, "the template ends where '{}' is expected", *(ends.end() - 1));
    return body;
  }

  void add_output(Body& body) {
    const Token token = next();
    if (body.empty() || body.back()->kind != Tag::kOutput) body.push_back(make(Tag::kOutput, token.line));
    if (token.kind == TokenKind::kText) {
      auto text = std::make_unique<Expression>();
      text->line = token.line;
      text->constant = Value::constant(token.text);
      body.back()->expressions.push_back(std::move(text));
    } else if (token.kind == TokenKind::kVariableBegin) {
      body.back()->expressions.push_back(parse_tuple(true));
      expect(TokenKind::kVariableEnd, "the end of the expression");
    } else {
      refuse(token.line, "unexpected {}", describe(token));
    }
  }

  // A tag's end and the statements behind it, up to `ends`.
  Body parse_inner(std::initializer_list<std::string_view> ends) {
    skip_operator(":");
    expect(TokenKind::kBlockEnd, "the end of the statement");
    return parse_body(ends);
  }

  Body parse_until(std::string_view end) {
    Body body = parse_inner({end});
    next();
    return body;
  }

  StatementPtr parse_statement() {
    using Parse = StatementPtr (StatementParser::*)();
    static constexpr std::array<std::pair<std::string_view, Parse>, 17> kParsers = {
        {{"for", &StatementParser::parse_for},
         {"if", &StatementParser::parse_if},
         {"set", &StatementParser::parse_set},
         {"macro", &StatementParser::parse_macro},
         {"call", &StatementParser::parse_call_block},
         {"filter", &StatementParser::parse_filter_block},
         {"with", &StatementParser::parse_with},
         {"block", &StatementParser::parse_block},
         {"print", &StatementParser::parse_print},
         {"generation", &StatementParser::parse_generation},
         {"autoescape", &StatementParser::parse_autoescape},
         {"break", &StatementParser::parse_break},
         {"continue", &StatementParser::parse_break},
         {"extends", &StatementParser::parse_other_template},
         {"include", &StatementParser::parse_other_template},
         {"import", &StatementParser::parse_other_template},
         {"from", &StatementParser::parse_other_template}}};
    const Nesting nesting(*this);
    const Token& token = current();
    if (token.kind != TokenKind::kName) refuse(token.line, "expected a tag, got {}", describe(token));
    for (const auto& [name, parse] : kParsers)
      if (token.text == name) return (this->*parse)();
    refuse(token.line, "unknown tag '{}'", token.text);
  }

  StatementPtr parse_for() {
    StatementPtr loop = make(Tag::kFor, next().line);
    if (++fors_ == 1) sets_loop_ = false;
    loop->target = parse_target(false);
    note_target(loop->target);
    if (!skip_name("in")) refuse(current().line, "expected 'in', got {}", describe(current()));
    loop->expressions.push_back(parse_tuple(false));
    const bool conditional = std::exchange(conditional_, false);
    if (skip_name("if")) loop->condition = parse_expression();
    loop->recursive = skip_name("recursive");
    ++loops_;
    loop->body = parse_inner({"endfor", "else"});
    --loops_;
    if (next().text == "else") loop->other = parse_until("endfor");
    conditional_ = conditional;
    if (--fors_ == 0 && sets_loop_) refuse(loop->line, "cannot assign to 'loop' within a loop");
    return loop;
  }

  StatementPtr parse_if() {
    StatementPtr statement = make(Tag::kIf, next().line);
    const bool conditional = std::exchange(conditional_, true);
    std::string tag;
    do {
      statement->expressions.push_back(parse_tuple(false));
      statement->branches.push_back(parse_inner({"elif", "else", "endif"}));
      tag = next().text;
    } while (tag == "elif");
    if (tag == "else") statement->branches.push_back(parse_until("endif"));
    conditional_ = conditional;
    return statement;
  }

  StatementPtr parse_set() {
    const uint32_t line = next().line;
    Target target = parse_target(true);
    note_target(target);
    StatementPtr statement = make(Tag::kSet, line);
    statement->target = std::move(target);
    if (skip_operator("=")) {
      statement->expressions.push_back(parse_tuple(true));
      return statement;
    }
    statement->kind = Tag::kSetBlock;
    const bool conditional = std::exchange(conditional_, false);
    if (ExpressionPtr filters = parse_filters(nullptr)) statement->expressions.push_back(std::move(filters));
    statement->body = parse_until("endset");
    conditional_ = conditional;
    return statement;
  }

  void note_target(const Target& target) {
    sets_loop_ |= fors_ > 0 && target.kind == Target::Kind::kName && target.symbol == tree_.loop;
    for (const Target& item : target.items) note_target(item);
  }

  void parse_parameters(Statement& statement) {
    expect_operator("(");
    while (!at_operator(")")) {
      if (!statement.parameters.empty()) expect_operator(",");
      Parameter parameter;
      parameter.name = current().text;
      parameter.symbol = parse_name_target().symbol;
      for (const Parameter& other : statement.parameters)
        if (other.symbol == parameter.symbol) refuse(statement.line, "two parameters named '{}'", other.name);
      if (skip_operator("="))
        parameter.default_value = parse_expression();
      else if (!statement.parameters.empty() && statement.parameters.back().default_value)
        refuse(current().line, "a parameter without a default behind one with a default");
      statement.parameters.push_back(std::move(parameter));
    }
    next();
  }

  // The body of a macro or call, with note of the special names that it uses.
  void parse_function_body(Statement& statement, std::string_view end) {
    macros_.emplace_back();
    statement.body = parse_until(end);
    const SpecialNames names = macros_.back();
    macros_.pop_back();
    statement.uses_caller = names.caller;
    statement.uses_varargs = names.varargs;
    statement.uses_kwargs = names.kwargs;
    for (const Parameter& parameter : statement.parameters) {
      if (parameter.symbol == tree_.varargs) statement.uses_varargs = false;
      if (parameter.symbol == tree_.kwargs) statement.uses_kwargs = false;
      if (parameter.symbol != tree_.caller) continue;
      if (names.caller && !parameter.default_value)
        refuse(statement.line, "the parameter 'caller' must be left out or have a default");
      statement.uses_caller = false;
    }
  }

  StatementPtr parse_macro() {
    StatementPtr macro = make(Tag::kMacro, next().line);
    macro->name = current().text;
    macro->symbol = parse_name_target().symbol;
    const Function function(*this);
    parse_parameters(*macro);
    parse_function_body(*macro, "endmacro");
    return macro;
  }

  StatementPtr parse_call_block() {
    StatementPtr call = make(Tag::kCall, next().line);
    const bool conditional = conditional_;
    const Function function(*this);
    if (at_operator("(")) parse_parameters(*call);
    conditional_ = conditional;
    ExpressionPtr expression = parse_expression();
    if (expression->kind != Expression::Kind::kCall) refuse(call->line, "expected a call");
    call->expressions.push_back(std::move(expression));
    conditional_ = false;
    parse_function_body(*call, "endcall");
    return call;
  }

  StatementPtr parse_filter_block() {
    StatementPtr block = make(Tag::kFilterBlock, next().line);
    const bool conditional = std::exchange(conditional_, false);
    block->expressions.push_back(parse_filters(nullptr, true));
    block->body = parse_until("endfilter");
    conditional_ = conditional;
    return block;
  }

  StatementPtr parse_with() {
    StatementPtr with = make(Tag::kWith, next().line);
    while (!at(TokenKind::kBlockEnd)) {
      if (!with->targets.empty()) expect_operator(",");
      with->targets.push_back(parse_target(false));
      expect_operator("=");
      with->expressions.push_back(parse_expression());
    }
    const bool conditional = std::exchange(conditional_, false);
    with->body = parse_until("endwith");
    conditional_ = conditional;
    return with;
  }

  StatementPtr parse_block() {
    StatementPtr block = make(Tag::kBlock, next().line);
    block->name = expect(TokenKind::kName, "the block's name").text;
    block->scoped = skip_name("scoped");
    if (skip_name("required")) fail(ErrorCode::kUnsupported, "line {}: a required block", block->line);
    if (!blocks_.insert(block->name).second) refuse(block->line, "two blocks named '{}'", block->name);
    tree_.blocks.push_back(block.get());
    const Function function(*this);
    block->body = parse_until("endblock");
    skip_name(block->name);
    return block;
  }

  StatementPtr parse_print() {
    StatementPtr output = make(Tag::kOutput, next().line);
    while (!at(TokenKind::kBlockEnd)) {
      if (!output->expressions.empty()) expect_operator(",");
      output->expressions.push_back(parse_expression());
    }
    return output;
  }

  StatementPtr parse_generation() {
    StatementPtr scope = make(Tag::kScope, next().line);
    const Function function(*this);
    scope->body = parse_until("endgeneration");
    return scope;
  }

  StatementPtr parse_autoescape() {
    StatementPtr scope = make(Tag::kAutoEscape, next().line);
    scope->expressions.push_back(parse_expression());
    const bool conditional = std::exchange(conditional_, false);
    scope->body = parse_until("endautoescape");
    conditional_ = conditional;
    return scope;
  }

  StatementPtr parse_break() {
    const Token token = next();
    if (loops_ == 0) refuse(token.line, "'{}' outside of a loop", token.text);
    return make(token.text == "break" ? Tag::kBreak : Tag::kContinue, token.line);
  }

  // Whether such a tag ever runs is not known yet, so its refusal comes when it does.
  StatementPtr parse_other_template() {
    const Token token = next();
    StatementPtr statement = make(Tag::kRefused, token.line);
    statement->name = token.text;
    parse_expression();
    while (!at(TokenKind::kBlockEnd)) {
      if (at(TokenKind::kEnd)) refuse(token.line, "'{}' has no end", token.text);
      next();
    }
    return statement;
  }

  uint32_t loops_ = 0;  // whose body a `break` here would leave
  uint32_t fors_ = 0;   // that are open here, through functions too
  bool sets_loop_ = false;
  std::set<std::string> blocks_;
};

}  // namespace

Tree parse_template(std::string_view source) {
  if (source.size() > limits::kMaxTemplateBytes)
    fail(ErrorCode::kLimit, "a template of {} bytes, more than {}", source.size(), limits::kMaxTemplateBytes);
  if (!text::is_utf8(source)) fail(ErrorCode::kMalformed, "the template is not UTF-8");
  Tree tree;
  StatementParser(source, tree).parse();
  return tree;
}

}  // namespace caravan::tmpl
