#pragma once

#include <string>

namespace caravan {

// "caravan 0.1.0".
std::string version_text();

}  // namespace caravan
