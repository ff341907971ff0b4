#include "peers/endpoint.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/limits.h"

namespace caravan {
namespace {

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_';
}
bool is_ipv6(char c) {
  return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || (c >= '0' && c <= '9') || c == ':' || c == '.';
}

}  // namespace

Endpoint parse_endpoint(std::string_view text, bool for_listening) {
  constexpr std::string_view kScheme = "tcp://";
  const auto refuse = [&](const char* why) {
    const std::string shown(text.substr(0, limits::kMaxNameBytes));
    fail(ErrorCode::kInvalidArgument, "\"{}\": {}; an endpoint is HOST:PORT or [IPV6]:PORT", shown, why);
  };
  std::string_view rest = text;
  if (rest.substr(0, kScheme.size()) == kScheme) rest.remove_prefix(kScheme.size());
  if (rest.size() + kScheme.size() > limits::kMaxNameBytes) refuse("too long");
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) refuse("no port");
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  Endpoint out;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size()) refuse("not a port");
  if (out.port == 0 && !for_listening) refuse("port 0 cannot be reached");
  out.is_ipv6 = !host.empty() && host.front() == '[';
  if (out.is_ipv6) {
    if (host.size() < 4 || host.back() != ']') refuse("an open bracket");
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty() || !std::all_of(host.begin(), host.end(), out.is_ipv6 ? is_ipv6 : is_name))
    refuse("not a host");
  out.host = std::string(host);
  return out;
}

std::string to_string(const Endpoint& endpoint) {
  const std::string host = endpoint.is_ipv6 ? "[" + endpoint.host + "]" : endpoint.host;
  return "tcp://" + host + ":" + std::to_string(endpoint.port);
}

}  // namespace caravan
