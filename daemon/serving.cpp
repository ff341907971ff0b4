#include "daemon/serving.h"

#include "daemon/api_access.h"
#include "daemon/version.h"

namespace caravan {

Serving::Serving(EventLoop& loop, const Clock& clock, Random& random, const Config& config, HeadProcess& head)
    : codec_(head.text(), head.name(), clock),
      metrics_([&head] { return head.service().status(); }, version_text()) {
  HttpServerOptions options;
  options.address = parse_host_port(config.api, "--api");
  require_key_beyond_loopback(options.address, config.api_key);
  AccessOptions access;
  access.api_key = config.api_key;
  access.origins = config.cors_origins;
  api_ = std::make_unique<Api>(std::move(access), ApiParts{head.service(), codec_, metrics_, clock, random});
  server_ = std::make_unique<HttpServer>(loop, options, *api_);
}

}  // namespace caravan
