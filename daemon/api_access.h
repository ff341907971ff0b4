#pragma once

#include <string>
#include <vector>

#include "daemon/api_error.h"
#include "daemon/http.h"

namespace caravan {

struct AccessOptions {
  std::string api_key;  // empty: none is asked for
  // Of pages that may call from a browser, such as "https://example.org"; "*" is any. None by default.
  std::vector<std::string> origins;
};

// Beyond loopback the API is served with a key only. Throws kRefused naming the flags.
void require_key_beyond_loopback(const HostPort& address, const std::string& api_key);

// Throws ApiError 403 for a web page that is not let in. Without a key, a foreign Host is refused as well: a
// page whose name was made to point here (DNS rebinding) shows itself by it.
void check_origin(const AccessOptions& options, const HttpRequest& request);
// Throws ApiError 401 for a missing or wrong key.
void check_key(const AccessOptions& options, const HttpRequest& request);

// What a browser of an admitted origin wants to read; nothing for others.
HttpHeaders cors_headers(const AccessOptions& options, const HttpRequest& request);

}  // namespace caravan
