#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caravan {

// Where a peer listens: "tcp://HOST:PORT", HOST a name, an IPv4 address or an IPv6 address in brackets.
struct Endpoint {
  std::string host;  // without brackets
  uint16_t port = 0;
  bool is_ipv6 = false;
};

// Accepts a missing "tcp://". Throws kInvalidArgument. Port 0 (any free one) is for listening alone.
Endpoint parse_endpoint(std::string_view text, bool for_listening);
std::string to_string(const Endpoint& endpoint);

}  // namespace caravan
