#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "base/random.h"
#include "daemon/api.h"
#include "daemon/event_loop.h"
#include "daemon/head_process.h"
#include "daemon/http_server.h"
#include "daemon/metrics.h"
#include "daemon/model_prompt_codec.h"

namespace caravan {

// The HTTP API over a head: listens from the start; /health answers 200 once the ring is ready. Control
// thread; goes before the head does.
class Serving {
 public:
  // Throws kIo naming the address, kRefused for an address beyond loopback without a key.
  Serving(EventLoop& loop, const Clock& clock, Random& random, const Config& config, HeadProcess& head);
  // Where it listens, HOST:PORT.
  std::string address() const { return server_->address().to_string(); }

 private:
  ModelPromptCodec codec_;
  Metrics metrics_;
  std::unique_ptr<Api> api_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace caravan
