#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "daemon/api.h"
#include "tests/daemon/fake_generation.h"
#include "tests/daemon/fake_responder.h"

namespace caravan {

// The API over a fake service, without sockets.
struct ApiFixture : ::testing::Test {
  std::shared_ptr<FakeResponder> send(std::string method, std::string path, std::string body = "",
                                      HttpHeaders headers = {}) {
    HttpRequest request;
    request.method = std::move(method);
    request.path = std::move(path);
    request.body = std::move(body);
    request.headers = std::move(headers);
    auto responder = std::make_shared<FakeResponder>();
    if (!api) api = std::make_unique<Api>(access, ApiParts{service, codec, metrics, clock, random});
    api->handle(std::move(request), responder);
    return responder;
  }
  // Until the answer is complete.
  std::shared_ptr<FakeResponder> ask(std::string method, std::string path, std::string body = "",
                                     HttpHeaders headers = {}) {
    auto responder = send(std::move(method), std::move(path), std::move(body), std::move(headers));
    EXPECT_TRUE(loop.run_until([&] { return responder->ended; }, std::chrono::seconds(10)));
    return responder;
  }
  std::shared_ptr<FakeResponder> complete(std::string body) {
    return ask("POST", "/v1/completions", std::move(body));
  }
  std::shared_ptr<FakeResponder> chat(std::string body) {
    return ask("POST", "/v1/chat/completions", std::move(body));
  }

  EventLoop loop;
  FakeGeneration service{loop};
  ByteCodec codec;
  Metrics metrics{[this] { return service.status(); }, "1.2.3"};
  ManualClock clock;
  SeededRandom random{7};
  AccessOptions access;
  std::unique_ptr<Api> api;
};

}  // namespace caravan
