#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "model/template_value.h"

namespace caravan::tmpl {

// The arguments of one call, by the names of the parameters. Throws kInvalidArgument for too many, too few,
// unknown or doubled ones, and from the accessors for a wrong type.
class Bound {
 public:
  Bound(std::string_view function, const Arguments& arguments, std::initializer_list<std::string_view> names,
        size_t required = 0);

  bool has(size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](size_t i) const { return *values_[i]; }  // it must be there
  Value get(size_t i, Value otherwise) const { return values_[i] ? *values_[i] : std::move(otherwise); }
  // Absent and none count as `otherwise` where said so.
  int64_t integer(size_t i, int64_t otherwise, bool none_is_absent = false) const;
  bool flag(size_t i, bool otherwise) const { return values_[i] ? truth(*values_[i]) : otherwise; }
  std::string_view text(size_t i, std::string_view otherwise) const;

 private:
  std::string_view function_;
  std::array<const Value*, 6> values_{};
};

int64_t to_integer(const Value& v);  // as Python's operator.index

}  // namespace caravan::tmpl
