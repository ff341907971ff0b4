#include "model/template_lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "model/template_text.h"

namespace caravan::tmpl {
namespace {

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  return out;
}

bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_digit_of(char c, int base) {
  if (base <= 10) return c >= '0' && c < '0' + base;
  return is_ascii_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Reads `(_?digit)*` and gives the offset after it.
size_t skip_digits(std::string_view s, size_t at, int base) {
  while (true) {
    const size_t digit = at < s.size() && s[at] == '_' ? at + 1 : at;
    if (digit >= s.size() || !is_digit_of(s[digit], base)) return at;
    at = digit + 1;
  }
}

// Reads `digit(_?digit)*`; npos if there is none.
size_t digits_end(std::string_view s, size_t at) {
  if (at >= s.size() || !is_ascii_digit(s[at])) return std::string_view::npos;
  return skip_digits(s, at + 1, 10);
}

// The end of a float literal at `at`, which has a fraction, an exponent or both; npos if it is none.
size_t float_end(std::string_view s, size_t at) {
  if (at > 0 && s[at - 1] == '.') return std::string_view::npos;
  const size_t whole = digits_end(s, at);
  if (whole == std::string_view::npos) return whole;
  size_t end = whole;
  if (end < s.size() && s[end] == '.') {
    const size_t fraction = digits_end(s, end + 1);
    if (fraction != std::string_view::npos) end = fraction;
  }
  if (end < s.size() && (s[end] == 'e' || s[end] == 'E')) {
    const size_t sign = end + 1 < s.size() && (s[end + 1] == '+' || s[end + 1] == '-') ? 1 : 0;
    const size_t exponent = digits_end(s, end + 1 + sign);
    if (exponent != std::string_view::npos) return exponent;
  }
  return end == whole ? std::string_view::npos : end;
}

size_t integer_end(std::string_view s, size_t at) {
  if (!is_ascii_digit(s[at])) return std::string_view::npos;
  if (s[at] != '0') return skip_digits(s, at + 1, 10);
  const char kind = at + 1 < s.size() ? static_cast<char>(s[at + 1] | 0x20) : ' ';
  const int base = kind == 'b' ? 2 : kind == 'o' ? 8 : kind == 'x' ? 16 : 0;
  if (base != 0) {
    const size_t end = skip_digits(s, at + 2, base);
    if (end > at + 2) return end;
  }
  size_t end = at + 1;  // zeros only
  while (end < s.size()) {
    const size_t zero = s[end] == '_' ? end + 1 : end;
    if (zero >= s.size() || s[zero] != '0') break;
    end = zero + 1;
  }
  return end;
}

class StringReader {
 public:
  StringReader(std::string_view body, uint32_t line) : s_(body), line_(line) {}

  std::string read() {
    while (i_ < s_.size()) {
      if (s_[i_] != '\\') {
        out_ += s_[i_++];
      } else if (++i_ < s_.size()) {
        read_escape();
      } else {
        refuse("\\ at end of string");
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(const char* reason) { fail(ErrorCode::kMalformed, "line {}: {}", line_, reason); }

  void read_escape() {
    static constexpr std::string_view kNames = "\n\\'\"abfnrtv";
    static constexpr std::array<std::string_view, 11> kMeanings = {"",   "\\", "'",  "\"", "\a", "\b",
                                                                   "\f", "\n", "\r", "\t", "\v"};
    const char c = s_[i_];
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      out_ += kMeanings[known];
      ++i_;
    } else if (c >= '0' && c <= '7') {
      read_octal();
    } else if (c == 'x') {
      read_hex(2);
    } else if (c == 'u') {
      read_hex(4);
    } else if (c == 'U') {
      read_hex(8);
    } else if (c == 'N') {
      fail(ErrorCode::kUnsupported, "line {}: characters by name are not supported", line_);
    } else if (static_cast<unsigned char>(c) < 0x80) {
      out_ += '\\';
      out_ += c;
      ++i_;
    } else {
      // Jinja escapes what is not ASCII before it resolves escapes, so a backslash here shows that.
      const auto code = static_cast<uint32_t>(text::decode(s_, i_));
      out_ += code < 0x100     ? fmt::format("\\x{:02x}", code)
              : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                               : fmt::format("\\U{:08x}", code);
    }
  }

  void read_octal() {
    char32_t code = 0;
    for (int n = 0; n < 3 && i_ < s_.size() && s_[i_] >= '0' && s_[i_] <= '7'; ++n)
      code = code * 8 + static_cast<char32_t>(s_[i_++] - '0');
    text::append(out_, code);
  }

  void read_hex(size_t count) {
    ++i_;
    char32_t code = 0;
    for (size_t n = 0; n < count; ++n, ++i_) {
      if (i_ >= s_.size() || !is_digit_of(s_[i_], 16)) refuse("truncated escape in a string");
      const char c = static_cast<char>(s_[i_] | 0x20);
      code = code * 16 + static_cast<char32_t>(c >= 'a' ? c - 'a' + 10 : s_[i_] - '0');
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) refuse("an escape names no character");
    text::append(out_, code);
  }

  std::string_view s_;
  uint32_t line_;
  size_t i_ = 0;
  std::string out_;
};

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalize_newlines(source)) {
    if (!text_.empty() && text_.back() == '\n') text_.pop_back();
    s_ = text_;
  }

  std::vector<Token> read() {
    while (at_ < s_.size()) read_text();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  // A raw block's opening tag at some offset: where it ends, and its sign.
  struct RawTag {
    size_t end;
    char sign;
  };

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
    fail(ErrorCode::kMalformed, "line {}: {}", line_, fmt::format(format, std::forward<Args>(args)...));
  }

  bool starts(size_t at, std::string_view what) const { return s_.substr(at, what.size()) == what; }

  size_t skip_space(size_t at) const {
    while (at < s_.size()) {
      size_t next = at;
      if (!text::is_space(text::decode(s_, next))) break;
      at = next;
    }
    return at;
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  void advance(size_t end) {
    line_ += static_cast<uint32_t>(std::count(s_.begin() + at_, s_.begin() + end, '\n'));
    line_starting_ = end > at_ ? s_[end - 1] == '\n' : line_starting_;
    at_ = end;
  }

  char sign_at(size_t at) const { return at < s_.size() && (s_[at] == '-' || s_[at] == '+') ? s_[at] : ' '; }

  // The text up to a tag, less the white space that the tag takes away.
  std::string_view trimmed(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') return text::strip(text, text::Side::kRight);
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !line_starting_) return text;
    const bool blank = text::strip(text.substr(line_start), text::Side::kLeft).empty();
    return blank ? text.substr(0, line_start) : text;
  }

  void add_text(size_t end, char sign, bool is_variable) {
    const std::string_view kept = trimmed(s_.substr(at_, end - at_), sign, is_variable);
    if (!kept.empty()) add(TokenKind::kText, std::string(kept));
  }

  std::optional<RawTag> raw_tag(size_t at, std::string_view word) const {
    const char sign = sign_at(at + 2);
    size_t i = skip_space(at + 2 + (sign != ' '));
    if (!starts(i, word)) return std::nullopt;
    i = skip_space(i + word.size());
    if (const size_t end = block_end(i); end != std::string_view::npos) return RawTag{end, sign};
    return std::nullopt;
  }

  // The end of a block's closing mark at `at`, with the white space it takes; npos if there is none.
  size_t block_end(size_t at) const {
    if (starts(at, "-%}")) return skip_space(at + 3);
    if (starts(at, "+%}")) return at + 3;
    if (!starts(at, "%}")) return std::string_view::npos;
    return starts(at + 2, "\n") ? at + 3 : at + 2;
  }

  void read_text() {
    size_t tag = at_;
    while (true) {
      tag = s_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= s_.size()) {
        add(TokenKind::kText, std::string(s_.substr(at_)));
        advance(s_.size());
        return;
      }
      const char kind = s_[tag + 1];
      if (kind == '%' || kind == '{' || kind == '#') break;
      ++tag;
    }
    const char sign = sign_at(tag + 2);
    const size_t begin = tag + 2 + (sign != ' ');
    const char kind = s_[tag + 1];
    add_text(tag, sign, kind == '{');
    if (kind == '#') {
      read_comment(begin);
    } else if (kind == '{') {
      advance(begin);
      read_code(TokenKind::kVariableBegin);
    } else if (const size_t body = raw_begin(tag); body != std::string_view::npos) {
      read_raw(body);
    } else {
      advance(begin);
      read_code(TokenKind::kBlockBegin);
    }
  }

  // A raw block's opening keeps the newline after it, other than all blocks else.
  size_t raw_begin(size_t tag) const {
    const auto raw = raw_tag(tag, "raw");
    if (!raw) return std::string_view::npos;
    const size_t close = s_.find("%}", tag);
    if (close > 0 && s_[close - 1] == '-') return raw->end;
    return s_[close - 1] == '+' ? std::string_view::npos : close + 2;
  }

  void read_comment(size_t begin) {
    const size_t close = s_.find("#}", begin);
    if (close == std::string_view::npos) refuse("a comment has no end");
    size_t end = close + 2;
    const char before = close > begin ? s_[close - 1] : ' ';
    if (before == '-')
      end = skip_space(end);
    else if (before != '+' && starts(end, "\n"))
      ++end;
    advance(end);
  }

  void read_raw(size_t body) {
    advance(body);
    for (size_t tag = s_.find("{%", at_); tag != std::string_view::npos; tag = s_.find("{%", tag + 1)) {
      const auto end = raw_tag(tag, "endraw");
      if (!end) continue;
      add_text(tag, end->sign, false);
      advance(end->end);
      return;
    }
    refuse("a raw block has no end");
  }

  void read_code(TokenKind begin) {
    add(begin, "");
    const bool block = begin == TokenKind::kBlockBegin;
    std::string closers;
    while (at_ < s_.size()) {
      if (closers.empty()) {
        const size_t end = block ? block_end(at_) : variable_end();
        if (end != std::string_view::npos) {
          add(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
          advance(end);
          return;
        }
      }
      const size_t next = skip_space(at_);
      if (next > at_)
        advance(next);
      else
        read_token(closers);
    }
  }

  size_t variable_end() const {
    if (starts(at_, "-}}")) return skip_space(at_ + 3);
    return starts(at_, "}}") ? at_ + 2 : std::string_view::npos;
  }

  void read_token(std::string& closers) {
    const char c = s_[at_];
    if (size_t end = float_end(s_, at_); end != std::string_view::npos) {
      add_number(TokenKind::kFloat, end);
    } else if (end = integer_end(s_, at_); end != std::string_view::npos) {
      add_number(TokenKind::kInteger, end);
    } else if (size_t next = at_; text::is_word(text::decode(s_, next))) {
      read_name();
    } else if (c == '\'' || c == '"') {
      read_string(c);
    } else {
      read_operator(closers);
    }
  }

  void add_number(TokenKind kind, size_t end) {
    std::string digits(s_.substr(at_, end - at_));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    add(kind, std::move(digits));
    advance(end);
  }

  void read_name() {
    size_t end = at_;
    while (end < s_.size()) {
      size_t next = end;
      if (!text::is_word(text::decode(s_, next))) break;
      end = next;
    }
    const std::string_view name = s_.substr(at_, end - at_);
    if (!text::is_identifier(name)) refuse("'{}' is no name", name);
    add(TokenKind::kName, std::string(name));
    advance(end);
  }

  void read_string(char mark) {
    size_t end = at_ + 1;
    while (end < s_.size() && s_[end] != mark) end += s_[end] == '\\' ? 2 : 1;
    if (end >= s_.size()) refuse("a string has no end");
    add(TokenKind::kString, StringReader(s_.substr(at_ + 1, end - at_ - 1), line_).read());
    advance(end + 1);
  }

  void read_operator(std::string& closers) {
    static constexpr std::array<std::string_view, 6> kLong = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
    std::string_view op = s_.substr(at_, 2);
    if (std::find(kLong.begin(), kLong.end(), op) == kLong.end()) {
      op = s_.substr(at_, 1);
      if (kShort.find(op) == std::string_view::npos) refuse("unexpected character {}", at_character());
    }
    const char c = op[0];
    if (c == '(' || c == '[' || c == '{') closers += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (closers.empty()) refuse("unexpected '{}'", c);
      if (closers.back() != c) refuse("unexpected '{}', expected '{}'", c, closers.back());
      closers.pop_back();
    }
    add(TokenKind::kOperator, std::string(op));
    advance(at_ + op.size());
  }

  std::string at_character() const {
    size_t end = at_;
    text::decode(s_, end);
    return std::string(s_.substr(at_, end - at_));
  }

  std::string text_;
  std::string_view s_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).read();
}

}  // namespace caravan::tmpl
