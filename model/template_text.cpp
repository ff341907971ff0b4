#include "model/template_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace caravan::tmpl::text {
namespace {

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Characters whose upper-case form is longer than one character; utf8proc maps one to one.
struct LongUpper {
  char32_t from;
  std::string_view upper;
  std::string_view title;
};
constexpr std::array<LongUpper, 10> kLongUpper = {{{0xDF, "SS", "Ss"},
                                                   {0x149, "\xCA\xBCN", "\xCA\xBCN"},
                                                   {0x1F0, "J\xCC\x8C", "J\xCC\x8C"},
                                                   {0xFB00, "FF", "Ff"},
                                                   {0xFB01, "FI", "Fi"},
                                                   {0xFB02, "FL", "Fl"},
                                                   {0xFB03, "FFI", "Ffi"},
                                                   {0xFB04, "FFL", "Ffl"},
                                                   {0xFB05, "ST", "St"},
                                                   {0xFB06, "ST", "St"}}};

const LongUpper* long_upper(char32_t c) {
  if (c < 0xDF) return nullptr;
  for (const LongUpper& entry : kLongUpper)
    if (entry.from == c) return &entry;
  return nullptr;
}

void append_upper(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  } else if (const LongUpper* entry = long_upper(c)) {
    out += entry->upper;
  } else {
    append(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_title(std::string& out, char32_t c) {
  if (c < 0x80) {
    append_upper(out, c);
  } else if (const LongUpper* entry = long_upper(c)) {
    out += entry->title;
  } else {
    append(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

bool is_cased(char32_t c) {
  return is_lower(c) || is_upper(c) || is_title(c);
}

// A capital sigma becomes the final form after a letter and before none.
bool is_final_sigma(std::string_view s, size_t start, size_t end) {
  bool before = false;
  for (size_t i = start; i > 0 && !before;) {
    --i;
    while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80) --i;
    size_t at = i;
    char32_t c = decode(s, at);
    if (is_cased(c))
      before = true;
    else if (c != '\'' && category(c) != UTF8PROC_CATEGORY_MN)
      break;
  }
  if (!before) return false;
  while (end < s.size()) {
    char32_t c = decode(s, end);
    if (is_cased(c)) return false;
    if (c != '\'' && category(c) != UTF8PROC_CATEGORY_MN) break;
  }
  return true;
}

void append_lower(std::string& out, std::string_view s, size_t start, size_t end, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  } else if (c == 0x3A3) {
    append(out, is_final_sigma(s, start, end) ? 0x3C2 : 0x3C3);
  } else if (c == 0x130) {
    out += "i\xCC\x87";
  } else {
    append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

std::vector<std::string_view> reversed(std::vector<std::string_view> pieces) {
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

size_t previous(std::string_view s, size_t offset) {
  do {
    --offset;
  } while (offset > 0 && (static_cast<unsigned char>(s[offset]) & 0xC0) == 0x80);
  return offset;
}

template <class Predicate>
std::string_view strip_if(std::string_view s, Side side, Predicate drop) {
  size_t begin = 0;
  size_t end = s.size();
  if (side != Side::kRight) {
    while (begin < end) {
      size_t next = begin;
      if (!drop(decode(s, next))) break;
      begin = next;
    }
  }
  if (side != Side::kLeft) {
    while (end > begin) {
      const size_t start = previous(s, end);
      size_t at = start;
      if (!drop(decode(s, at))) break;
      end = start;
    }
  }
  return s.substr(begin, end - begin);
}

}  // namespace

bool is_ascii(std::string_view s) {
  const char* p = s.data();
  size_t left = s.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    if (word & 0x8080808080808080ull) return false;
  }
  for (; left > 0; --left, ++p)
    if (static_cast<unsigned char>(*p) & 0x80) return false;
  return true;
}

bool is_utf8(std::string_view s) {
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(s.data());
  size_t left = s.size();
  while (left > 0) {
    if (*p < 0x80) {
      ++p;
      --left;
      continue;
    }
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t size = utf8proc_iterate(p, static_cast<utf8proc_ssize_t>(left), &c);
    if (size <= 0) return false;
    p += size;
    left -= static_cast<size_t>(size);
  }
  return true;
}

char32_t decode(std::string_view s, size_t& offset) {
  const auto byte = [&](size_t i) -> char32_t { return static_cast<unsigned char>(s[i]); };
  const char32_t first = byte(offset);
  if (first < 0x80 || offset + 1 >= s.size()) {
    ++offset;
    return first;
  }
  if (first < 0xE0) {
    const char32_t c = (first & 0x1F) << 6 | (byte(offset + 1) & 0x3F);
    offset += 2;
    return c;
  }
  if (first < 0xF0 || offset + 3 >= s.size()) {
    const char32_t last = offset + 2 < s.size() ? byte(offset + 2) & 0x3F : 0;
    const char32_t c = (first & 0x0F) << 12 | (byte(offset + 1) & 0x3F) << 6 | last;
    offset = std::min(offset + 3, s.size());
    return c;
  }
  const char32_t c = (first & 0x07) << 18 | (byte(offset + 1) & 0x3F) << 12 | (byte(offset + 2) & 0x3F) << 6 |
                     (byte(offset + 3) & 0x3F);
  offset += 4;
  return c;
}

void append(std::string& out, char32_t code_point) {
  const auto put = [&](char32_t bits) { out += static_cast<char>(static_cast<unsigned char>(bits)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t length(std::string_view s) {
  size_t count = 0;
  for (char c : s) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

size_t byte_offset(std::string_view s, size_t index) {
  size_t offset = 0;
  for (; offset < s.size(); ++offset) {
    if ((static_cast<unsigned char>(s[offset]) & 0xC0) == 0x80) continue;
    if (index == 0) break;
    --index;
  }
  return offset;
}

size_t index_of(std::string_view s, size_t byte_offset) {
  return length(s.substr(0, byte_offset));
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_line_break(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_alpha(char32_t c) {
  const utf8proc_category_t k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) {
  return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
         (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) ||
         (c >= 0x2474 && c <= 0x247C);
}

bool is_numeric(char32_t c) {
  const utf8proc_category_t k = category(c);
  return is_digit(c) || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool is_lower(char32_t c) {
  return c < 0x80 ? c >= 'a' && c <= 'z' : category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA;
}

bool is_upper(char32_t c) {
  return c < 0x80 ? c >= 'A' && c <= 'Z' : category(c) == UTF8PROC_CATEGORY_LU;
}

bool is_title(char32_t c) {
  return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT;
}

bool is_printable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7F;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  return is_alpha(c) || is_numeric(c);
}

bool is_identifier(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const bool first = i == 0;
    const char32_t c = decode(s, i);
    const utf8proc_category_t k = category(c);
    const bool start = c == '_' || is_alpha(c) || k == UTF8PROC_CATEGORY_NL;
    const bool inside = start || is_decimal(c) || k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC ||
                        k == UTF8PROC_CATEGORY_PC;
    if (first ? !start : !inside) return false;
  }
  return !s.empty();
}

std::string upper(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) append_upper(out, decode(s, i));
  return out;
}

std::string lower(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const size_t start = i;
    const char32_t c = decode(s, i);
    append_lower(out, s, start, i, c);
  }
  return out;
}

std::string title(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  bool in_word = false;
  for (size_t i = 0; i < s.size();) {
    const size_t start = i;
    const char32_t c = decode(s, i);
    if (in_word)
      append_lower(out, s, start, i, c);
    else
      append_title(out, c);
    in_word = is_cased(c);
  }
  return out;
}

std::string capitalize(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const size_t start = i;
    const char32_t c = decode(s, i);
    if (start == 0)
      append_title(out, c);
    else
      append_lower(out, s, start, i, c);
  }
  return out;
}

std::string swapcase(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const size_t start = i;
    const char32_t c = decode(s, i);
    if (is_upper(c))
      append_lower(out, s, start, i, c);
    else if (is_lower(c))
      append_upper(out, c);
    else
      append(out, c);
  }
  return out;
}

std::string casefold(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const size_t start = i;
    const char32_t c = decode(s, i);
    if (const LongUpper* entry = long_upper(c))
      out += lower(entry->upper);
    else if (c == 0x3A3 || c == 0x3C2)
      append(out, 0x3C3);
    else
      append_lower(out, s, start, i, c);
  }
  return out;
}

std::string_view strip(std::string_view s, Side side) {
  return strip_if(s, side, is_space);
}

std::string_view strip(std::string_view s, std::string_view characters, Side side) {
  return strip_if(s, side, [&](char32_t c) {
    for (size_t i = 0; i < characters.size();)
      if (decode(characters, i) == c) return true;
    return false;
  });
}

std::vector<std::string_view> split(std::string_view s, long limit) {
  std::vector<std::string_view> pieces;
  s = strip(s, Side::kLeft);
  while (!s.empty()) {
    if (limit == 0) {
      pieces.push_back(s);
      break;
    }
    size_t end = 0;
    for (size_t next = 0; next < s.size();) {
      if (is_space(decode(s, next))) break;
      end = next;
    }
    pieces.push_back(s.substr(0, end));
    s = strip(s.substr(end), Side::kLeft);
    if (limit > 0) --limit;
  }
  return pieces;
}

std::vector<std::string_view> split(std::string_view s, std::string_view separator, long limit) {
  std::vector<std::string_view> pieces;
  while (limit != 0) {
    const size_t at = s.find(separator);
    if (at == std::string_view::npos) break;
    pieces.push_back(s.substr(0, at));
    s.remove_prefix(at + separator.size());
    if (limit > 0) --limit;
  }
  pieces.push_back(s);
  return pieces;
}

std::vector<std::string_view> rsplit(std::string_view s, long limit) {
  std::vector<std::string_view> pieces;
  s = strip(s, Side::kRight);
  while (!s.empty()) {
    if (limit == 0) {
      pieces.push_back(s);
      break;
    }
    size_t start = s.size();
    while (start > 0) {
      const size_t before = previous(s, start);
      size_t at = before;
      if (is_space(decode(s, at))) break;
      start = before;
    }
    pieces.push_back(s.substr(start));
    s = strip(s.substr(0, start), Side::kRight);
    if (limit > 0) --limit;
  }
  return reversed(std::move(pieces));
}

std::vector<std::string_view> rsplit(std::string_view s, std::string_view separator, long limit) {
  std::vector<std::string_view> pieces;
  while (limit != 0) {
    const size_t at = s.rfind(separator);
    if (at == std::string_view::npos) break;
    pieces.push_back(s.substr(at + separator.size()));
    s = s.substr(0, at);
    if (limit > 0) --limit;
  }
  pieces.push_back(s);
  return reversed(std::move(pieces));
}

std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t i = 0; i < s.size();) {
    const size_t end = i;
    const char32_t c = decode(s, i);
    if (!is_line_break(c)) continue;
    if (c == '\r' && i < s.size() && s[i] == '\n') ++i;
    lines.push_back(s.substr(start, (keep_ends ? i : end) - start));
    start = i;
  }
  if (start < s.size()) lines.push_back(s.substr(start));
  return lines;
}

std::string replace(std::string_view s, std::string_view from, std::string_view to, long limit) {
  std::string out;
  if (from.empty()) {
    for (size_t i = 0; i <= s.size() && limit != 0;) {
      out += to;
      if (limit > 0) --limit;
      if (i == s.size()) return out;
      append(out, decode(s, i));
      if (limit == 0) out += s.substr(i);
    }
    return limit == 0 && out.empty() ? std::string(s) : out;
  }
  out.reserve(s.size());
  while (limit != 0) {
    const size_t at = s.find(from);
    if (at == std::string_view::npos) break;
    out += s.substr(0, at);
    out += to;
    s.remove_prefix(at + from.size());
    if (limit > 0) --limit;
  }
  out += s;
  return out;
}

std::string escape_html(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace caravan::tmpl::text
