#include "daemon/api.h"

#include <utility>

#include "base/error.h"
#include "base/ids.h"
#include "base/log.h"
#include "daemon/api_answer.h"
#include "daemon/api_error.h"
#include "daemon/api_exchange.h"
#include "daemon/api_request.h"
#include "daemon/api_status.h"

namespace caravan {

struct Api::RouteInfo {
  Route route;
  std::string_view path;     // as metrics name it
  std::string_view methods;  // as Allow names them
  bool open = false;         // needs no key
};

constexpr std::string_view kRead = "GET, HEAD, OPTIONS";
constexpr std::string_view kPost = "POST, OPTIONS";
constexpr std::string_view kModelPrefix = "/v1/models/";

const Api::RouteInfo Api::kRoutes[] = {
    {Route::kPage, "/", kRead},
    {Route::kHealth, "/health", kRead, true},
    {Route::kMetrics, "/metrics", kRead},
    {Route::kModels, "/v1/models", kRead},
    {Route::kModel, "/v1/models/{id}", kRead},
    {Route::kStatus, "/v1/caravan/status", kRead},
    {Route::kCompletion, "/v1/completions", kPost},
    {Route::kChat, "/v1/chat/completions", kPost},
    {Route::kUnknown, "unknown", ""},
};

const Api::RouteInfo& Api::find_route(std::string_view path) {
  const bool model = path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size();
  for (const RouteInfo& route : kRoutes)
    if (model ? route.route == Route::kModel : route.path == path || route.route == Route::kUnknown)
      return route;
  return kRoutes[std::size(kRoutes) - 1];
}

Api::Api(AccessOptions access, ApiParts parts) : access_(std::move(access)), parts_(parts) {}

void Api::handle(HttpRequest request, std::shared_ptr<HttpResponder> responder) {
  const RouteInfo& route = find_route(request.path);
  HttpResponse response;
  try {
    return answer(route, request, responder);
  } catch (const Error& error) {
    response = error_response(refusal_of(error), error.message());
  }
  for (auto& header : cors_headers(access_, request)) response.headers.push_back(std::move(header));
  if (response.status == 405) response.headers.emplace_back("Allow", route.methods);
  parts_.metrics.request(route.path, response.status);
  log_debug("http_refused peer={} route={} status={}", request.peer, route.path, response.status);
  responder->send(std::move(response));
}

HttpResponse Api::refusal(int status, std::string_view reason) {
  parts_.metrics.request("unknown", status);
  return error_response(refusal_of(status), reason);
}

void Api::answer(const RouteInfo& route, HttpRequest& request,
                 const std::shared_ptr<HttpResponder>& responder) {
  check_origin(access_, request);
  HttpResponse response;
  if (route.route == Route::kUnknown)
    throw ApiError({.status = 404, .code = "unknown_url"},
                   fmt::format("there is no {} {} here", request.method, request.path));
  const bool posts = route.methods == kPost;
  if (request.method == "OPTIONS") {
    response = {.status = 204, .content_type = "", .headers = {{"Allow", std::string(route.methods)}}};
  } else {
    if (!route.open) check_key(access_, request);
    if (posts ? request.method != "POST" : request.method != "GET" && request.method != "HEAD")
      throw ApiError({.status = 405, .code = "method_not_allowed"},
                     fmt::format("{} takes {}, not {}", request.path, route.methods, request.method));
    if (posts) return generate(route, request, responder);
    response = look_up(route.route, request);
  }
  for (auto& header : cors_headers(access_, request)) response.headers.push_back(std::move(header));
  parts_.metrics.request(route.path, response.status);
  responder->send(std::move(response));
}

HttpResponse Api::look_up(Route route, const HttpRequest& request) const {
  if (route == Route::kMetrics)
    return {.content_type = std::string(kMetricsContentType), .body = parts_.metrics.text()};
  const ServiceStatus status = parts_.service.status();
  switch (route) {
    case Route::kPage:
      return {.content_type = "text/plain; charset=utf-8",
              .body = status_table(status, parts_.clock.unix_seconds())};
    case Route::kHealth:
      return health(status);
    case Route::kModels:
      return {.body = model_list_json(status.model, status.started_unix, status.context)};
    case Route::kModel:
      return one_model(status, request.path);
    default:
      return {.body = status_json(status)};
  }
}

HttpResponse Api::health(const ServiceStatus& status) const {
  if (status.ready) return {.body = R"({"status":"ok"})"};
  return error_response({.status = 503, .type = "server_error", .code = "ring_unavailable"},
                        "the ring is not ready: " + status.not_ready_reason);
}

HttpResponse Api::one_model(const ServiceStatus& status, std::string_view path) const {
  const std::string id = percent_decoded(path.substr(kModelPrefix.size()));
  if (id != status.model)
    throw ApiError({.status = 404, .param = "model", .code = "model_not_found"},
                   fmt::format("the model '{}' does not exist", id));
  return {.body = model_json(status.model, status.started_unix, status.context)};
}

void Api::generate(const RouteInfo& route, HttpRequest& request,
                   const std::shared_ptr<HttpResponder>& responder) {
  const ApiKind kind = route.route == Route::kChat ? ApiKind::kChat : ApiKind::kCompletion;
  ApiRequest parsed = parse_api_request(kind, request.body);
  const ServiceStatus status = parts_.service.status();
  if (!parsed.model.empty() && parsed.model != status.model)
    throw ApiError({.status = 404, .param = "model", .code = "model_not_found"},
                   fmt::format("the model '{}' does not exist; this is '{}'", parsed.model, status.model));
  if (!parsed.seed) parsed.seed = parts_.random.next();
  uint8_t random[12];
  parts_.random.fill(random);
  ApiAnswer answer{.kind = kind,
                   .id = (kind == ApiKind::kChat ? "chatcmpl-" : "cmpl-") + to_hex(random, sizeof random),
                   .created_unix = parts_.clock.unix_seconds(),
                   .model = status.model,
                   .fingerprint = "fp_" + status.fingerprint.substr(0, 12)};
  const auto exchange = std::make_shared<ApiExchange>(
      ApiExchange::Parts{parts_.service, parts_.codec, parts_.metrics}, std::move(parsed), std::move(answer),
      responder, ApiExchange::Route{std::string(route.path), cors_headers(access_, request)});
  exchange->start(status.context);
}

}  // namespace caravan
