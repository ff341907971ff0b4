#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "daemon/generation.h"

namespace caravan {

// What /metrics shows (Prometheus). Requests and latencies are observed here; everything that is counted
// elsewhere is read from the service when the page is made, so that there is one count of each thing (law 8).
// One thread.
class Metrics {
 public:
  // `status` is called by text() alone.
  Metrics(std::function<ServiceStatus()> status, std::string version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // `route` is one of few fixed names, never a client's text.
  void request(std::string_view route, int status);
  // From the acceptance of a request to its first token.
  void first_token(double seconds);
  // Between two tokens of a request.
  void next_token(double seconds);

  // Text exposition format 0.0.4.
  std::string text() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace caravan
