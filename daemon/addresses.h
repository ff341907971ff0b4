#pragma once

#include <string>
#include <vector>

namespace caravan {

// Bound endpoints as others can reach them: a wildcard host becomes the addresses of this machine's
// interfaces, loopback last; at most limits::kMaxEndpoints. Throws kIo.
std::vector<std::string> reachable_endpoints(const std::vector<std::string>& bound);

}  // namespace caravan
