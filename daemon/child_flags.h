#pragma once

#include <string>
#include <vector>

#include "base/config.h"

namespace caravan {

// For a child of this program that is to run the same engine on the same model, with a state folder of its
// own.

// MODEL as the child is to be given it: a path that does not depend on where it runs, or an imported name.
std::string child_model(const std::string& model);
// `config.threads` and so on as flags; the archive's size is not among them.
std::vector<std::string> child_flags(const Config& config);

}  // namespace caravan
