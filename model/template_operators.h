#pragma once

#include "model/template_tree.h"
#include "model/template_value.h"

// The operators of expressions, as Python defines them for each pair of types; they throw where Python does.
namespace caravan::tmpl {

Value binary(Interpreter& interpreter, Operator op, const Value& a, const Value& b);
bool compare(Interpreter& interpreter, Operator op, const Value& a, const Value& b);
bool contains(Interpreter& interpreter, const Value& container, const Value& item);
Value negate(const Value& v);
Value positive(const Value& v);

// start, stop and step may be none.
Value slice(Interpreter& interpreter, const Value& v, const Value& start, const Value& stop,
            const Value& step);

// The item at an index counted from either end; missing if there is none there.
Value at_index(Interpreter& interpreter, const Value& sequence, int64_t index);

}  // namespace caravan::tmpl
