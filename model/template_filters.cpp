#include "model/template_filters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_format.h"
#include "model/template_methods.h"
#include "model/template_numbers.h"
#include "model/template_print.h"

// Filters of single values: texts, numbers, JSON.
namespace caravan::tmpl {
namespace {

// The value as a text; a text stays as it is, markup included.
Value soft(Interpreter& in, const Value& v) {
  return v.is_string() ? v : in.text(in.str(v));
}

template <std::string (*kChange)(std::string_view)>
Value change(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("filter", arguments, {});
  const Value s = soft(in, self);
  return in.text(kChange(s.text()), s.is_markup());
}

// Every run of characters between these is a word of its own.
bool is_word_border(char32_t c) {
  return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || text::is_space(c);
}

Value title(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("title", arguments, {});
  const Value s = soft(in, self);
  std::string out;
  size_t start = 0;
  bool border = true;
  const auto flush = [&](size_t end) {
    const std::string_view piece = s.text().substr(start, end - start);
    if (piece.empty()) return;
    size_t first = 0;
    text::decode(piece, first);
    out += text::upper(piece.substr(0, first));
    out += text::lower(piece.substr(first));
    start = end;
  };
  for (size_t i = 0; i < s.text().size();) {
    const size_t at = i;
    const bool now = is_word_border(text::decode(s.text(), i));
    if (now != border) flush(at);
    border = now;
  }
  flush(s.text().size());
  return in.text(std::move(out), false);
}

Value trim(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  const Value s = soft(in, self);
  const bool blanks = !bound.has(0) || bound[0].is_none();
  const std::string_view kept = blanks ? text::strip(s.text(), text::Side::kBoth)
                                       : text::strip(s.text(), bound.text(0, ""), text::Side::kBoth);
  return kept.size() == s.text().size() ? s : in.text(std::string(kept), s.is_markup());
}

Value replace(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  return in.text(replaced(in, in.str(self), in.str(bound[0]), in.str(bound[1]), bound.integer(2, -1, true)));
}

Value string(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("string", arguments, {});
  return soft(in, self);
}

Value safe(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return self.is_markup() ? self : in.text(in.str(self), true);
}

Value escape(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  return self.is_markup() ? self : in.text(text::escape_html(in.str(self)), true);
}

Value force_escape(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("forceescape", arguments, {});
  return in.text(text::escape_html(in.str(self)), true);
}

Value indent(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  if (self.is_undefined()) raise("{}", self.as<Undefined>().message());
  if (!self.is_string()) raise("unsupported operand type(s) for +=: '{}' and 'str'", type_name(self));
  const int64_t width = bound.has(0) && bound[0].is_string() ? 0 : bound.integer(0, 4);
  if (width > static_cast<int64_t>(limits::kMaxTemplateOutputBytes))
    fail(ErrorCode::kLimit, "an indent of {}", width);
  const std::string margin = bound.has(0) && bound[0].is_string()
                                 ? std::string(bound[0].text())
                                 : std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  const std::string text = std::string(self.text()) + "\n";
  const auto lines = text::split_lines(text, false);
  std::string out = bound.flag(1, false) ? margin : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (!lines[i].empty() || bound.flag(2, false))) out += margin;
    out += lines[i];
    in.meter().fits(out.size());
  }
  return in.text(std::move(out), self.is_markup());
}

Value center(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  Arguments width;
  width.positional.push_back(bound.get(0, Value::integer(80)));
  const Value s = soft(in, self);
  return find_method(s, "center")(in, s, width);
}

Value truncate(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t size = bound.integer(0, 255);
  const std::string_view end = bound.text(2, "...");
  const int64_t leeway = bound.integer(3, 5, true);
  const auto end_size = static_cast<int64_t>(text::length(end));
  if (size < end_size || leeway < 0) raise("truncate: expected length >= {} and leeway >= 0", end_size);
  const auto length_now = length(self);
  if (!length_now) raise("object of type '{}' has no len()", type_name(self));
  if (*length_now <= leeway || *length_now - leeway <= size) return self;
  if (!self.is_string()) raise("'{}' object cannot be truncated", type_name(self));
  std::string_view kept =
      self.text().substr(0, text::byte_offset(self.text(), static_cast<size_t>(size - end_size)));
  if (!bound.flag(1, false)) kept = text::rsplit(kept, " ", 1).front();
  return in.text(std::string(kept) + std::string(end), self.is_markup());
}

Value word_count(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const Value s = soft(in, self);
  int64_t words = 0;
  bool in_word = false;
  for (size_t i = 0; i < s.text().size();) {
    const bool now = text::is_word(text::decode(s.text(), i));
    words += now && !in_word;
    in_word = now;
  }
  return Value::integer(words);
}

// The characters that HTML's most common names stand for.
std::string unescape_html(std::string_view s) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kNames = {
      {{"amp", "&"}, {"lt", "<"}, {"gt", ">"}, {"quot", "\""}, {"apos", "'"}, {"nbsp", "\xC2\xA0"}}};
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    const size_t end = s[i] == '&' ? s.substr(0, i + 12).find(';', i) : std::string_view::npos;
    if (end == std::string_view::npos) {
      out += s[i];
      continue;
    }
    const std::string_view name = s.substr(i + 1, end - i - 1);
    const auto known =
        std::find_if(kNames.begin(), kNames.end(), [&](const auto& entry) { return entry.first == name; });
    const bool hex = name.size() > 2 && name[0] == '#' && (name[1] | 0x20) == 'x';
    const auto code = name.size() > 1 && name[0] == '#'
                          ? parse_integer(name.substr(hex ? 2 : 1), hex ? 16 : 10)
                          : std::nullopt;
    if (known != kNames.end()) {
      out += known->second;
    } else if (code && code->is(Kind::kInt) && code->as_int() > 0 && code->as_int() < 0xD800) {
      text::append(out, static_cast<char32_t>(code->as_int()));
    } else {
      out += s[i];
      continue;
    }
    i = end;
  }
  return out;
}

std::string without(std::string_view s, std::string_view open, std::string_view close) {
  std::string out;
  while (true) {
    const size_t start = s.find(open);
    const size_t end = start == std::string_view::npos ? start : s.find(close, start);
    if (end == std::string_view::npos) break;
    out += s.substr(0, start);
    s.remove_prefix(end + close.size());
  }
  out += s;
  return out;
}

Value strip_tags(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("striptags", arguments, {});
  const std::string plain = without(without(in.str(self), "<!--", "-->"), "<", ">");
  std::string out;
  for (std::string_view word : text::split(plain, -1)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return in.text(unescape_html(out));
}

void append_quoted(std::string& out, std::string_view s, bool query) {
  for (char c : s) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte < 0x80 && (std::isalnum(byte) || c == '_' || c == '.' || c == '-' || c == '~');
    if (plain || (c == '/' && !query))
      out += c;
    else if (c == ' ' && query)
      out += '+';
    else
      out += fmt::format("%{:02X}", byte);
  }
}

Value url_encode(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("urlencode", arguments, {});
  std::string out;
  if (self.is_string() || !is_iterable(self)) {
    append_quoted(out, in.str(self), false);
    return in.text(std::move(out));
  }
  const Value pairs = self.is(Kind::kDict) ? in.view(self, View::Part::kItems) : self;
  for (const Value& pair : in.collect(pairs)) {
    const std::vector<Value> parts = in.collect(pair);
    if (parts.size() != 2) raise("urlencode needs pairs");
    if (!out.empty()) out += '&';
    append_quoted(out, in.str(parts[0]), true);
    out += '=';
    append_quoted(out, in.str(parts[1]), true);
  }
  return in.text(std::move(out));
}

Value xml_attributes(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("xmlattr", arguments, {"autospace"});
  if (!self.is(Kind::kDict)) raise("xmlattr needs a mapping, not {}", type_name(self));
  std::string out;
  for (const auto& [key, value] : self.dict().entries) {
    if (value.is_none() || value.is_undefined()) continue;
    if (!key.is_string() || key.text().find_first_of(" \t\n\r\f\v/>=") != std::string_view::npos)
      raise("invalid character in an attribute's name");
    if (!out.empty()) out += ' ';
    const auto escaped = [&](const Value& v) {
      return v.is_markup() ? std::string(v.text()) : text::escape_html(in.str(v));
    };
    out += escaped(key) + "=\"" + escaped(value) + "\"";
    in.meter().fits(out.size());
  }
  return in.text(bound.flag(0, true) && !out.empty() ? " " + out : out);
}

Value format(Interpreter& in, const Value& self, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    raise("can't handle positional and keyword arguments at the same time");
  const Value s = soft(in, self);
  if (arguments.named.empty()) return format_percent(in, s, in.tuple(arguments.positional));
  auto named = std::make_shared<Dict>();
  for (const auto& [key, value] : arguments.named) named->set(in.text(key), value);
  return format_percent(in, s, in.dict(std::move(named)));
}

Value json_filter(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii_only = bound.flag(0, false);
  style.sorted = bound.flag(3, false);
  if (bound.has(1) && !bound[1].is_none()) {
    style.indented = true;
    style.item_separator = ",";
    if (bound[1].is_string()) {
      style.indent = bound[1].text();
    } else {
      const int64_t width = to_integer(bound[1]);
      if (width > 1024) fail(ErrorCode::kLimit, "a JSON indent of {}", width);
      style.indent.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (bound.has(2) && !bound[2].is_none()) {
    const std::vector<Value> parts = in.collect(bound[2]);
    if (parts.size() != 2 || !parts[0].is_string() || !parts[1].is_string())
      raise("separators must be two texts");
    style.item_separator = parts[0].text();
    style.key_separator = parts[1].text();
  }
  return in.text(json(in.meter(), self, style));
}

Value default_value(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  if (self.is_undefined() || (bound.flag(1, false) && !truth(self))) return bound.get(0, in.text(""));
  return self;
}

Value attribute(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  const std::string_view name = bound.text(0, "");
  Value own = in.own_attribute(self, name);
  return own.is_missing() ? in.undefined_attribute(self, bound[0]) : own;
}

Value unsupported(Interpreter&, const Value&, const Arguments&) {
  fail(ErrorCode::kUnsupported, "this filter is not supported");
}

using Entry = std::pair<std::string_view, NativeFunction>;
constexpr std::array<Entry, 32> kFilters = {{{"attr", attribute},
                                             {"capitalize", change<text::capitalize>},
                                             {"center", center},
                                             {"d", default_value},
                                             {"default", default_value},
                                             {"e", escape},
                                             {"escape", escape},
                                             {"abs", absolute},
                                             {"filesizeformat", file_size},
                                             {"float", to_float},
                                             {"int", to_int},
                                             {"round", round_filter},
                                             {"forceescape", force_escape},
                                             {"format", format},
                                             {"indent", indent},
                                             {"lower", change<text::lower>},
                                             {"pprint", unsupported},
                                             {"random", unsupported},
                                             {"replace", replace},
                                             {"safe", safe},
                                             {"string", string},
                                             {"striptags", strip_tags},
                                             {"title", title},
                                             {"tojson", json_filter},
                                             {"trim", trim},
                                             {"truncate", truncate},
                                             {"upper", change<text::upper>},
                                             {"urlencode", url_encode},
                                             {"urlize", unsupported},
                                             {"wordcount", word_count},
                                             {"wordwrap", unsupported},
                                             {"xmlattr", xml_attributes}}};

}  // namespace

NativeFunction find_filter(std::string_view name) {
  for (const auto& [key, filter] : kFilters)
    if (key == name) return filter;
  if (const NativeFunction filter = find_sequence_filter(name)) return filter;
  return find_selection_filter(name);
}

}  // namespace caravan::tmpl
