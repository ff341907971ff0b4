#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/random.h"
#include "daemon/api_access.h"
#include "daemon/generation.h"
#include "daemon/http.h"
#include "daemon/metrics.h"
#include "daemon/prompt_codec.h"

namespace caravan {

// What the API is made of; all of it outlives the API.
struct ApiParts {
  GenerationService& service;
  const PromptCodec& codec;
  Metrics& metrics;
  const Clock& clock;
  Random& random;
};

// The OpenAI-compatible API and our own routes over it. One thread, the HTTP server's. Destroy the server
// first: that cancels what still generates.
//
// GET  /  /health  /metrics  /v1/models  /v1/models/{id}  /v1/caravan/status
// POST /v1/completions  /v1/chat/completions
class Api final : public HttpHandler {
 public:
  Api(AccessOptions access, ApiParts parts);
  void handle(HttpRequest request, std::shared_ptr<HttpResponder> responder) override;
  HttpResponse refusal(int status, std::string_view reason) override;

 private:
  enum class Route { kPage, kHealth, kMetrics, kModels, kModel, kStatus, kCompletion, kChat, kUnknown };
  struct RouteInfo;
  static const RouteInfo kRoutes[];
  static const RouteInfo& find_route(std::string_view path);

  void answer(const RouteInfo& route, HttpRequest& request, const std::shared_ptr<HttpResponder>& responder);
  HttpResponse look_up(Route route, const HttpRequest& request) const;
  HttpResponse health(const ServiceStatus& status) const;
  HttpResponse one_model(const ServiceStatus& status, std::string_view path) const;
  void generate(const RouteInfo& route, HttpRequest& request,
                const std::shared_ptr<HttpResponder>& responder);

  const AccessOptions access_;
  const ApiParts parts_;
};

}  // namespace caravan
