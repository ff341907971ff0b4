#pragma once

#include <string_view>
#include <vector>

namespace caravan {

// The known word that takes the fewest letters inserted, dropped or changed to become `word`; the first of
// equals. Empty when there is none. Costs the product of the lengths for every known word.
std::string_view nearest_word(std::string_view word, const std::vector<std::string_view>& known);

}  // namespace caravan
