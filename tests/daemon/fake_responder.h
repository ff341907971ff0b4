#pragma once

#include <functional>
#include <string>
#include <utility>

#include "base/check.h"
#include "daemon/http.h"

namespace caravan {

// Keeps what a handler answers.
class FakeResponder : public HttpResponder {
 public:
  void send(HttpResponse response) override {
    CHECK(!started);
    started = ended = true;
    head = std::move(response);
    body = head.body;
    disconnect = nullptr;
  }
  void start_stream(HttpResponse response) override {
    CHECK(!started);
    started = true;
    head = std::move(response);
    body = head.body;
  }
  void write(std::string_view piece) override {
    CHECK((started && !ended));
    if (!gone) body += piece;
  }
  void end() override {
    CHECK((started && !ended));
    ended = true;
    disconnect = nullptr;
  }
  void on_disconnect(std::function<void()> callback) override {
    if (!ended) disconnect = std::move(callback);
  }

  // What the server does when the client leaves.
  void leave() {
    gone = true;
    if (const auto callback = std::exchange(disconnect, nullptr)) callback();
  }
  std::string header(std::string_view name) const {
    for (const auto& [key, value] : head.headers)
      if (key == name) return value;
    return {};
  }

  bool started = false, ended = false, gone = false;
  HttpResponse head;
  std::string body;
  std::function<void()> disconnect;
};

}  // namespace caravan
