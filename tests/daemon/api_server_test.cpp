#include <gtest/gtest.h>

#include "tests/daemon/api_server.h"

namespace caravan {
namespace {

using namespace std::chrono_literals;

std::string post(const std::string& body) {
  return "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

TEST(ApiServer, StreamsOverASocketAndKeepsTheConnection) {
  ApiServer server;
  RawClient client(server.address.port);
  for (int i = 0; i < 2; ++i) {
    client.send(post(R"({"prompt":"a","temperature":0,"stream":true})"));
    const std::string answer = client.read_until("data: [DONE]\n\n\r\n0\r\n\r\n");
    EXPECT_NE(answer.find("text/event-stream"), std::string::npos);
    EXPECT_NE(answer.find("\"text\":\"O\""), std::string::npos);
  }
}

TEST(ApiServer, AClientThatClosesItsSocketCancelsTheGeneration) {
  ApiServer server;
  server.service.pace = 1ms;
  for (const char* stream : {"true", "false"}) {
    RawClient client(server.address.port);
    client.send(post(std::string(R"({"prompt":"a","max_tokens":4000,"stream":)") + stream + "}"));
    EXPECT_TRUE(server.thread->wait_for([&] { return server.service.generated > 3; }));
    client.close();
    EXPECT_TRUE(server.thread->wait_for([&] { return server.service.status().requests_running == 0; }));
    server.thread->on_loop([&] { server.service.generated = 0; });
  }
  EXPECT_EQ(server.thread->on_loop([&] { return server.service.cancelled; }), 2u);
}

TEST(ApiServer, AReaderThatIsTooSlowCancelsTheGeneration) {
  HttpServerOptions options;
  options.max_queue_bytes = 32u << 10;
  ApiServer server({}, options);
  server.service.context = 1u << 30;
  RawClient client(server.address.port, 4096);
  client.send(post(R"({"prompt":"a","max_tokens":16000000,"logprobs":5,"stream":true})"));
  EXPECT_TRUE(server.thread->wait_for([&] { return server.service.cancelled == 1; }));
}

TEST(ApiServer, RefusalsOfTheServerItselfHaveTheSameShape) {
  ApiServer server;
  RawClient client(server.address.port);
  client.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n");
  const std::string answer = client.read_response();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 413 ")) << answer;
  EXPECT_NE(answer.find(R"("type":"invalid_request_error")"), std::string::npos) << answer;
  EXPECT_NE(answer.find("longer than 16 MiB"), std::string::npos) << answer;
  RawClient wordy(server.address.port);
  wordy.send("GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + std::string(20'000, 'a') + "\r\n\r\n");
  const std::string refused = wordy.read_response();
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 431 ")) << refused;
  EXPECT_NE(refused.find("longer than 16 KiB"), std::string::npos) << refused;
  RawClient newer(server.address.port);
  newer.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  const std::string version = newer.read_response();
  EXPECT_TRUE(version.starts_with("HTTP/1.1 505 ")) << version;
  EXPECT_NE(version.find(R"("type":"invalid_request_error")"), std::string::npos) << version;
}

TEST(ApiServer, ItsEndCancelsWhatGenerates) {
  ApiServer server;
  server.service.pace = 1ms;
  RawClient client(server.address.port);
  client.send(post(R"({"prompt":"a","max_tokens":4000,"stream":true})"));
  client.read_until("data: ");
  server.thread->on_loop([&] { server.server.reset(); });
  EXPECT_EQ(server.thread->on_loop([&] { return server.service.cancelled; }), 1u);
}

}  // namespace
}  // namespace caravan
