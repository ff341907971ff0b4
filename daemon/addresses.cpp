#include "daemon/addresses.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/limits.h"
#include "peers/endpoint.h"

namespace caravan {

namespace {

// Of interfaces that are up, other machines' way in first. Link-local IPv6 addresses need a scope and are
// left out.
std::vector<std::string> interface_addresses(bool ipv6) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0)
    fail(ErrorCode::kIo, "the network interfaces cannot be listed: {}", std::strerror(errno));
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  std::vector<std::string> outside, loopback;
  for (const ifaddrs* one = list; one; one = one->ifa_next) {
    if (!one->ifa_addr || !(one->ifa_flags & IFF_UP)) continue;
    const int family = one->ifa_addr->sa_family;
    char text[INET6_ADDRSTRLEN] = {};
    if (family == AF_INET) {
      const auto* address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
      ::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
    } else if (family == AF_INET6 && ipv6) {
      const auto* address = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
      if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;
      ::inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text);
    } else {
      continue;
    }
    (one->ifa_flags & IFF_LOOPBACK ? loopback : outside).push_back(text);
  }
  outside.insert(outside.end(), loopback.begin(), loopback.end());
  return outside;
}

}  // namespace

std::vector<std::string> reachable_endpoints(const std::vector<std::string>& bound) {
  std::vector<std::string> reachable;
  for (const std::string& text : bound) {
    const Endpoint endpoint = parse_endpoint(text, true);
    if (endpoint.host != "0.0.0.0" && endpoint.host != "::") {
      reachable.push_back(text);
      continue;
    }
    for (const std::string& address : interface_addresses(endpoint.host == "::"))
      reachable.push_back(
          to_string(Endpoint{address, endpoint.port, address.find(':') != std::string::npos}));
  }
  if (reachable.size() > limits::kMaxEndpoints) reachable.resize(limits::kMaxEndpoints);
  return reachable;
}

}  // namespace caravan
