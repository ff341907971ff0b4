#pragma once

#include <memory>
#include <optional>

#include "daemon/api.h"
#include "daemon/http_server.h"
#include "tests/daemon/fake_generation.h"
#include "tests/daemon/raw_client.h"

namespace caravan {

// The API over real sockets and the fake service, on a thread of its own.
struct ApiServer {
  explicit ApiServer(AccessOptions access = {}, HttpServerOptions options = {}) {
    options.address = {"127.0.0.1", 0};
    api.emplace(std::move(access), ApiParts{service, codec, metrics, clock, random});
    server.emplace(loop, options, *api);
    address = server->address();
    thread.emplace(loop);
  }
  ~ApiServer() {
    thread.reset();
    server.reset();
  }

  EventLoop loop;
  FakeGeneration service{loop};
  ByteCodec codec;
  Metrics metrics{[this] { return service.status(); }, "1.2.3"};
  SystemClock clock;
  SystemRandom random;
  std::optional<Api> api;
  std::optional<HttpServer> server;
  HostPort address;
  std::optional<LoopThread> thread;
};

}  // namespace caravan
