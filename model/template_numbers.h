#pragma once

#include <optional>
#include <string_view>

#include "model/template_value.h"

// Numbers in texts, as Python's int() and float() read them, and the filters of numbers.
namespace caravan::tmpl {

// `base` is 2 to 36, or 0 for what a prefix says; no value if the text is none.
std::optional<Value> parse_integer(std::string_view s, int64_t base);
std::optional<double> parse_float(std::string_view s);

Value absolute(Interpreter& interpreter, const Value& self, const Arguments& arguments);
Value to_int(Interpreter& interpreter, const Value& self, const Arguments& arguments);
Value to_float(Interpreter& interpreter, const Value& self, const Arguments& arguments);
Value round_filter(Interpreter& interpreter, const Value& self, const Arguments& arguments);
Value file_size(Interpreter& interpreter, const Value& self, const Arguments& arguments);

}  // namespace caravan::tmpl
