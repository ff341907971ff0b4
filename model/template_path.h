#pragma once

#include <vector>

#include "model/template_value.h"

namespace caravan::tmpl {

// What filters call an attribute: names and indices with dots between them, such as "function.name" or
// "choices.0". None stands for the item itself.
class Path {
 public:
  explicit Path(const Value& attribute, Value default_value = Value::none());
  static std::vector<Path> several(const Value& attributes);  // with commas between them

  Value get(Interpreter& interpreter, const Value& item) const;

 private:
  std::vector<Value> parts_;
  Value default_value_;  // for what is undefined, unless none
};

}  // namespace caravan::tmpl
