#pragma once

#include <string>

namespace caravan {

// "caravan 0.1.0".
std::string version_text();
// What tells this build from every other: the linker's hash over the program. Empty where it left none.
std::string build_text();

}  // namespace caravan
