#pragma once

#include <string>
#include <string_view>

namespace caravan {

// What `caravan --help` says above its list of commands.
std::string about_text();
// Examples for `caravan COMMAND --help`: a few lines that can be typed as they stand. Empty for a word that
// is no command.
std::string examples_of(std::string_view command);

}  // namespace caravan
