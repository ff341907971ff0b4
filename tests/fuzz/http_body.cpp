// Bodies of the two generating routes, by the first byte, through the whole API over a fake service: every
// one gets exactly one complete answer, and that is JSON or a stream of events, whatever the bytes are.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/check.h"
#include "daemon/api.h"
#include "tests/daemon/fake_generation.h"
#include "tests/daemon/fake_responder.h"

namespace caravan {
namespace {

struct Fixture {
  EventLoop loop;
  FakeGeneration service{loop};
  ByteCodec codec;
  Metrics metrics{[this] { return service.status(); }, "0"};
  ManualClock clock;
  SeededRandom random{1};
  Api api{AccessOptions(), ApiParts{service, codec, metrics, clock, random}};
};

void check_stream(const std::string& body) {
  for (size_t at = 0; at < body.size();) {
    CHECK(body.compare(at, 6, "data: ") == 0);
    const size_t end = body.find("\n\n", at);
    CHECK(end != std::string::npos);
    const std::string data = body.substr(at + 6, end - at - 6);
    CHECK((data == "[DONE]" ? end + 2 == body.size() : nlohmann::json::accept(data)));
    at = end + 2;
  }
}

void run(Fixture& fixture, std::string path, std::string body) {
  HttpRequest request;
  request.method = "POST";
  request.path = std::move(path);
  request.body = std::move(body);
  const auto responder = std::make_shared<FakeResponder>();
  fixture.api.handle(std::move(request), responder);
  CHECK(fixture.loop.run_until([&] { return responder->ended; }, std::chrono::seconds(9)));
  CHECK(fixture.service.status().requests_running == 0u);
  const int status = responder->head.status;
  CHECK((status == 200 || status == 400 || status == 404 || status == 429));
  if (responder->head.content_type == "application/json")
    CHECK(nlohmann::json::accept(responder->body));
  else
    check_stream(responder->body);
}

}  // namespace
}  // namespace caravan

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static caravan::Fixture fixture;
  if (size == 0) return 0;
  fixture.service.context = 48;
  fixture.service.most_jobs = 16;
  fixture.codec.conversations.clear();
  fixture.service.seeds.clear();
  const bool chat = data[0] == 'm' || data[0] == 1;
  std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  run(fixture, chat ? "/v1/chat/completions" : "/v1/completions", std::move(body));
  return 0;
}
