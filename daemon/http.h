#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   // as sent, such as "GET"
  std::string path;     // of the target, still percent-encoded
  std::string query;    // after the '?', without it
  HttpHeaders headers;  // names in lower case
  std::string body;
  std::string peer;  // the client's address

  // The first header of that (lower-case) name; empty when there is none.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers{};  // further ones; the server adds length, date and connection
  std::string body{};
};

// The way back of one request. Either send(), once, or start_stream(), write() and end(). Dropped without an
// answer, the client gets a 500 or, inside a stream, a cut connection. Everything for a client that is gone
// is ignored. The server's thread; no call ever runs a callback inside it.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;
  virtual void send(HttpResponse response) = 0;
  // `head.body` is the first piece, perhaps empty.
  virtual void start_stream(HttpResponse head) = 0;
  virtual void write(std::string_view piece) = 0;
  virtual void end() = 0;
  // Called once when the client leaves or reads too slowly before the answer is complete; then never again.
  virtual void on_disconnect(std::function<void()> callback) = 0;
};

// What the server talks to. The server's thread.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  virtual void handle(HttpRequest request, std::shared_ptr<HttpResponder> responder) = 0;
  // The answer to what is not a request: malformed, too large, too slow, or one connection too many.
  virtual HttpResponse refusal(int status, std::string_view reason) = 0;
};

// "404" -> "Not Found".
std::string_view http_reason(int status);

struct HostPort {
  std::string host;  // an IPv4 or IPv6 literal, without brackets
  uint16_t port = 0;
  // An IPv6 host in brackets.
  std::string to_string() const;
  bool is_loopback() const;
};
// "127.0.0.1:8080", "[::1]:0", "localhost:80" (which is 127.0.0.1), or ":8080" with `default_host`. Throws
// kInvalidArgument, naming `what` (a flag or key).
HostPort parse_host_port(std::string_view text, std::string_view what,
                         std::string_view default_host = "127.0.0.1");

// %41 -> A; what is no escape stays.
std::string percent_decoded(std::string_view text);
// Header values and secrets: no bytes below 0x20 or 0x7f.
bool is_printable(std::string_view text);
std::string lower_case(std::string_view text);
// The answer takes the same time wherever the texts differ (their lengths may show).
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace caravan
