#pragma once

#include <string>
#include <string_view>

#include "model/template_value.h"

// Values as text, in the three ways that templates know: as Python's str and repr print them, and as JSON.
// All throw kLimit when the text grows over the meter's limit.
namespace caravan::tmpl {

std::string float_repr(double d);  // the shortest digits that read back the same, as Python prints them
std::string quote(std::string_view text);  // repr of a string

void append_str(Meter& meter, std::string& out, const Value& v);
void append_repr(Meter& meter, std::string& out, const Value& v);
std::string str(Meter& meter, const Value& v);
std::string repr(Meter& meter, const Value& v);

struct JsonStyle {
  bool ascii_only = false;
  bool sorted = false;
  bool indented = false;
  std::string indent;  // of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// As Python's json.dumps writes it; throws kInvalidArgument for what JSON cannot hold.
std::string json(Meter& meter, const Value& v, const JsonStyle& style);

}  // namespace caravan::tmpl
