#include "model/template_arguments.h"

#include <algorithm>

#include "base/check.h"

namespace caravan::tmpl {

Bound::Bound(std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t required)
    : function_(function) {
  CHECK((names.size() <= values_.size()));
  if (arguments.positional.size() > names.size())
    raise("{}() takes at most {} arguments ({} given)", function, names.size(), arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) raise("{}() got an unexpected keyword argument '{}'", function, name);
    const Value*& slot = values_[static_cast<size_t>(at - names.begin())];
    if (slot) raise("{}() got multiple values for argument '{}'", function, name);
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) raise("{}() missing required argument '{}'", function, *(names.begin() + i));
}

int64_t Bound::integer(size_t i, int64_t otherwise, bool none_is_absent) const {
  if (!values_[i] || (none_is_absent && values_[i]->is_none())) return otherwise;
  return to_integer(*values_[i]);
}

std::string_view Bound::text(size_t i, std::string_view otherwise) const {
  if (!values_[i]) return otherwise;
  if (!values_[i]->is_string()) raise("{}() needs a str, not {}", function_, type_name(*values_[i]));
  return values_[i]->text();
}

int64_t to_integer(const Value& v) {
  if (v.is_undefined()) raise("{}", v.as<Undefined>().message());
  if (v.is(Kind::kHugeInt)) fail(ErrorCode::kUnsupported, "an integer of more than 64 bits");
  if (!v.is_integer()) raise("'{}' object cannot be interpreted as an integer", type_name(v));
  return v.as_int();
}

}  // namespace caravan::tmpl
