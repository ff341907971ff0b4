#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "model/template_arguments.h"
#include "model/template_eval.h"
#include "model/template_filters.h"
#include "model/template_numbers.h"
#include "model/template_path.h"

// Filters that apply another filter, a test or an attribute to each item, when the item is asked for.
namespace caravan::tmpl {

Path::Path(const Value& attribute, Value default_value) : default_value_(std::move(default_value)) {
  if (attribute.is_none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  for (std::string_view part : text::split(attribute.text(), ".", -1)) {
    const bool digits =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    const auto index = digits ? parse_integer(part, 10) : std::nullopt;
    parts_.push_back(index ? *index : Value::constant(std::string(part)));
  }
}

std::vector<Path> Path::several(const Value& attributes) {
  std::vector<Path> paths;
  if (!attributes.is_string()) {
    paths.emplace_back(attributes);
    return paths;
  }
  for (std::string_view part : text::split(attributes.text(), ",", -1))
    paths.emplace_back(Value::constant(std::string(part)));
  return paths;
}

Value Path::get(Interpreter& in, const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    value = in.item(value, part);
    if (value.is_undefined() && !default_value_.is_none()) value = default_value_;
  }
  return value;
}

namespace {

// The deepest of a value and a call's arguments, for the depth of what holds them all.
Value deepest(const Value& v, const Arguments& arguments) {
  Value deep = v;
  for (const Value& argument : arguments.positional)
    if (argument.depth() > deep.depth()) deep = argument;
  for (const auto& [name, argument] : arguments.named)
    if (argument.depth() > deep.depth()) deep = argument;
  return deep;
}

Value nothing(Interpreter& in) {
  return in.iterator("generator", Value::none(), [](Interpreter&, Value&) { return false; });
}

[[noreturn]] void refuse_function(const char* what, const Value& name) {
  raise("no {} named '{}'", what, name.is_string() ? name.text() : type_name(name));
}

// A filter or test by name, with the arguments behind the name.
struct Named {
  Value name;
  NativeFunction function = nullptr;
  Arguments arguments;
};

Named named(const Arguments& arguments, size_t at, NativeFunction (*find)(std::string_view)) {
  Named result;
  result.name = arguments.positional[at];
  if (result.name.is_string()) result.function = find(result.name.text());
  const auto rest = arguments.positional.begin() + static_cast<int64_t>(at) + 1;
  result.arguments.positional.assign(rest, arguments.positional.end());
  result.arguments.named = arguments.named;
  return result;
}

Value map_attribute(Interpreter& in, const Value& self, const Arguments& arguments) {
  Value attribute;
  Value default_value = Value::none();
  for (const auto& [name, value] : arguments.named) {
    if (name == "attribute")
      attribute = value;
    else if (name == "default")
      default_value = value;
    else
      raise("Unexpected keyword argument '{}'", name);
  }
  return in.iterator(
      "generator", deepest(self, arguments),
      [cursor = Cursor(self), path = Path(attribute, default_value)](Interpreter& i, Value& item) mutable {
        if (!cursor.next(i, item)) return false;
        i.meter().step();
        item = path.get(i, item);
        return true;
      });
}

Value map(Interpreter& in, const Value& self, const Arguments& arguments) {
  if (!truth(self)) return nothing(in);
  const bool by_attribute = std::any_of(arguments.named.begin(), arguments.named.end(),
                                        [](const auto& entry) { return entry.first == "attribute"; });
  if (arguments.positional.empty() && by_attribute) return map_attribute(in, self, arguments);
  if (arguments.positional.empty()) raise("map requires a filter argument");
  auto filter = std::make_shared<const Named>(named(arguments, 0, find_filter));
  return in.iterator("generator", deepest(self, arguments),
                     [cursor = Cursor(self), filter](Interpreter& i, Value& item) mutable {
                       Value taken;
                       if (!cursor.next(i, taken)) return false;
                       i.meter().step();
                       if (!filter->function) refuse_function("filter", filter->name);
                       item = filter->function(i, taken, filter->arguments);
                       return true;
                     });
}

template <bool kKeep, bool kByAttribute>
Value select(Interpreter& in, const Value& self, const Arguments& arguments) {
  if (!truth(self)) return nothing(in);
  constexpr size_t kOffset = kByAttribute ? 1 : 0;
  if (arguments.positional.size() < kOffset) raise("Missing parameter for attribute name");
  const Path path(kByAttribute ? arguments.positional[0] : Value::none());
  std::shared_ptr<const Named> test;
  if (arguments.positional.size() > kOffset)
    test = std::make_shared<const Named>(named(arguments, kOffset, find_test));
  return in.iterator("generator", deepest(self, arguments),
                     [cursor = Cursor(self), path, test](Interpreter& i, Value& item) mutable {
                       while (cursor.next(i, item)) {
                         i.meter().step();
                         const Value value = path.get(i, item);
                         if (test && !test->function) refuse_function("test", test->name);
                         const bool passes = truth(test ? test->function(i, value, test->arguments) : value);
                         if (passes == kKeep) return true;
                       }
                       return false;
                     });
}

using Entry = std::pair<std::string_view, NativeFunction>;
constexpr std::array<Entry, 5> kFilters = {{{"map", map},
                                            {"select", select<true, false>},
                                            {"reject", select<false, false>},
                                            {"selectattr", select<true, true>},
                                            {"rejectattr", select<false, true>}}};

}  // namespace

NativeFunction find_selection_filter(std::string_view name) {
  for (const auto& [key, filter] : kFilters)
    if (key == name) return filter;
  return nullptr;
}

}  // namespace caravan::tmpl
