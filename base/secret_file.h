#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/random.h"

namespace caravan {

using Secret = std::array<uint8_t, 32>;

// A secret in a file of its own, FOLDER/NAME, which is made at the first call, and the folder with it: a line
// that says what it is, then hexadecimal digits. Readable by its owner alone. Of several processes that make
// it at once all get the same. Throws kIo (naming --state), kRefused for a file that others may read,
// kMalformed for one that says something else.
Secret load_or_create_secret(const std::string& folder, const std::string& name, std::string_view first_line,
                             Random& random, const std::function<Secret()>& make);

}  // namespace caravan
