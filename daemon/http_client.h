#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "daemon/event_loop.h"
#include "daemon/http.h"

namespace caravan {

struct HttpClientOptions {
  Duration connect_timeout = std::chrono::seconds(5);
  Duration silence_timeout = std::chrono::minutes(10);  // without a byte of an answer
  size_t max_body_bytes = 64u << 20;                    // of an answer that is kept whole
};

// A client for our own API: one connection for each request. It runs the loop while it waits, so signals and
// timers go on. One thread.
class HttpClient {
 public:
  HttpClient(EventLoop& loop, HostPort server, std::string api_key, HttpClientOptions options);
  HttpClient(EventLoop& loop, HostPort server, std::string api_key)
      : HttpClient(loop, std::move(server), std::move(api_key), HttpClientOptions()) {}
  ~HttpClient();

  // Throws kUnavailable (nobody answers there), kTimeout, kMalformed (no HTTP), kLimit (an endless answer).
  HttpResponse request(std::string_view method, std::string_view target, std::string body = "");

  // An answer of status 200 goes to `on_piece` as it arrives, and not into the response. False when abort()
  // ended it.
  bool stream(std::string_view method, std::string_view target, std::string body,
              const std::function<void(std::string_view)>& on_piece, HttpResponse& response);
  // From a task of the loop: ends the stream() that is running.
  void abort();

 private:
  class Exchange;
  EventLoop& loop_;
  const HostPort server_;
  const std::string api_key_;
  const HttpClientOptions options_;
  std::shared_ptr<Exchange> running_;
};

}  // namespace caravan
