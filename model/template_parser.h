#pragma once

#include <string_view>

#include "model/template_tree.h"

namespace caravan::tmpl {

// Throws kMalformed for what Jinja refuses when it compiles, kUnsupported for what only this engine lacks,
// kLimit for a template too large or nested too deep; all name the line.
Tree parse_template(std::string_view source);

}  // namespace caravan::tmpl
