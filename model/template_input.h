#pragma once

#include <memory>
#include <string_view>

#include "model/template_value.h"

namespace caravan::tmpl {

// A JSON object's text as the variables of a template. Throws kMalformed for what is no JSON object, kLimit
// for one too large or nested too deep; both before the text is turned into values.
std::shared_ptr<Dict> parse_input(std::string_view json);

}  // namespace caravan::tmpl
