#include <array>
#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_filters.h"
#include "model/template_methods.h"
#include "model/template_operators.h"

// What can stand behind `is`.
namespace caravan::tmpl {
namespace {

template <bool (*kTest)(const Value&)>
Value simple(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return Value::boolean(kTest(self));
}

bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_boolean(const Value& v) {
  return v.is(Kind::kBool);
}
bool is_false(const Value& v) {
  return v.is(Kind::kBool) && !v.as_bool();
}
bool is_true(const Value& v) {
  return v.is(Kind::kBool) && v.as_bool();
}
bool is_integer(const Value& v) {
  return v.is(Kind::kInt) || v.is(Kind::kHugeInt);
}
bool is_float(const Value& v) {
  return v.is(Kind::kFloat);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_string();
}
bool is_mapping(const Value& v) {
  return v.is(Kind::kDict);
}
bool is_escaped(const Value& v) {
  return v.is_markup();
}

bool is_sequence(const Value& v) {
  return v.is_undefined() || v.is_string() || v.is_sequence() || v.is(Kind::kDict) || v.is(Kind::kRange);
}

bool is_callable(const Value& v) {
  return v.is(Kind::kFunction) || v.is(Kind::kMacro) || v.is(Kind::kLoop) || v.is_undefined();
}

template <Operator kOperator>
Value comparison(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {"other"}, 1);
  return Value::boolean(compare(in, kOperator, self, bound[0]));
}

Value same_as(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  return Value::boolean(same(self, bound[0]));
}

Value divisible(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return Value::boolean(in.equals(binary(in, Operator::kModulo, self, bound[0]), Value::integer(0)));
}

template <int kRest>
Value parity(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return Value::boolean(
      in.equals(binary(in, Operator::kModulo, self, Value::integer(2)), Value::integer(kRest)));
}

template <bool kUpper>
Value letter_case(Interpreter& in, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return Value::boolean(has_case(in.str(self), kUpper));
}

template <NativeFunction (*kFind)(std::string_view)>
Value is_known(Interpreter&, const Value& self, const Arguments& arguments) {
  const Bound bound("test", arguments, {});
  check_key(self);
  return Value::boolean(self.is_string() && kFind(self.text()) != nullptr);
}

using Entry = std::pair<std::string_view, NativeFunction>;
constexpr std::array<Entry, 39> kTests = {{{"defined", simple<is_defined>},
                                           {"undefined", simple<is_undefined>},
                                           {"none", simple<is_none>},
                                           {"string", simple<is_string>},
                                           {"mapping", simple<is_mapping>},
                                           {"sequence", simple<is_sequence>},
                                           {"iterable", simple<is_iterable>},
                                           {"boolean", simple<is_boolean>},
                                           {"true", simple<is_true>},
                                           {"false", simple<is_false>},
                                           {"number", simple<is_number>},
                                           {"integer", simple<is_integer>},
                                           {"float", simple<is_float>},
                                           {"callable", simple<is_callable>},
                                           {"escaped", simple<is_escaped>},
                                           {"sameas", same_as},
                                           {"divisibleby", divisible},
                                           {"odd", parity<1>},
                                           {"even", parity<0>},
                                           {"lower", letter_case<false>},
                                           {"upper", letter_case<true>},
                                           {"filter", is_known<find_filter>},
                                           {"test", is_known<find_test>},
                                           {"in", comparison<Operator::kIn>},
                                           {"==", comparison<Operator::kEqual>},
                                           {"eq", comparison<Operator::kEqual>},
                                           {"equalto", comparison<Operator::kEqual>},
                                           {"!=", comparison<Operator::kNotEqual>},
                                           {"ne", comparison<Operator::kNotEqual>},
                                           {">", comparison<Operator::kGreater>},
                                           {"gt", comparison<Operator::kGreater>},
                                           {"greaterthan", comparison<Operator::kGreater>},
                                           {">=", comparison<Operator::kGreaterEqual>},
                                           {"ge", comparison<Operator::kGreaterEqual>},
                                           {"<", comparison<Operator::kLess>},
                                           {"lt", comparison<Operator::kLess>},
                                           {"lessthan", comparison<Operator::kLess>},
                                           {"<=", comparison<Operator::kLessEqual>},
                                           {"le", comparison<Operator::kLessEqual>}}};

}  // namespace

NativeFunction find_test(std::string_view name) {
  for (const auto& [key, test] : kTests)
    if (key == name) return test;
  return nullptr;
}

}  // namespace caravan::tmpl
