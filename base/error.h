#pragma once

#include <fmt/core.h>

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace caravan {

enum class ErrorCode {
  kInvalidArgument,  // a flag, a request or a configuration that cannot be meant
  kMalformed,        // bytes that break their format
  kUnsupported,      // well-formed, but nothing here can run it
  kNotFound,
  kLimit,        // a size over a named limit (base/limits.h)
  kOutOfMemory,  // a budget is used up
  kIo,           // the operating system refused
  kRefused,      // a key, ticket or contract was not accepted
  kUnavailable,  // a peer or ring is not there (any more)
  kTimeout,
  kCancelled,
};

// The name of a code as logs and API errors print it, such as "malformed".
std::string_view name(ErrorCode code);

// The one exception type: bad input or a broken environment. `message` names file, tensor, peer and reason.
// Thrown by readers and parsers; caught at the request, the connection and main, and at a thread's entry.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace caravan
