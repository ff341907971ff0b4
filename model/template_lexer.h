#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::tmpl {

enum class TokenKind : uint8_t {
  kText,  // outside of any tag
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  uint32_t line = 1;
  std::string
      text;  // of a string: what it means, escapes resolved; of a number: its digits without underscores
};

// The template's tokens, kEnd last, with white space removed where the tags ask for it and as the options
// that chat templates are written for do: one newline after a block goes (trim_blocks), as do blanks between
// a line's start and a block (lstrip_blocks), and the newline at the end of the text. `source` is valid
// UTF-8. Throws kMalformed naming the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace caravan::tmpl
