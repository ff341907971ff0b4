#pragma once

#include "model/template_value.h"

// Python's two ways of filling values into a text; they throw where Python does.
namespace caravan::tmpl {

// text % values: one value, a tuple of them, or a dictionary for `%(name)s`.
Value format_percent(Interpreter& interpreter, const Value& text, const Value& values);

// text.format(...) with `{}`, `{0}`, `{name.attribute[key]!r:spec}`.
Value format_braces(Interpreter& interpreter, const Value& text, const Arguments& arguments);

}  // namespace caravan::tmpl
