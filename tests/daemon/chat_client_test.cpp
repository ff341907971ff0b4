#include "daemon/chat_client.h"

#include <gtest/gtest.h>

#include <csignal>
#include <deque>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "daemon/http_client.h"
#include "tests/daemon/api_server.h"

namespace caravan {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

// Lines that are typed one after another; `typed` may do something before a line is read.
struct Typist {
  ChatTerminal terminal() {
    return {.read_line = [this]() -> std::optional<std::string> {
              if (lines.empty()) return std::nullopt;
              std::string line = lines.front();
              lines.pop_front();
              return line;
            },
            .write =
                [this](std::string_view text) {
                  screen += text;
                  if (on_write) on_write();
                },
            .prompts = prompts};
  }
  std::deque<std::string> lines;
  std::string screen;
  std::function<void()> on_write;
  bool prompts = false;
};

struct ChatClientTest : ::testing::Test {
  int chat(std::deque<std::string> lines, std::optional<double> temperature = 0) {
    typist.lines = std::move(lines);
    ChatOptions options;
    options.server = server.address;
    options.api_key = key;
    options.system = system;
    options.temperature = temperature;
    options.max_tokens = max_tokens;
    return run_chat(loop, options, typist.terminal());
  }
  std::vector<json> conversations() {
    return server.thread->on_loop([&] {
      std::vector<json> result;
      for (const auto& text : server.codec.conversations) result.push_back(json::parse(text)["messages"]);
      return result;
    });
  }

  ApiServer server;
  EventLoop loop;
  Typist typist;
  std::string key, system;
  uint32_t max_tokens = 500;
};

TEST_F(ChatClientTest, PrintsAnswersAndSendsTheWholeConversation) {
  system = "be kind";
  server.service.script = "Hello.";
  EXPECT_EQ(chat({"one", "", "two", "/reset", "three", "/quit", "four"}), 0);
  EXPECT_EQ(typist.screen, "Hello.\nHello.\nHello.\n");
  const auto all = conversations();
  ASSERT_EQ(all.size(), 3u);
  const json system_message = {{"role", "system"}, {"content", "be kind"}};
  EXPECT_EQ(all[0], (json::array({system_message, {{"role", "user"}, {"content", "one"}}})));
  EXPECT_EQ(all[1], (json::array({system_message,
                                  {{"role", "user"}, {"content", "one"}},
                                  {{"role", "assistant"}, {"content", "Hello."}},
                                  {{"role", "user"}, {"content", "two"}}})));
  EXPECT_EQ(all[2], (json::array({system_message, {{"role", "user"}, {"content", "three"}}})));
}

TEST_F(ChatClientTest, OnATerminalItGreetsAndKeepsControlBytesOut) {
  typist.prompts = true;
  server.service.script = "a\x1b[2J\x07\tb\n";
  EXPECT_EQ(chat({"x"}), 0);
  EXPECT_NE(typist.screen.find("fake/model on 127.0.0.1:"), std::string::npos);
  EXPECT_NE(typist.screen.find("> a[2J\tb\n"), std::string::npos);
}

TEST_F(ChatClientTest, AnAnswerThatTheContextCutsSaysSo) {
  max_tokens = 0;
  server.service.context = 150;
  EXPECT_EQ(chat({"tell me all"}, std::nullopt), 0);
  EXPECT_NE(typist.screen.find("\n[the answer was cut: the context is full"), std::string::npos)
      << typist.screen;
  typist.screen.clear();
  EXPECT_EQ(chat({"tell me all"}), 0);
  EXPECT_EQ(typist.screen.find("cut"), std::string::npos) << typist.screen;
}

TEST_F(ChatClientTest, ASignalStopsTheAnswerAndKeepsWhatCame) {
  server.service.pace = 1ms;
  int pieces = 0;
  typist.on_write = [&] {
    if (++pieces == 5) std::raise(SIGINT);
  };
  EXPECT_EQ(chat({"tell me all", "and then?"}, std::nullopt), 0);
  const auto all = conversations();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1][1]["role"], "assistant");
  EXPECT_GE(all[1][1]["content"].get<std::string>().size(), 4u);
  EXPECT_LT(all[1][1]["content"].get<std::string>().size(), 500u);
  EXPECT_EQ(server.thread->on_loop([&] { return server.service.cancelled; }), 1u);
}

TEST_F(ChatClientTest, AFailedAnswerIsShownAndItsQuestionForgotten) {
  server.service.fails_after = 3;
  EXPECT_EQ(chat({"one"}), 1);
  EXPECT_EQ(typist.screen, "Onc\nerror: peer 'b' was lost\n");
  server.service.fails_after.reset();
  server.service.ready = false;
  typist.screen.clear();
  EXPECT_EQ(chat({"two"}), 1);
  EXPECT_NE(typist.screen.find("the ring is not ready"), std::string::npos);
  server.service.ready = true;
  EXPECT_EQ(chat({"three"}), 0);
  EXPECT_EQ(conversations().back().size(), 1u);
}

TEST(ChatClient, WithoutADaemonTheErrorSaysHowToStartOne) {
  HostPort nowhere;
  {
    ApiServer server;
    nowhere = server.address;
  }
  EventLoop loop;
  Typist typist;
  ChatOptions options;
  options.server = nowhere;
  for (const bool status : {false, true}) {
    try {
      if (status)
        fetch_status(loop, nowhere, "", false, SystemClock());
      else
        run_chat(loop, options, typist.terminal());
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
      EXPECT_NE(error.message().find("caravan serve"), std::string::npos) << error.message();
    }
  }
}

TEST(ChatClient, StatusComesAsATableAndAsJson) {
  AccessOptions access;
  access.api_key = "sesame";
  ApiServer server(access);
  EventLoop loop;
  const SystemClock clock;
  EXPECT_NE(fetch_status(loop, server.address, "sesame", false, clock).find("fake/model"), std::string::npos);
  EXPECT_EQ(json::parse(fetch_status(loop, server.address, "sesame", true, clock))["stages"].size(), 1u);
  EXPECT_THROW(fetch_status(loop, server.address, "wrong", false, clock), Error);
  EXPECT_THROW(fetch_status(loop, server.address, "a\r\nb", false, clock), Error);
}

// A server that answers every connection with the same bytes.
struct Canned : HttpHandler {
  void handle(HttpRequest, std::shared_ptr<HttpResponder> responder) override { kept = std::move(responder); }
  HttpResponse refusal(int status, std::string_view) override {
    HttpResponse response;
    response.status = status;
    return response;
  }
  std::shared_ptr<HttpResponder> kept;
};

TEST(HttpClientTest, ASilentServerIsATimeOut) {
  EventLoop loop;
  Canned handler;
  HttpServerOptions options;
  options.address = {"127.0.0.1", 0};
  HttpServer server(loop, options, handler);
  HttpClientOptions quick;
  quick.silence_timeout = 50ms;
  HttpClient client(loop, server.address(), "", quick);
  try {
    client.request("GET", "/");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  }
}

TEST(HttpClientTest, AnAnswerThatIsCutOrTooLongIsAnError) {
  EventLoop loop;
  Canned handler;
  HttpServerOptions options;
  options.address = {"127.0.0.1", 0};
  HttpServer server(loop, options, handler);
  HttpClientOptions small;
  small.max_body_bytes = 1000;
  HttpClient client(loop, server.address(), "", small);
  const auto code_of = [&](const std::function<void(HttpResponder&)>& answer) {
    loop.after(20ms, [&] {
      answer(*handler.kept);
      handler.kept.reset();
    });
    try {
      client.request("GET", "/");
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kCancelled;
  };
  EXPECT_EQ(code_of([](HttpResponder& responder) {
              responder.start_stream({});
              responder.write("half");
            }),
            ErrorCode::kUnavailable);
  EXPECT_EQ(code_of([](HttpResponder& responder) {
              HttpResponse response;
              response.body.assign(2000, 'x');
              responder.send(std::move(response));
            }),
            ErrorCode::kLimit);
  EXPECT_EQ(code_of([](HttpResponder& responder) { responder.send({}); }), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace caravan
