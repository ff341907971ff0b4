#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caravan {

// Why a flag's text is no number from `least` to `most`, as "'x' is no integer from 0 to 9"; empty when it is
// one. Nothing is rounded, cut or saturated on the way.
std::string refuse_integer(std::string_view text, uint64_t least, uint64_t most);
std::string refuse_signed_integer(std::string_view text, int64_t least, int64_t most);
std::string refuse_number(std::string_view text, float least, float most);

}  // namespace caravan
