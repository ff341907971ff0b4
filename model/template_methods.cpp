#include "model/template_methods.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_format.h"

namespace caravan::tmpl {
namespace {

using text::Side;

// A text made from `self`, which stays markup if that is.
Value made(Interpreter& in, const Value& self, std::string bytes) {
  return in.text(std::move(bytes), self.is_markup());
}

Value made_list(Interpreter& in, const Value& self, const std::vector<std::string_view>& pieces) {
  in.meter().step(pieces.size());
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (std::string_view piece : pieces) items.push_back(made(in, self, std::string(piece)));
  return in.list(std::move(items));
}

const Value& string_argument(const Value& v) {
  if (!v.is_string()) raise("must be str, not {}", type_name(v));
  return v;
}

template <std::string (*kChange)(std::string_view)>
Value change(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("str", arguments, {});
  return made(in, self, kChange(self.text()));
}

template <Side kSide>
Value strip(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("strip", arguments, {"chars"});
  const std::string_view s = self.text();
  const bool blanks = !bound.has(0) || bound[0].is_none();
  if (!blanks) in.meter().step(s.size() / 64 * (bound.text(0, "").size() / 64 + 1));
  return made(in, self,
              std::string(blanks ? text::strip(s, kSide) : text::strip(s, bound.text(0, ""), kSide)));
}

template <bool kFromRight>
Value split(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  const long limit = bound.integer(1, -1);
  const std::string_view s = self.text();
  if (!bound.has(0) || bound[0].is_none())
    return made_list(in, self, kFromRight ? text::rsplit(s, limit) : text::split(s, limit));
  const std::string_view separator = bound.text(0, "");
  if (separator.empty()) raise("empty separator");
  return made_list(in, self,
                   kFromRight ? text::rsplit(s, separator, limit) : text::split(s, separator, limit));
}

Value split_lines(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  return made_list(in, self, text::split_lines(self.text(), bound.flag(0, false)));
}

// The part of a text between two indices, as find() and its kin take them, and where in it that part begins.
struct Window {
  std::string_view part;
  size_t begin = 0;
  bool valid = true;  // false if `start` lies behind the end, where even "" is not found
};

Window window(const Value& self, const Bound& bound) {
  const std::string_view s = self.text();
  if (!bound.has(1)) return {s};
  const int64_t size = *length(self);
  const auto place = [&](size_t i, int64_t otherwise) {
    int64_t index = bound.integer(i, otherwise, true);
    if (index < 0) index = std::max<int64_t>(index + size, 0);
    return index;
  };
  const int64_t start = place(1, 0);
  const int64_t end = std::min(place(2, size), size);
  if (start > size || start > end) return {{}, 0, false};
  const size_t begin = text::byte_offset(s, static_cast<size_t>(start));
  return {s.substr(begin, text::byte_offset(s, static_cast<size_t>(end)) - begin), begin};
}

template <bool kAtEnd>
Value starts(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound(kAtEnd ? "endswith" : "startswith", arguments, {"prefix", "start", "end"}, 1);
  const Window w = window(self, bound);
  const auto matches = [&](const Value& affix) {
    const std::string_view a = string_argument(affix).text();
    if (!w.valid || a.size() > w.part.size()) return false;
    return (kAtEnd ? w.part.substr(w.part.size() - a.size()) : w.part.substr(0, a.size())) == a;
  };
  if (!bound[0].is(Kind::kTuple)) return Value::boolean(matches(bound[0]));
  in.meter().step(bound[0].items().size());
  return Value::boolean(std::any_of(bound[0].items().begin(), bound[0].items().end(), matches));
}

template <bool kLast, bool kMust>
Value find(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("find", arguments, {"sub", "start", "end"}, 1);
  const std::string_view needle = string_argument(bound[0]).text();
  const Window w = window(self, bound);
  in.meter().step(w.part.size() / 128);
  const size_t at = !w.valid ? std::string_view::npos : kLast ? w.part.rfind(needle) : w.part.find(needle);
  if (at == std::string_view::npos) {
    if (kMust) raise("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(static_cast<int64_t>(text::index_of(self.text(), w.begin + at)));
}

Value count(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"sub", "start", "end"}, 1);
  const std::string_view needle = string_argument(bound[0]).text();
  const Window w = window(self, bound);
  in.meter().step(w.part.size() / 128);
  if (!w.valid) return Value::integer(0);
  if (needle.empty()) return Value::integer(static_cast<int64_t>(text::length(w.part)) + 1);
  int64_t found = 0;
  for (size_t at = w.part.find(needle); at != std::string_view::npos;
       at = w.part.find(needle, at + needle.size()))
    ++found;
  return Value::integer(found);
}

Value replace(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const bool escape = self.is_markup();
  const auto part = [&](size_t i) {
    const std::string_view s = string_argument(bound[i]).text();
    return escape && !bound[i].is_markup() ? text::escape_html(s) : std::string(s);
  };
  return made(in, self, replaced(in, self.text(), part(0), part(1), bound.integer(2, -1)));
}

Value join(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"}, 1);
  std::string joined;
  bool first = true;
  for (const Value& item : in.collect(bound[0])) {
    if (!item.is_string()) raise("sequence item: expected str instance, {} found", type_name(item));
    if (!std::exchange(first, false)) joined += self.text();
    if (self.is_markup() && !item.is_markup())
      joined += text::escape_html(item.text());
    else
      joined += item.text();
    in.meter().fits(joined.size());
  }
  return made(in, self, std::move(joined));
}

template <char kAlign>
Value justify(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("center", arguments, {"width", "fillchar"}, 1);
  const std::string_view fill = bound.text(1, " ");
  if (text::length(fill) != 1) raise("the fill character must be exactly one character long");
  const int64_t size = *length(self);
  const int64_t missing = std::max<int64_t>(bound.integer(0, 0) - size, 0);
  if (missing > static_cast<int64_t>(limits::kMaxTemplateOutputBytes / 4))
    fail(ErrorCode::kLimit, "a text padded to {}", bound.integer(0, 0));
  // Python puts the odd blank of a centred text left if the width is odd.
  const int64_t left = kAlign == '<'   ? 0
                       : kAlign == '>' ? missing
                                       : missing / 2 + (missing & bound.integer(0, 0) & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.text();
  for (int64_t i = left; i < missing; ++i) out += fill;
  return made(in, self, std::move(out));
}

Value zero_fill(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("zfill", arguments, {"width"}, 1);
  const int64_t missing = std::max<int64_t>(bound.integer(0, 0) - *length(self), 0);
  if (missing > static_cast<int64_t>(limits::kMaxTemplateOutputBytes))
    fail(ErrorCode::kLimit, "a text padded to {}", bound.integer(0, 0));
  std::string out(self.text());
  const size_t sign = !out.empty() && (out[0] == '-' || out[0] == '+');
  out.insert(sign, static_cast<size_t>(missing), '0');
  return made(in, self, std::move(out));
}

template <bool kLast>
Value partition(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("partition", arguments, {"sep"}, 1);
  const std::string_view separator = string_argument(bound[0]).text();
  if (separator.empty()) raise("empty separator");
  const std::string_view s = self.text();
  const size_t at = kLast ? s.rfind(separator) : s.find(separator);
  const auto piece = [&](std::string_view p) { return made(in, self, std::string(p)); };
  if (at == std::string_view::npos)
    return kLast ? in.tuple({piece(""), piece(""), self}) : in.tuple({self, piece(""), piece("")});
  return in.tuple({piece(s.substr(0, at)), piece(separator), piece(s.substr(at + separator.size()))});
}

template <bool kSuffix>
Value remove_affix(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("removeprefix", arguments, {"affix"}, 1);
  const std::string_view affix = string_argument(bound[0]).text();
  const std::string_view s = self.text();
  if (affix.empty() || affix.size() > s.size()) return self;
  const size_t rest = s.size() - affix.size();
  if (kSuffix) return s.substr(rest) == affix ? made(in, self, std::string(s.substr(0, rest))) : self;
  return s.substr(0, affix.size()) == affix ? made(in, self, std::string(s.substr(affix.size()))) : self;
}

Value expand_tabs(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const int64_t size = std::clamp<int64_t>(bound.integer(0, 8), 0, 1 << 16);
  std::string out;
  int64_t column = 0;
  for (size_t i = 0; i < self.text().size();) {
    const char32_t c = text::decode(self.text(), i);
    if (c == '\t') {
      const int64_t blanks = size > 0 ? size - column % size : 0;
      out.append(static_cast<size_t>(blanks), ' ');
      column += blanks;
      in.meter().fits(out.size());
    } else {
      text::append(out, c);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return made(in, self, std::move(out));
}

// Whether all characters are of a class, and there is one.
template <bool (*kIs)(char32_t), bool kEmptyToo = false>
Value all_are(Interpreter&, const Value& self, const Arguments&) {
  const std::string_view s = self.text();
  for (size_t i = 0; i < s.size();)
    if (!kIs(text::decode(s, i))) return Value::boolean(false);
  return Value::boolean(kEmptyToo || !s.empty());
}

bool is_alphanumeric(char32_t c) {
  return text::is_alpha(c) || text::is_numeric(c);
}
bool is_seven_bit(char32_t c) {
  return c < 0x80;
}

Value is_identifier(Interpreter&, const Value& self, const Arguments&) {
  return Value::boolean(text::is_identifier(self.text()));
}

Value is_title(Interpreter&, const Value& self, const Arguments&) {
  bool found = false;
  bool in_word = false;
  for (size_t i = 0; i < self.text().size();) {
    const char32_t c = text::decode(self.text(), i);
    const bool capital = text::is_upper(c) || text::is_title(c);
    const bool small = text::is_lower(c);
    if ((capital && in_word) || (small && !in_word)) return Value::boolean(false);
    in_word = capital || small;
    found |= in_word;
  }
  return Value::boolean(found);
}

template <bool kUpper>
Value is_case(Interpreter&, const Value& self, const Arguments&) {
  return Value::boolean(has_case(self.text(), kUpper));
}

Value format_map(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("format_map", arguments, {"mapping"}, 1);
  if (!bound[0].is(Kind::kDict)) raise("format_map() needs a mapping, not {}", type_name(bound[0]));
  Arguments named;
  for (const auto& [key, value] : bound[0].dict().entries)
    if (key.is_string()) named.named.emplace_back(key.text(), value);
  return format_braces(in, self, named);
}

Value unsupported(Interpreter&, const Value& self, const Arguments&) {
  fail(ErrorCode::kUnsupported, "this method of {} is not supported", type_name(self));
}

Value dict_get(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("get", arguments, {"key", "default"}, 1);
  if (!arguments.named.empty()) raise("get() takes no keyword arguments");
  check_key(bound[0]);
  const Value* value = self.dict().find(bound[0]);
  return value ? *value : bound.get(1, Value::none());
}

template <View::Part kPart>
Value dict_view(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("items", arguments, {});
  return in.view(self, kPart);
}

Value copy(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;  // nothing changes it, so that it is its own copy
}

Value sequence_count(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("count", arguments, {"value"}, 1);
  int64_t found = 0;
  for (const Value& item : in.collect(self)) found += same(item, bound[0]) || in.equals(item, bound[0]);
  return Value::integer(found);
}

Value sequence_index(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("index", arguments, {"value", "start", "stop"}, 1);
  const std::vector<Value> items = in.collect(self);
  const auto size = static_cast<int64_t>(items.size());
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t index = bound.integer(i, otherwise);
    return std::clamp<int64_t>(index < 0 ? index + size : index, 0, size);
  };
  for (int64_t i = place(1, 0); i < place(2, size); ++i) {
    const Value& item = items[static_cast<size_t>(i)];
    if (same(item, bound[0]) || in.equals(item, bound[0])) return Value::integer(i);
  }
  raise("the value is not in the {}", type_name(self));
}

Value is_whole(Interpreter&, const Value& self, const Arguments&) {
  return Value::boolean(std::isfinite(self.as_float()) && self.as_float() == std::floor(self.as_float()));
}

using Entry = std::pair<std::string_view, NativeFunction>;

constexpr std::array<Entry, 47> kStringMethods = {{{"strip", strip<Side::kBoth>},
                                                   {"lstrip", strip<Side::kLeft>},
                                                   {"rstrip", strip<Side::kRight>},
                                                   {"split", split<false>},
                                                   {"rsplit", split<true>},
                                                   {"startswith", starts<false>},
                                                   {"endswith", starts<true>},
                                                   {"replace", replace},
                                                   {"format", format_braces},
                                                   {"join", join},
                                                   {"upper", change<text::upper>},
                                                   {"lower", change<text::lower>},
                                                   {"title", change<text::title>},
                                                   {"capitalize", change<text::capitalize>},
                                                   {"swapcase", change<text::swapcase>},
                                                   {"casefold", change<text::casefold>},
                                                   {"splitlines", split_lines},
                                                   {"find", find<false, false>},
                                                   {"rfind", find<true, false>},
                                                   {"index", find<false, true>},
                                                   {"rindex", find<true, true>},
                                                   {"count", count},
                                                   {"center", justify<'^'>},
                                                   {"ljust", justify<'<'>},
                                                   {"rjust", justify<'>'>},
                                                   {"zfill", zero_fill},
                                                   {"partition", partition<false>},
                                                   {"rpartition", partition<true>},
                                                   {"removeprefix", remove_affix<false>},
                                                   {"removesuffix", remove_affix<true>},
                                                   {"expandtabs", expand_tabs},
                                                   {"isalnum", all_are<is_alphanumeric>},
                                                   {"isalpha", all_are<text::is_alpha>},
                                                   {"isascii", all_are<is_seven_bit, true>},
                                                   {"isdecimal", all_are<text::is_decimal>},
                                                   {"isdigit", all_are<text::is_digit>},
                                                   {"isidentifier", is_identifier},
                                                   {"islower", is_case<false>},
                                                   {"isnumeric", all_are<text::is_numeric>},
                                                   {"isprintable", all_are<text::is_printable, true>},
                                                   {"isspace", all_are<text::is_space>},
                                                   {"istitle", is_title},
                                                   {"isupper", is_case<true>},
                                                   {"format_map", format_map},
                                                   {"encode", unsupported},
                                                   {"maketrans", unsupported},
                                                   {"translate", unsupported}}};

constexpr std::array<Entry, 6> kDictMethods = {{{"get", dict_get},
                                                {"items", dict_view<View::Part::kItems>},
                                                {"keys", dict_view<View::Part::kKeys>},
                                                {"values", dict_view<View::Part::kValues>},
                                                {"copy", copy},
                                                {"fromkeys", unsupported}}};

constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault", "update"};

constexpr std::array<Entry, 3> kListMethods = {
    {{"index", sequence_index}, {"count", sequence_count}, {"copy", copy}}};

template <size_t kSize>
NativeFunction look_up(const std::array<Entry, kSize>& table, std::string_view name) {
  for (const auto& [key, method] : table)
    if (key == name) return method;
  return nullptr;
}

}  // namespace

NativeFunction find_method(const Value& v, std::string_view name) {
  switch (v.kind()) {
    case Kind::kString:
      return look_up(kStringMethods, name);
    case Kind::kDict:
      return look_up(kDictMethods, name);
    case Kind::kList:
      return look_up(kListMethods, name);
    case Kind::kTuple:
    case Kind::kRange:
      return name == "copy" ? nullptr : look_up(kListMethods, name);
    case Kind::kFloat:
      return name == "is_integer" ? is_whole : nullptr;
    default:
      return nullptr;
  }
}

bool is_method_name(const Value& v, std::string_view name) {
  return find_method(v, name) != nullptr ||
         (v.is(Kind::kDict) &&
          std::find(kDictChanges.begin(), kDictChanges.end(), name) != kDictChanges.end());
}

bool has_case(std::string_view s, bool upper) {
  bool found = false;
  for (size_t i = 0; i < s.size();) {
    const char32_t c = text::decode(s, i);
    if (upper ? text::is_lower(c) || text::is_title(c) : text::is_upper(c) || text::is_title(c)) return false;
    found |= upper ? text::is_upper(c) : text::is_lower(c);
  }
  return found;
}

std::string replaced(Interpreter& in, std::string_view s, std::string_view from, std::string_view to,
                     long limit) {
  size_t matches = 0;
  if (from.empty())
    matches = text::length(s) + 1;
  else
    for (size_t at = s.find(from); at != std::string_view::npos; at = s.find(from, at + from.size()))
      ++matches;
  if (limit >= 0) matches = std::min(matches, static_cast<size_t>(limit));
  if (!to.empty() && matches > limits::kMaxTemplateOutputBytes / to.size())
    fail(ErrorCode::kLimit, "a replacement of {} places", matches);
  in.meter().text(s.size() + matches * to.size());
  return text::replace(s, from, to, limit);
}

}  // namespace caravan::tmpl
