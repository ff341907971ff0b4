#include "daemon/serving.h"

#include <algorithm>

#include "base/limits.h"
#include "daemon/api_access.h"
#include "daemon/version.h"

namespace caravan {

namespace {

// A request longer than the context could only be refused, after it had taken its own size several times:
// a token is some bytes of text, of JSON some more, and a list of prompts may be longer.
size_t body_limit(uint32_t context) {
  constexpr size_t kLeast = 1u << 20, kPerToken = 32;
  return std::min(limits::kMaxHttpBodyBytes, kLeast + kPerToken * context);
}

}  // namespace

Serving::Serving(EventLoop& loop, const Clock& clock, Random& random, const Config& config, HeadProcess& head)
    : codec_(head.text(), head.name(), clock),
      metrics_([&head] { return head.service().status(); }, version_text()) {
  HttpServerOptions options;
  options.address = parse_host_port(config.api, "--api");
  options.max_body_bytes = body_limit(head.context());
  require_key_beyond_loopback(options.address, config.api_key);
  AccessOptions access;
  access.api_key = config.api_key;
  access.origins = config.cors_origins;
  api_ = std::make_unique<Api>(std::move(access), ApiParts{head.service(), codec_, metrics_, clock, random});
  server_ = std::make_unique<HttpServer>(loop, options, *api_);
}

}  // namespace caravan
