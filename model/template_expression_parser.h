#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/template_lexer.h"
#include "model/template_tree.h"

namespace caravan::tmpl {

// Reads expressions from tokens. The statements' parser is built on it; both throw as parse_template does.
class ExpressionParser {
 protected:
  // What the bodies of the macros around the current place mention.
  struct SpecialNames {
    bool caller = false;
    bool varargs = false;
    bool kwargs = false;
  };

  ExpressionParser(std::string_view source, Tree& tree);

  // Tokens.
  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool at_operator(std::string_view op) const { return is_operator(current(), op); }
  bool at_name(std::string_view name) const { return is_name(current(), name); }
  bool at(TokenKind kind) const { return current().kind == kind; }
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  Token expect(TokenKind kind, std::string_view what);
  void expect_operator(std::string_view op);
  static bool is_operator(const Token& t, std::string_view op) {
    return t.kind == TokenKind::kOperator && t.text == op;
  }
  static bool is_name(const Token& t, std::string_view name) {
    return t.kind == TokenKind::kName && t.text == name;
  }
  static std::string describe(const Token& t);
  template <class... Args>
  [[noreturn]] void refuse(uint32_t line, fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kMalformed, "line {}: {}", line, fmt::format(format, std::forward<Args>(args)...));
  }

  // Expressions.
  ExpressionPtr parse_expression(bool with_conditional = true);
  // One expression, or a tuple of several.
  ExpressionPtr parse_tuple(bool with_conditional, bool in_parentheses = false);
  // Filters behind `input` (null in front of a block); with `inline_start` the first has no bar.
  ExpressionPtr parse_filters(ExpressionPtr input, bool inline_start = false);
  Target parse_target(bool with_attributes);
  Target parse_name_target();
  uint32_t symbol(std::string_view name);

  // Counts nesting while it lives.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    ExpressionParser& parser_;
  };

  Tree& tree_;
  std::vector<SpecialNames> macros_;
  // Within a condition's branches an unknown filter or test is an error only when it runs; elsewhere it is
  // one at once.
  bool conditional_ = false;
  std::vector<std::pair<uint32_t, std::string>> unknown_;  // line, complaint

 private:
  ExpressionPtr make(Expression::Kind kind, uint32_t line) const;
  ExpressionPtr add_child(ExpressionPtr parent, ExpressionPtr child) const;
  ExpressionPtr binary(Operator op, ExpressionPtr left, ExpressionPtr right, uint32_t line) const;

  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters = true);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_number(const Token& token);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr object);
  ExpressionPtr parse_subscript_argument(ExpressionPtr& object, bool& is_slice);
  ExpressionPtr parse_test(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr callee);
  void parse_arguments(Expression& call);
  bool at_tuple_end() const;
  std::string parse_dotted_name();
  bool at_test_argument() const;
  Target parse_single_target(bool with_attributes);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  uint32_t nesting_ = 0;
  std::map<std::string, uint32_t, std::less<>> symbols_;
};

}  // namespace caravan::tmpl
