#pragma once

#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/limits.h"
#include "daemon/event_loop.h"
#include "daemon/http.h"

namespace caravan {

struct HttpServerOptions {
  HostPort address{"127.0.0.1", 8080};  // port 0: any free one
  size_t max_header_bytes = limits::kMaxHttpHeaderBytes;
  size_t max_body_bytes = limits::kMaxHttpBodyBytes;
  size_t max_bodies_bytes = 2u << 20;  // that are being received, but a single one
  uint32_t max_connections = limits::kMaxHttpConnections;
  size_t max_queue_bytes = limits::kMaxHttpQueueBytes;  // of a stream that its client does not read
  size_t max_queues_bytes = 4u << 20;                   // of all such streams
  Duration head_timeout = std::chrono::seconds(15);     // for a request's head, from its first byte
  Duration body_timeout = std::chrono::seconds(60);     // for its body
  Duration idle_timeout = std::chrono::seconds(75);     // of a connection between two requests
  Duration write_timeout = std::chrono::seconds(30);    // without the client taking a single byte
};

// HTTP/1.0 and 1.1 (Beast) on the loop's thread. The loop and the handler outlive the server; its destructor
// closes every connection, and requests in the works are told that their client is gone.
class HttpServer {
 public:
  // Listens at once. Throws kIo naming the address.
  HttpServer(EventLoop& loop, HttpServerOptions options, HttpHandler& handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Where it listens, with the real port.
  const HostPort& address() const;
  uint32_t connections() const;

 private:
  class Shared;
  class Connection;
  class Exchange;
  std::shared_ptr<Shared> shared_;
};

}  // namespace caravan
