#pragma once

#include <string_view>

#include "model/template_value.h"

// What templates can name. A filter or test gets the value in front of it as `self`.
namespace caravan::tmpl {

NativeFunction find_filter(std::string_view name);  // null if there is none
NativeFunction find_test(std::string_view name);

// Groups of filters, for find_filter.
NativeFunction find_sequence_filter(std::string_view name);
NativeFunction find_selection_filter(std::string_view name);

}  // namespace caravan::tmpl
