#include "model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "model/unicode.h"

namespace caravan {
namespace {

// The steps that one match may take: the patterns that models use need a few for each character of a word.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr size_t kJitStackStart = 32u << 10;
constexpr size_t kJitStackMost = 4u << 20;
// Unicode's White_Space. PCRE2's own \s also takes U+180E, which has not been a space since Unicode 6.3.
constexpr std::string_view kSpaces = "\\t-\\r\\x{85}\\p{Z}";

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeStack {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

// What \w means elsewhere; PCRE2's own leaves out marks.
constexpr std::string_view kWordChars = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";

// Spells \s, \S, \w and \W out. Set operations inside a class are another dialect's, which PCRE2 would read
// as letters.
std::string translate(std::string_view expression, std::string_view where) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char next = expression[++i];
      const std::string members(next == 's' || next == 'S' ? kSpaces : kWordChars);
      if (next == 's' || next == 'w') {
        out += in_class ? members : "[" + members + "]";
      } else if ((next == 'S' || next == 'W') && !in_class) {
        out += "[^" + members + "]";
      } else {
        out += {c, next};
      }
      continue;
    }
    if (in_class && c == '&' && expression.substr(i, 2) == "&&") {
      fail(ErrorCode::kUnsupported, "{}: pattern '{}' intersects character classes", where, expression);
    }
    if (!in_class && c == '[') {
      in_class = true;
      out += c;
      if (expression.substr(i + 1, 1) == "^") out += expression[++i];
      // A bracket that comes first is a member, not the end.
      if (expression.substr(i + 1, 1) == "]") out += {'\\', expression[++i]};
      continue;
    }
    if (in_class && c == ']') in_class = false;
    out += c;
  }
  return out;
}

std::string message_of(int error) {
  unsigned char text[256] = {};
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct Part {
  std::string_view text;
  bool matched;
};

// The matches and what lies between them.
std::vector<Part> parts_of(std::string_view text, const std::vector<Pattern::Span>& matches, bool invert) {
  std::vector<Part> parts;
  size_t at = 0;
  const auto put = [&](size_t begin, size_t end, bool matched) {
    if (end > begin) parts.push_back({text.substr(begin, end - begin), matched != invert});
    at = end;
  };
  for (const Pattern::Span& match : matches) {
    put(at, match.begin, false);
    put(match.begin, match.end, true);
  }
  put(at, text.size(), false);
  return parts;
}

// Two views that touch, as one.
std::string_view join(std::string_view left, std::string_view right) {
  return {left.data(), left.size() + right.size()};
}

void merge_with_next(const std::vector<Part>& parts, std::vector<std::string_view>& pieces) {
  const size_t first = pieces.size();
  bool next_matched = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->matched && !next_matched && pieces.size() > first) {
      pieces.back() = join(part->text, pieces.back());
    } else {
      pieces.push_back(part->text);
    }
    next_matched = part->matched;
  }
  std::reverse(pieces.begin() + static_cast<std::ptrdiff_t>(first), pieces.end());
}

void emit(const std::vector<Part>& parts, SplitStep::Behaviour behaviour,
          std::vector<std::string_view>& pieces) {
  using Behaviour = SplitStep::Behaviour;
  if (behaviour == Behaviour::kMergedWithNext) return merge_with_next(parts, pieces);
  const size_t first = pieces.size();
  bool previous = false;
  for (const Part& part : parts) {
    const bool follows = pieces.size() > first;
    bool joined = false;
    if (behaviour == Behaviour::kRemoved && part.matched) continue;
    if (behaviour == Behaviour::kMergedWithPrevious) joined = follows && part.matched && !previous;
    if (behaviour == Behaviour::kContiguous) joined = follows && part.matched == previous;
    if (joined) {
      pieces.back() = join(pieces.back(), part.text);
    } else {
      pieces.push_back(part.text);
    }
    previous = part.matched;
  }
}

void find_literal(std::string_view text, std::string_view pattern, std::vector<Pattern::Span>& matches) {
  if (pattern.empty()) return;
  for (size_t at = text.find(pattern); at != std::string_view::npos; at = text.find(pattern, at)) {
    matches.push_back({at, at + pattern.size()});
    at += pattern.size();
  }
}

void metaspace(const SplitStep& step, std::string_view text, bool opening,
               std::vector<std::string_view>& pieces, Splitter::Arena& arena) {
  NormalizerStep spaces;
  spaces.kind = NormalizerStep::Kind::kReplace;
  spaces.pattern = " ";
  spaces.content = step.pattern;
  std::string& marked = arena.emplace_back(normalize(spaces, text));
  const bool wanted =
      step.prefix == SplitStep::Prefix::kAlways || (step.prefix == SplitStep::Prefix::kFirst && opening);
  if (wanted && !marked.starts_with(step.pattern)) marked.insert(0, step.pattern);
  if (!step.cut) {
    pieces.push_back(marked);
    return;
  }
  std::vector<Pattern::Span> matches;
  find_literal(marked, step.pattern, matches);
  emit(parts_of(marked, matches, false), SplitStep::Behaviour::kMergedWithNext, pieces);
}

}  // namespace

struct Pattern::Code {
  std::unique_ptr<pcre2_code, FreeCode> code;
};

Pattern::Pattern(std::string_view expression, std::string_view where) {
  if (expression.size() > limits::kMaxPatternBytes) {
    fail(ErrorCode::kLimit, "{}: a pattern of {} bytes, more than {}", where, expression.size(),
         limits::kMaxPatternBytes);
  }
  const std::string translated = translate(expression, where);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    fail(ErrorCode::kUnsupported, "{}: pattern '{}': {}", where, to_valid_utf8(expression),
         message_of(error));
  }
  code_ = std::make_unique<const Code>(Code{std::unique_ptr<pcre2_code, FreeCode>(code)});
  // Where there is no JIT the interpreter runs the same code.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

struct Pattern::Search::Buffers {
  const pcre2_code* code;
  std::unique_ptr<pcre2_match_data, FreeData> data;
  std::unique_ptr<pcre2_match_context, FreeContext> context;
  std::unique_ptr<pcre2_jit_stack, FreeStack> stack;

  bool find(std::string_view text, size_t from, Span& span) {
    const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                  PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0) fail(ErrorCode::kLimit, "cutting a text of {} bytes: {}", text.size(), message_of(found));
    const size_t* ends = pcre2_get_ovector_pointer(data.get());
    span = {ends[0], ends[1]};
    // \K can move the beginning of a match.
    if (span.begin < from || span.end < span.begin) {
      fail(ErrorCode::kUnsupported, "a pattern whose match begins before its search");
    }
    return true;
  }
};

Pattern::Search::Search(const Pattern& pattern) : buffers_(std::make_unique<Buffers>()) {
  Buffers& b = *buffers_;
  b.code = pattern.code_->code.get();
  b.data.reset(pcre2_match_data_create_from_pattern(b.code, nullptr));
  b.context.reset(pcre2_match_context_create(nullptr));
  if (!b.data || !b.context) throw std::bad_alloc();
  pcre2_set_match_limit(b.context.get(), kMatchLimit);
  // Without JIT there is no stack, and none is needed.
  b.stack.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr));
  if (b.stack) pcre2_jit_stack_assign(b.context.get(), nullptr, b.stack.get());
}

Pattern::Search::~Search() = default;

void Pattern::Search::find_all(std::string_view text, std::vector<Span>& matches) {
  Span span;
  size_t from = 0;
  while (from <= text.size() && buffers_->find(text, from, span)) {
    if (span.end > span.begin) {
      matches.push_back(span);
      from = span.end;
      continue;
    }
    if (span.begin > 0 && span.begin < text.size()) matches.push_back(span);
    if (span.begin >= text.size()) return;
    from = span.begin + first_char(text.substr(span.begin)).bytes;
  }
}

std::string Pattern::replace_all(std::string_view text, std::string_view content) const {
  std::vector<Span> matches;
  Search(*this).find_all(text, matches);
  std::string out;
  size_t at = 0;
  for (const Span& match : matches) {
    if (match.end == match.begin) continue;
    out += text.substr(at, match.begin - at);
    check_growth(out.size() + content.size());
    out += content;
    at = match.end;
  }
  out += text.substr(at);
  return out;
}

Splitter::Splitter(std::vector<SplitStep> steps, std::string_view where) {
  for (SplitStep& step : steps) {
    Step made;
    if (step.kind == SplitStep::Kind::kPattern)
      made.pattern = std::make_unique<const Pattern>(step.pattern, where);
    made.plan = std::move(step);
    steps_.push_back(std::move(made));
  }
}

void Splitter::split(std::string_view text, bool opening, std::vector<std::string_view>& pieces,
                     Arena& arena) const {
  if (text.empty()) return;
  std::vector<std::string_view> now{text};
  std::vector<std::string_view> next;
  std::vector<Pattern::Span> matches;
  for (const Step& step : steps_) {
    next.clear();
    std::optional<Pattern::Search> search;
    if (step.pattern) search.emplace(*step.pattern);
    for (size_t i = 0; i < now.size(); ++i) {
      const std::string_view piece = now[i];
      if (step.plan.kind == SplitStep::Kind::kMetaspace) {
        metaspace(step.plan, piece, opening && i == 0, next, arena);
      } else if (step.plan.kind == SplitStep::Kind::kPrefixSpace) {
        next.push_back(piece.starts_with(' ') ? piece : arena.emplace_back(" " + std::string(piece)));
      } else {
        matches.clear();
        if (search) {
          search->find_all(piece, matches);
        } else {
          find_literal(piece, step.plan.pattern, matches);
        }
        emit(parts_of(piece, matches, step.plan.invert), step.plan.behaviour, next);
      }
    }
    now.swap(next);
  }
  pieces.insert(pieces.end(), now.begin(), now.end());
}

}  // namespace caravan
