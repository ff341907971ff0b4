#include "daemon/http_server.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "tests/daemon/raw_client.h"

namespace caravan {
namespace {

using namespace std::chrono_literals;

// Answers with what it was asked; "/stream..." start streams that the test continues, "/wait" is never
// answered,
// "/drop" is dropped, "/throw" throws.
class EchoHandler : public HttpHandler {
 public:
  void handle(HttpRequest request, std::shared_ptr<HttpResponder> responder) override {
    ++handled;
    if (request.path == "/drop") return;
    if (request.path == "/throw") throw std::runtime_error("in the handler");
    if (request.path == "/wait" || request.path == "/stream") {
      responder->on_disconnect([this] { ++disconnects; });
      if (request.path == "/stream") responder->start_stream({.content_type = "text/event-stream"});
      kept.push_back(responder);
      return;
    }
    std::string body = request.method + " " + request.path + "?" + request.query + " " + request.body;
    if (request.path == "/big") body.assign(8u << 20, 'x');
    responder->send({.content_type = "text/plain", .body = body});
  }
  HttpResponse refusal(int status, std::string_view reason) override {
    return {.status = status, .content_type = "text/plain", .body = std::string(reason)};
  }

  int handled = 0, disconnects = 0;
  std::vector<std::shared_ptr<HttpResponder>> kept;
};

struct HttpServerTest : ::testing::Test {
  void serve(HttpServerOptions options = {}) {
    options.address = {"127.0.0.1", 0};
    server = std::make_unique<HttpServer>(loop, options, handler);
    port = server->address().port;
    thread.emplace(loop);
  }
  ~HttpServerTest() override { thread.reset(); }
  std::string ask(std::string_view bytes) {
    RawClient client(port);
    client.send(bytes);
    return client.read_response();
  }

  EventLoop loop;
  EchoHandler handler;
  std::unique_ptr<HttpServer> server;
  uint16_t port = 0;
  std::optional<LoopThread> thread;
};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  serve();
  RawClient client(port);
  for (int i = 0; i < 3; ++i) {
    client.send("POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    const std::string response = client.read_response();
    EXPECT_TRUE(response.starts_with("HTTP/1.1 200 OK\r\n")) << response;
    EXPECT_TRUE(response.ends_with("\r\n\r\nPOST /a/b?c=d body")) << response;
    EXPECT_NE(response.find("\r\nDate: "), std::string::npos);
  }
  EXPECT_EQ(thread->on_loop([&] { return server->connections(); }), 1u);
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  serve();
  RawClient client(port);
  std::string all;
  for (int i = 0; i < 200; ++i)
    all += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" +
           std::string(1000, 'b');
  std::thread sender([&] { client.send(all); });
  for (int i = 0; i < 200; ++i)
    EXPECT_NE(client.read_response().find("POST /" + std::to_string(i) + "? b"), std::string::npos);
  sender.join();
}

TEST_F(HttpServerTest, TakesARequestByteByByteAndChunked) {
  serve();
  RawClient client(port);
  const std::string request =
      "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n4;note=1\r\ndefg\r\n0\r\n\r\n";
  for (const char c : request) ASSERT_TRUE(client.send({&c, 1}));
  EXPECT_TRUE(client.read_response().ends_with("POST /c? abcdefg"));
}

TEST_F(HttpServerTest, TakesTheAbsoluteFormAndAsksForTheRestWhenTheClientWaits) {
  serve();
  EXPECT_TRUE(ask("GET http://host/p?q HTTP/1.1\r\nHost: host\r\n\r\n").ends_with("GET /p?q "));
  RawClient client(port);
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("hi");
  EXPECT_TRUE(client.read_response().ends_with("POST /e? hi"));
}

TEST_F(HttpServerTest, OldClientsGetAnEndedConnectionUnlessTheyAskToKeepIt) {
  serve();
  RawClient client(port);
  client.send("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_NE(client.read_response().find("Connection: keep-alive"), std::string::npos);
  client.send("GET /old HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(client.read_to_end().ends_with("GET /old? "));
  EXPECT_TRUE(client.ended());
}

TEST_F(HttpServerTest, HeadHasTheLengthButNoBody) {
  serve();
  RawClient client(port);
  client.send("HEAD /h HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string response = client.read_to_end();
  EXPECT_NE(response.find("Content-Length: 9\r\n"), std::string::npos);
  EXPECT_TRUE(response.ends_with("\r\n\r\n"));
}

TEST_F(HttpServerTest, RefusesWhatIsNoRequest) {
  serve({.max_header_bytes = 2048, .max_body_bytes = 1000});
  const std::string host = "Host: x\r\n";
  const std::map<std::string, int> cases{
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\n" + host + "\r\n", 505},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + "bad header\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + host + "A: " + std::string(4000, 'a') + "\r\n\r\n", 431},
      {"GET /" + std::string(4000, 'a') + " HTTP/1.1\r\n" + host + "\r\n", 431},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1001\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'a'),
       413},
      {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(200'000, 'a'),
       400},
  };
  for (const auto& [bytes, status] : cases) {
    RawClient client(port);
    client.send(bytes);
    const std::string response = client.read_to_end();
    EXPECT_TRUE(response.starts_with("HTTP/1.1 " + std::to_string(status) + " "))
        << bytes.substr(0, 200) << "\n-> " << response;
    EXPECT_TRUE(client.ended());
  }
  EXPECT_EQ(thread->on_loop([&] { return handler.handled; }), 0);
}

TEST_F(HttpServerTest, ARefusalArrivesThoughTheClientIsStillSending) {
  serve({.max_body_bytes = 1000});
  RawClient client(port);
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n");
  client.send(std::string(4'000'000, 'a'));
  EXPECT_TRUE(client.read_response().starts_with("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, LongRequestsAreReceivedWithinABoundTogether) {
  serve({.max_bodies_bytes = 200'000});
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n";
  RawClient first(port), second(port);
  first.send(head + std::string(150'000, 'a'));
  // Connections take turns, with 16 KiB each: by these answers the first one's bytes are here.
  for (int turn = 0; turn < 20; ++turn)
    EXPECT_TRUE(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200 "));
  second.send(head + std::string(150'000, 'b'));
  EXPECT_TRUE(second.read_response().starts_with("HTTP/1.1 503 "));
  second.close();
  EXPECT_TRUE(ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").starts_with("HTTP/1.1 200 "))
      << "short ones are not held up";
  first.send(std::string(150'000, 'a'));
  EXPECT_TRUE(first.read_response().starts_with("HTTP/1.1 200 ")) << "one alone may be longer";
}

TEST_F(HttpServerTest, StreamsThatAreNotReadAreKeptWithinABoundTogether) {
  serve({.max_queues_bytes = 300u << 10});
  RawClient first(port, 4096), second(port, 4096);
  first.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(thread->wait_for([&] { return handler.kept.size() == 1; }));
  second.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(thread->wait_for([&] { return handler.kept.size() == 2; }));
  const std::string piece(16u << 10, 's');
  int written = 0;
  while (written < 4000 && thread->on_loop([&] {
    handler.kept[0]->write(piece);
    handler.kept[1]->write(piece);
    return handler.disconnects == 0;
  }))
    ++written;
  EXPECT_LT(written, 4000);
  EXPECT_EQ(thread->on_loop([&] { return server->connections(); }), 1u) << "the other one goes on";
}

TEST_F(HttpServerTest, SlowRequestsAndIdleConnectionsEnd) {
  serve({.head_timeout = 50ms, .body_timeout = 50ms, .idle_timeout = 100ms});
  RawClient idle(port), head(port), body(port);
  head.send("GET / HTTP/1.1\r\nHos");
  body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
  EXPECT_TRUE(head.read_to_end().starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(body.read_to_end().starts_with("HTTP/1.1 408 "));
  EXPECT_EQ(idle.read_to_end(), "");
  EXPECT_TRUE(idle.ended() && head.ended() && body.ended());
  EXPECT_TRUE(thread->wait_for([&] { return server->connections() == 0; }));
}

TEST_F(HttpServerTest, AHeadThatDripsDoesNotHoldAConnection) {
  serve({.head_timeout = 100ms});
  RawClient client(port);
  client.send("GET / HTTP/1.1\r\n");
  int sent = 0;
  while (sent < 1000 && client.send("A: b\r\n")) {
    ++sent;
    std::this_thread::sleep_for(10ms);
    if (thread->on_loop([&] { return server->connections(); }) == 0) break;
  }
  EXPECT_LT(sent, 400);
}

TEST_F(HttpServerTest, StreamsInChunksAndKeepsTheConnection) {
  serve();
  RawClient client(port);
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read_until("\r\n\r\n").find("Transfer-Encoding: chunked"), std::string::npos);
  thread->on_loop([&] { handler.kept[0]->write("hello"); });
  EXPECT_EQ(client.read_until("hello\r\n"), "5\r\nhello\r\n");
  thread->on_loop([&] {
    handler.kept[0]->write("");
    handler.kept[0]->write(std::string(17, 'z'));
    handler.kept[0]->end();
  });
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "11\r\n" + std::string(17, 'z') + "\r\n0\r\n\r\n");
  client.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(client.read_response().ends_with("GET /next? "));
  EXPECT_EQ(thread->on_loop([&] { return handler.disconnects; }), 0);
}

TEST_F(HttpServerTest, StreamsToOldClientsWithoutChunks) {
  serve();
  RawClient client(port);
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  client.read_until("\r\n\r\n");
  thread->on_loop([&] {
    handler.kept[0]->write("plain");
    handler.kept[0]->end();
  });
  EXPECT_EQ(client.read_to_end(), "plain");
}

TEST_F(HttpServerTest, AClientThatLeavesIsNoticedOnce) {
  serve();
  for (const char* path : {"/wait", "/stream"}) {
    RawClient client(port);
    client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
    const bool stream = std::string_view(path) == "/stream";
    if (stream) client.read_until("\r\n\r\n");
    EXPECT_TRUE(thread->wait_for([&] { return handler.kept.size() == (stream ? 2u : 1u); }));
  }
  EXPECT_TRUE(thread->wait_for([&] { return handler.disconnects == 2; }));
  EXPECT_EQ(thread->on_loop([&] { return server->connections(); }), 0u);
  thread->on_loop([&] {
    handler.kept[0]->send({});
    handler.kept[1]->write("too late");
    handler.kept[1]->end();
  });
  EXPECT_EQ(thread->on_loop([&] { return handler.disconnects; }), 2);
}

TEST_F(HttpServerTest, AStreamThatIsNotReadIsCutBeforeItGrows) {
  serve({.max_queue_bytes = 64u << 10});
  RawClient client(port, 4096);
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(thread->wait_for([&] { return handler.kept.size() == 1; }));
  int written = 0;
  const std::string piece(16u << 10, 's');
  while (written < 4000 && thread->on_loop([&] {
    handler.kept[0]->write(piece);
    return handler.disconnects == 0;
  }))
    ++written;
  EXPECT_LT(written, 4000);
  EXPECT_EQ(thread->on_loop([&] { return server->connections(); }), 0u);
}

TEST_F(HttpServerTest, AnAnswerThatIsNotReadEndsInTime) {
  serve({.write_timeout = 100ms});
  RawClient client(port, 4096);
  client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(thread->wait_for([&] { return handler.handled == 1 && server->connections() == 0; }));
}

TEST_F(HttpServerTest, ABigAnswerArrivesWhole) {
  serve({.max_queue_bytes = 64u << 10});
  const std::string response = ask("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(response.size() - response.find("\r\n\r\n") - 4, 8u << 20);
}

TEST_F(HttpServerTest, ADroppedOrFailedRequestIsAnError) {
  serve();
  EXPECT_TRUE(ask("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 500 "));
  EXPECT_TRUE(ask("GET /throw HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 500 "));
  RawClient client(port);
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  client.read_until("\r\n\r\n");
  thread->on_loop([&] { handler.kept.clear(); });
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_TRUE(client.ended());
}

TEST_F(HttpServerTest, OneConnectionTooManyIsRefusedAndIdleOnesMakeRoom) {
  serve({.max_connections = 2});
  RawClient first(port), second(port);
  for (RawClient* client : {&first, &second}) client->send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(thread->wait_for([&] { return handler.kept.size() == 2; }));
  EXPECT_TRUE(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 503 "));
  thread->on_loop([&] { handler.kept[0]->send({.body = "done"}); });
  EXPECT_TRUE(first.read_response().ends_with("done"));
  EXPECT_TRUE(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 200 "));
  EXPECT_EQ(first.read_to_end(), "");
}

TEST_F(HttpServerTest, TheServersEndTellsRequestsInTheWorks) {
  serve();
  RawClient client(port);
  client.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  client.read_until("\r\n\r\n");
  thread->on_loop([&] { server.reset(); });
  EXPECT_EQ(thread->on_loop([&] { return handler.disconnects; }), 1);
  EXPECT_EQ(client.read_to_end(), "");
}

TEST_F(HttpServerTest, ATakenPortIsAnErrorThatNamesItAndTheWayOut) {
  serve();
  EventLoop other;
  try {
    HttpServer(other, {.address = {"127.0.0.1", port}}, handler);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("127.0.0.1:" + std::to_string(port)), std::string::npos);
    EXPECT_NE(error.message().find("--api 127.0.0.1:0 "), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace caravan
