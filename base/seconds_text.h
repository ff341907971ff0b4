#pragma once

#include <string>

namespace caravan {

// For people, in the unit that fits: "12.3 ms", "4.56 s", "3 min 51 s", "2 h 5 min", "3 days 4 h".
std::string seconds_text(double seconds);

}  // namespace caravan
