#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "model/template_value.h"

namespace caravan::tmpl {

// The method that a value of this type has under this name; null if none, or if calling it would change the
// value, which templates may not.
NativeFunction find_method(const Value& v, std::string_view name);
// Whether the type has such a method at all, callable or not.
bool is_method_name(const Value& v, std::string_view name);

// Whether a text has letters with case, and all of them this one.
bool has_case(std::string_view s, bool upper);

// Python's str.replace, its result checked against the limits first; `limit` < 0 means all places.
std::string replaced(Interpreter& interpreter, std::string_view s, std::string_view from, std::string_view to,
                     long limit);

// Functions and values that every template sees; missing if there is none by this name.
Value find_global(Interpreter& interpreter, std::string_view name);

}  // namespace caravan::tmpl
