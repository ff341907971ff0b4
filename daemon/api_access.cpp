#include "daemon/api_access.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace caravan {

namespace {

std::string_view without_port(std::string_view host) {
  const size_t bracket = host.find(']');
  const size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return host.substr(0, colon);
}

// "localhost", names below it, and loopback addresses, with any port.
bool is_local(std::string_view host_and_port) {
  const std::string host = lower_case(without_port(host_and_port));
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return HostPort{brackets ? host.substr(1, host.size() - 2) : host, 0}.is_loopback();
}

bool is_local_origin(std::string_view origin) {
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && is_local(origin.substr(scheme + 3));
}

bool is_admitted(const AccessOptions& options, std::string_view origin) {
  return std::any_of(options.origins.begin(), options.origins.end(),
                     [&](const std::string& one) { return one == "*" || one == origin; });
}

bool has_key(const HttpRequest& request, const std::string& key) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view given = request.header("authorization");
  return given.size() > kScheme.size() && lower_case(given.substr(0, kScheme.size())) == kScheme &&
         equal_in_constant_time(given.substr(kScheme.size()), key);
}

}  // namespace

void require_key_beyond_loopback(const HostPort& address, const std::string& api_key) {
  if (address.is_loopback() || !api_key.empty()) return;
  fail(
      ErrorCode::kRefused,
      "--api {} can be reached from other machines: give --api-key KEY (or api_key in the configuration), or "
      "listen on 127.0.0.1",
      address.to_string());
}

void check_origin(const AccessOptions& options, const HttpRequest& request) {
  const std::string_view origin = request.header("origin");
  if (!origin.empty() && !is_local_origin(origin) && !is_admitted(options, origin))
    throw ApiError({.status = 403, .code = "origin_not_allowed"},
                   fmt::format("pages of {} may not use this API (see cors_origins)", origin));
  const std::string_view host = request.header("host");
  if (options.api_key.empty() && !host.empty() && !is_local(host))
    throw ApiError(
        {.status = 403, .code = "host_not_allowed"},
        fmt::format("'{}' is not a name of this machine; set an API key to serve other names", host));
}

void check_key(const AccessOptions& options, const HttpRequest& request) {
  if (!options.api_key.empty() && !has_key(request, options.api_key))
    throw ApiError({.status = 401, .code = "invalid_api_key"}, "the API key is missing or wrong");
}

HttpHeaders cors_headers(const AccessOptions& options, const HttpRequest& request) {
  const std::string_view origin = request.header("origin");
  if (origin.empty() || !is_admitted(options, origin)) return {};
  return {{"Access-Control-Allow-Origin", std::string(origin)},
          {"Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"},
          {"Access-Control-Allow-Headers", "Authorization, Content-Type"},
          {"Access-Control-Max-Age", "600"},
          {"Vary", "Origin"}};
}

}  // namespace caravan
