#include "daemon/api_error.h"

#include <nlohmann/json.hpp>

namespace caravan {

void refuse_param(std::string_view param, std::string message, std::string_view code) {
  throw ApiError({.status = 400, .param = std::string(param), .code = std::string(code)}, std::move(message));
}

ApiRefusal refusal_of(const Error& error) {
  if (const auto* api = dynamic_cast<const ApiError*>(&error)) return api->refusal();
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kMalformed:
    case ErrorCode::kUnsupported:
      return {.status = 400};
    case ErrorCode::kNotFound:
      return {.status = 404, .code = "not_found"};
    case ErrorCode::kLimit:
      return {.status = 429, .type = "rate_limit_error", .code = "too_many_requests"};
    case ErrorCode::kOutOfMemory:
      return {.status = 503, .type = "server_error", .code = "out_of_memory"};
    case ErrorCode::kUnavailable:
      return {.status = 503, .type = "server_error", .code = "ring_unavailable"};
    case ErrorCode::kTimeout:
      return {.status = 504, .type = "server_error", .code = "timeout"};
    case ErrorCode::kCancelled:
      return {.status = 503, .type = "server_error", .code = "cancelled"};
    case ErrorCode::kIo:
    case ErrorCode::kRefused:
      break;
  }
  return {.status = 500, .type = "server_error", .code = std::string(name(error.code()))};
}

ApiRefusal refusal_of(int status) {
  // A version that is not spoken here is the client's choice.
  if (status >= 500 && status != 505) return {.status = status, .type = "server_error"};
  return {.status = status};
}

std::string error_json(const ApiRefusal& refusal, std::string_view message) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
  };
  const nlohmann::ordered_json json = {{"error",
                                        {{"message", message},
                                         {"type", refusal.type},
                                         {"param", or_null(refusal.param)},
                                         {"code", or_null(refusal.code)}}}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

HttpResponse error_response(const ApiRefusal& refusal, std::string_view message) {
  HttpResponse response{.status = refusal.status, .body = error_json(refusal, message)};
  if (refusal.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (refusal.status == 429 || refusal.status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace caravan
