#include "model/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "base/check.h"
#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Decomposition sorts each run of marks by exchanging neighbours, in time quadratic in its length, so a
// hostile run is cut: at a character that cannot compose with what is before it, or, past kForcedCut,
// anywhere.
constexpr size_t kSoftCut = 2048;
constexpr size_t kHardCut = 4096;
constexpr size_t kForcedCut = 8192;

struct FreeBytes {
  void operator()(utf8proc_uint8_t* bytes) const { std::free(bytes); }
};

// No normalization form composes an ASCII character with what precedes it.
size_t segment_end(std::string_view text) {
  for (size_t at = first_char(text).bytes; at < text.size();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (at >= kSoftCut && byte < 0x80) return at;
    if (at >= kForcedCut) return at;
    const Utf8Char next = first_char(text.substr(at));
    if (at >= kHardCut &&
        utf8proc_get_property(static_cast<utf8proc_int32_t>(next.code))->combining_class == 0) {
      return at;
    }
    at += next.bytes;
  }
  return text.size();
}

std::string map_text(std::string_view text, int options) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t bytes = segment_end(text);
    utf8proc_uint8_t* mapped = nullptr;
    const auto* begin = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
    const utf8proc_ssize_t length = utf8proc_map(begin, static_cast<utf8proc_ssize_t>(bytes), &mapped,
                                                 static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, FreeBytes> owner(mapped);
    if (length < 0) fail(ErrorCode::kLimit, "Unicode normalization: {}", utf8proc_errmsg(length));
    out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
    text.remove_prefix(bytes);
  }
  return out;
}

bool is_ascii(std::string_view text) {
  for (const char c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) return false;
  }
  return true;
}

std::string normal_form(std::string_view text, int options) {
  if (is_ascii(text)) return std::string(text);
  return map_text(text, UTF8PROC_STABLE | options);
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char next = first_char(text);
    if (next.code == 0x130) {
      out += "i\xCC\x87";  // the one letter whose lower case is two characters
    } else {
      append_utf8(out, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(next.code))));
    }
    text.remove_prefix(next.bytes);
  }
  return out;
}

std::string strip_accents(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Char next = first_char(text);
    if (utf8proc_category(static_cast<utf8proc_int32_t>(next.code)) != UTF8PROC_CATEGORY_MN) {
      out += text.substr(0, next.bytes);
    }
    text.remove_prefix(next.bytes);
  }
  return out;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    const Utf8Char next = first_char(text);
    if (!is_white_space(next.code)) break;
    text.remove_prefix(next.bytes);
  }
  while (right && !text.empty()) {
    size_t at = text.size() - 1;
    while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
    if (!is_white_space(first_char(text.substr(at)).code)) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string replace(std::string_view text, std::string_view pattern, std::string_view content) {
  if (pattern.empty()) return std::string(text);
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  for (;;) {
    const size_t at = text.find(pattern);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    check_growth(out.size() + content.size());
    out += content;
    text.remove_prefix(at + pattern.size());
  }
}

}  // namespace

size_t utf8_bytes(uint8_t lead) {
  if (lead < 0xC2) return 1;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 1;
}

Utf8Char first_char(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const size_t bytes = utf8_bytes(lead);
  if (bytes == 1) return {0xFFFD, 1, false};
  // The second byte's range keeps out overlong forms, surrogates and what lies above U+10FFFF.
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  uint32_t code = lead & (0x7Fu >> bytes);
  for (uint32_t i = 1; i < bytes; ++i) {
    if (i >= text.size() || byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) {
      return {0xFFFD, i, false};
    }
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  return {code, static_cast<uint32_t>(bytes), true};
}

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Char next = first_char(text.substr(at));
    if (!next.valid) return false;
    at += next.bytes;
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char next = first_char(text);
    out += next.valid ? text.substr(0, next.bytes) : kReplacement;
    text.remove_prefix(next.bytes);
  }
  return out;
}

void check_growth(size_t bytes) {
  if (bytes > limits::kMaxEncodedBytes) {
    fail(ErrorCode::kLimit, "a text of {} bytes to encode, more than {}", bytes, limits::kMaxEncodedBytes);
  }
}

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

size_t incomplete_tail(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const std::string_view tail = text.substr(text.size() - back);
    const auto lead = static_cast<uint8_t>(tail[0]);
    if ((lead & 0xC0) == 0x80) continue;
    // All the bytes fit so far, and some are missing.
    const Utf8Char last = first_char(tail);
    return !last.valid && last.bytes == back && utf8_bytes(lead) > back ? back : 0;
  }
  return 0;
}

bool is_white_space(uint32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  switch (code) {
    case 0x85:
    case 0xA0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202F:
    case 0x205F:
    case 0x3000:
      return true;
    default:
      return code >= 0x2000 && code <= 0x200A;
  }
}

bool is_word_char(uint32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

std::string normalize(const NormalizerStep& step, std::string_view text) {
  using Kind = NormalizerStep::Kind;
  switch (step.kind) {
    case Kind::kNfc:
      return normal_form(text, UTF8PROC_COMPOSE);
    case Kind::kNfd:
      return normal_form(text, UTF8PROC_DECOMPOSE);
    case Kind::kNfkc:
      return normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case Kind::kNfkd:
      return normal_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    case Kind::kLowercase:
      return lowercase(text);
    case Kind::kStripAccents:
      return strip_accents(text);
    case Kind::kStrip:
      return std::string(strip(text, step.left, step.right));
    case Kind::kReplace:
      return replace(text, step.pattern, step.content);
    case Kind::kPrepend:
      return text.empty() ? std::string() : step.content + std::string(text);
    case Kind::kReplacePattern:
      break;
  }
  CHECK(step.kind != Kind::kReplacePattern);
  return std::string(text);
}

}  // namespace caravan
