#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "daemon/http.h"

namespace caravan {

// What the API answers instead of a result, in OpenAI's words. `param` and `code` may be empty (null).
struct ApiRefusal {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string param{}, code{};
};

// Thrown while a request is read or started, caught where it came in.
class ApiError : public Error {
 public:
  ApiError(ApiRefusal refusal, std::string message)
      : Error(ErrorCode::kInvalidArgument, std::move(message)), refusal_(std::move(refusal)) {}
  const ApiRefusal& refusal() const { return refusal_; }

 private:
  ApiRefusal refusal_;
};

// 400, naming the parameter.
[[noreturn]] void refuse_param(std::string_view param, std::string message, std::string_view code = "");

// How an error of generation looks: status, type and code.
ApiRefusal refusal_of(const Error& error);
// For statuses of HTTP itself.
ApiRefusal refusal_of(int status);

// {"error": {"message", "type", "param", "code"}}
std::string error_json(const ApiRefusal& refusal, std::string_view message);
HttpResponse error_response(const ApiRefusal& refusal, std::string_view message);

}  // namespace caravan
