#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// "; did you mean 'serve'?" with the known word that takes the fewest letters inserted, dropped or changed to
// become `word`, the first of equals; empty when none is close: a third of the letters at most, or one word
// inside the other. Dashes in front do not count. Costs the product of the lengths for every known word.
std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& known);

}  // namespace caravan
