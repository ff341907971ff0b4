#include "model/template_print.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "model/template_eval.h"

namespace caravan::tmpl {
namespace {

// Python's repr of a value.
class ReprWriter {
 public:
  ReprWriter(Meter& meter, std::string& out) : meter_(meter), out_(out) {}

  void write(const Value& v) {
    meter_.step();
    switch (v.kind()) {
      case Kind::kMissing:
      case Kind::kUndefined:
        out_ += "Undefined";
        break;
      case Kind::kNone:
        out_ += "None";
        break;
      case Kind::kBool:
        out_ += v.as_bool() ? "True" : "False";
        break;
      case Kind::kInt:
        out_ += fmt::format("{}", v.as_int());
        break;
      case Kind::kHugeInt:
        out_ += v.text();
        break;
      case Kind::kFloat:
        out_ += float_repr(v.as_float());
        break;
      case Kind::kString:
        out_ += v.is_markup() ? "Markup(" + quote(v.text()) + ")" : quote(v.text());
        break;
      case Kind::kList:
        write_items("[", v.items(), "]");
        break;
      case Kind::kTuple:
        write_items("(", v.items(), v.items().size() == 1 ? ",)" : ")");
        break;
      case Kind::kDict:
        write_dict(v.dict());
        break;
      case Kind::kRange:
        write_range(v.as<Range>());
        break;
      case Kind::kView:
        write_view(v.as<View>());
        break;
      case Kind::kNamespace:
        write_namespace(v.as<Namespace>());
        break;
      case Kind::kMacro: {
        const std::string& name = v.as<Macro>().statement->name;
        out_ += name.empty() ? "<Macro anonymous>" : "<Macro '" + name + "'>";
        break;
      }
      case Kind::kLoop:
        write_loop(v.as<Loop>());
        break;
      default:
        out_ += fmt::format("<{}>", type_name(v));
        break;
    }
    meter_.fits(out_.size());
  }

 private:
  void write_items(std::string_view open, const std::vector<Value>& items, std::string_view close) {
    out_ += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += ", ";
      write(items[i]);
    }
    out_ += close;
  }

  void write_dict(const Dict& dict) {
    out_ += '{';
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) out_ += ", ";
      write(dict.entries[i].first);
      out_ += ": ";
      write(dict.entries[i].second);
    }
    out_ += '}';
  }

  void write_range(const Range& range) {
    out_ += range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                            : fmt::format("range({}, {}, {})", range.start, range.stop, range.step);
  }

  void write_loop(const Loop& loop) {
    const std::optional<int64_t> size = loop.known_size >= 0 ? loop.known_size : length(loop.source);
    out_ += fmt::format("<LoopContext {}/{}>", loop.index0 + 1, size ? std::to_string(*size) : "?");
  }

  void write_view(const View& view) {
    const Dict& dict = view.dict.dict();
    out_ += view.part == View::Part::kKeys     ? "dict_keys(["
            : view.part == View::Part::kValues ? "dict_values(["
                                               : "dict_items([";
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      const auto& [key, value] = dict.entries[i];
      if (i > 0) out_ += ", ";
      if (view.part == View::Part::kItems) out_ += '(';
      if (view.part != View::Part::kValues) write(key);
      if (view.part == View::Part::kItems) out_ += ", ";
      if (view.part != View::Part::kKeys) write(value);
      if (view.part == View::Part::kItems) out_ += ')';
    }
    out_ += "])";
  }

  void write_namespace(Namespace& space) {
    // A namespace can hold itself, so one within another is not opened.
    if (in_namespace_) {
      out_ += "<Namespace>";
      return;
    }
    in_namespace_ = true;
    out_ += "<Namespace {";
    for (size_t i = 0; i < space.attributes.size(); ++i) {
      if (i > 0) out_ += ", ";
      out_ += quote(space.attributes[i].first);
      out_ += ": ";
      write(space.attributes[i].second);
    }
    out_ += "}>";
    in_namespace_ = false;
  }

  Meter& meter_;
  std::string& out_;
  bool in_namespace_ = false;
};

void append_escape(std::string& out, char32_t c) {
  out += c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
         : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                       : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
}

class JsonWriter {
 public:
  JsonWriter(Meter& meter, const JsonStyle& style) : meter_(meter), style_(style) {}

  void write(const Value& v) {
    meter_.step();
    switch (v.kind()) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += v.as_bool() ? "true" : "false";
        return;
      case Kind::kInt:
        out_ += fmt::format("{}", v.as_int());
        return;
      case Kind::kHugeInt:
        out_ += v.text();
        return;
      case Kind::kFloat:
        write_float(v.as_float());
        return;
      case Kind::kString:
        write_text(v.text());
        return;
      case Kind::kList:
      case Kind::kTuple:
        write_list(v.items());
        return;
      case Kind::kDict:
        write_dict(v.dict());
        return;
      default:
        raise("Object of type {} is not JSON serializable", type_name(v));
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void write_float(double d) {
    if (std::isnan(d))
      out_ += "NaN";
    else if (std::isinf(d))
      out_ += d < 0 ? "-Infinity" : "Infinity";
    else
      out_ += float_repr(d);
  }

  void write_text(std::string_view s) {
    meter_.fits(out_.size() + s.size());
    out_ += '"';
    for (size_t i = 0; i < s.size();) {
      const char32_t c = text::decode(s, i);
      switch (c) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\b':
          out_ += "\\b";
          break;
        case '\f':
          out_ += "\\f";
          break;
        default:
          write_character(c);
      }
    }
    out_ += '"';
  }

  void write_character(char32_t c) {
    if (c >= 0x20 && (c < 0x7F || !style_.ascii_only)) {
      text::append(out_, c);
    } else if (c < 0x10000) {
      out_ += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    }
  }

  void new_line() {
    if (!style_.indented) return;
    meter_.fits(out_.size() + level_ * style_.indent.size());
    out_ += '\n';
    for (size_t i = 0; i < level_; ++i) out_ += style_.indent;
  }

  void write_list(const std::vector<Value>& items) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line();
      write(items[i]);
    }
    --level_;
    new_line();
    out_ += ']';
  }

  void write_dict(const Dict& dict) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sorted)
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less(meter_, a->first, b->first); });
    out_ += '{';
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line();
      write_key(entries[i]->first);
      out_ += style_.key_separator;
      write(entries[i]->second);
    }
    --level_;
    new_line();
    out_ += '}';
  }

  void write_key(const Value& key) {
    if (key.is_string()) {
      write_text(key.text());
      return;
    }
    if (!key.is_number() && !key.is_none())
      raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    out_ += '"';
    write(key);
    out_ += '"';
  }

  Meter& meter_;
  const JsonStyle& style_;
  std::string out_;
  size_t level_ = 0;
};

}  // namespace

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  const int exponent = std::atoi(std::string(shortest.substr(e + 1)).c_str());
  std::string digits;
  for (char c : shortest.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  std::string out = shortest.front() == '-' ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  const size_t whole = static_cast<size_t>(exponent) + 1;
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string quote(std::string_view s) {
  const char mark = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  std::string out(1, mark);
  for (size_t i = 0; i < s.size();) {
    const char32_t c = text::decode(s, i);
    if (c == static_cast<char32_t>(mark) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (text::is_printable(c)) {
      text::append(out, c);
    } else {
      append_escape(out, c);
    }
  }
  return out + mark;
}

void append_str(Meter& meter, std::string& out, const Value& v) {
  if (v.is_string()) {
    meter.fits(out.size() + v.text().size());
    out += v.text();
  } else if (!v.is_undefined()) {
    append_repr(meter, out, v);
  }
}

void append_repr(Meter& meter, std::string& out, const Value& v) {
  ReprWriter(meter, out).write(v);
}

std::string str(Meter& meter, const Value& v) {
  std::string out;
  append_str(meter, out, v);
  return out;
}

std::string repr(Meter& meter, const Value& v) {
  std::string out;
  append_repr(meter, out, v);
  return out;
}

std::string json(Meter& meter, const Value& v, const JsonStyle& style) {
  JsonWriter writer(meter, style);
  writer.write(v);
  return writer.take();
}

}  // namespace caravan::tmpl
