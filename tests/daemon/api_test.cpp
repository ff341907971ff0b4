#include "daemon/api.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "daemon/api_status.h"
#include "tests/daemon/api_fixture.h"

namespace caravan {
namespace {

using nlohmann::json;
using ApiTest = ApiFixture;

json parsed(const std::shared_ptr<FakeResponder>& responder) {
  return json::parse(responder->body);
}

// The JSON of each server-sent event; "[DONE]" must come last and only then.
std::vector<json> events(const std::string& stream, bool done = true) {
  std::vector<json> result;
  bool ended = false;
  for (size_t at = 0; at < stream.size();) {
    EXPECT_EQ(stream.substr(at, 6), "data: ");
    const size_t end = stream.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    const std::string data = stream.substr(at + 6, end - at - 6);
    at = end + 2;
    EXPECT_FALSE(ended) << "something follows [DONE]";
    if (data == "[DONE]")
      ended = true;
    else
      result.push_back(json::parse(data));
  }
  EXPECT_EQ(ended, done);
  return result;
}

std::string streamed_text(const std::vector<json>& pieces, size_t index = 0) {
  std::string text;
  for (const json& piece : pieces)
    for (const json& choice : piece["choices"]) {
      if (choice["index"] != index) continue;
      if (choice.contains("delta"))
        text += choice["delta"].value("content", "");
      else
        text += choice["text"].get<std::string>();
    }
  return text;
}

TEST_F(ApiTest, ListsAndShowsTheModel) {
  const json list = parsed(ask("GET", "/v1/models"));
  EXPECT_EQ(list["object"], "list");
  EXPECT_EQ(list["data"][0]["id"], "fake/model");
  EXPECT_EQ(parsed(ask("GET", "/v1/models/fake%2Fmodel"))["id"], "fake/model");
  EXPECT_EQ(parsed(ask("GET", "/v1/models/fake/model"))["object"], "model");
  const auto missing = ask("GET", "/v1/models/other");
  EXPECT_EQ(missing->head.status, 404);
  EXPECT_EQ(parsed(missing)["error"]["code"], "model_not_found");
}

TEST_F(ApiTest, CompletesAPrompt) {
  const auto answer = complete(R"({"model":"fake/model","prompt":"hello","temperature":0,"max_tokens":200})");
  EXPECT_EQ(answer->head.status, 200);
  const json body = parsed(answer);
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["choices"][0]["text"], service.script);
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(body["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(body["usage"]["prompt_tokens"], 6);
  EXPECT_EQ(body["usage"]["completion_tokens"], service.script.size() + 1);
  EXPECT_EQ(body["usage"]["total_tokens"], service.script.size() + 7);
  EXPECT_TRUE(body["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(body["created"], clock.unix_seconds());
  EXPECT_EQ(service.last_prompt, codec.encode("hello"));
}

TEST_F(ApiTest, CompletesSixteenTokensUnlessToldOtherwise) {
  const json body = parsed(complete(R"({"prompt":"a","temperature":0})"));
  EXPECT_EQ(body["choices"][0]["text"], service.script.substr(0, 16));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
}

TEST_F(ApiTest, NoTokensAskForThePromptAlone) {
  complete(R"({"prompt":"a","max_tokens":0,"echo":true})");
  EXPECT_TRUE(service.last.prompt_only);
  chat(R"({"messages":[{"role":"user","content":"x"}],"max_completion_tokens":0})");
  EXPECT_TRUE(service.last.prompt_only);
}

TEST_F(ApiTest, TakesEveryShapeOfPrompt) {
  complete(R"({"prompt":[104,105]})");
  EXPECT_EQ(service.last_prompt, (std::vector<TokenId>{104, 105}));
  const json texts = parsed(complete(R"({"prompt":["a","b"],"n":2,"temperature":0})"));
  EXPECT_EQ(texts["choices"].size(), 4u);
  EXPECT_EQ(texts["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(texts["usage"]["completion_tokens"], 64);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(texts["choices"][i]["index"], i);
  EXPECT_EQ(parsed(complete(R"({"prompt":[[1],[2,3]]})"))["usage"]["prompt_tokens"], 3);
}

TEST_F(ApiTest, EchoesThePrompt) {
  for (const char* prompt : {R"("tell ")", "[116,101,108,108,32]"})
    for (const char* stream : {"false", "true"}) {
      const auto answer = complete(std::string(R"({"echo":true,"temperature":0,"max_tokens":4,"prompt":)") +
                                   prompt + ",\"stream\":" + stream + "}");
      const bool streams = std::string_view(stream) == "true";
      EXPECT_EQ(streams ? streamed_text(events(answer->body))
                        : parsed(answer)["choices"][0]["text"].get<std::string>(),
                "tell Once");
    }
}

TEST_F(ApiTest, ChatsThroughTheTemplate) {
  const json body = parsed(chat(R"({"messages":[{"role":"developer","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"hi "},{"type":"text","text":"there"}]}],
      "temperature":0,"chat_template_kwargs":{"enable_thinking":false}})"));
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(body["choices"][0]["message"]["content"], service.script);
  EXPECT_EQ(service.last.max_tokens, 0u);
  EXPECT_FALSE(service.last.prompt_only);
  const json conversation = json::parse(codec.conversations.back());
  EXPECT_EQ(
      conversation,
      (json{{"messages",
             {{{"role", "system"}, {"content", "be brief"}}, {{"role", "user"}, {"content", "hi there"}}}},
            {"add_generation_prompt", true},
            {"enable_thinking", false}}));
}

TEST_F(ApiTest, PassesToolsAndCallsToTheTemplate) {
  const char* const request =
      R"({"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"max_tokens":1,
      "messages":[{"role":"user","content":"x"},
                  {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function",
                   "function":{"name":"f","arguments":"{\"a\":1}"}}]},
                  {"role":"tool","tool_call_id":"1","content":"2"}]})";
  EXPECT_EQ(chat(request)->head.status, 200);
  const json conversation = json::parse(codec.conversations.back());
  EXPECT_EQ(conversation["tools"][0]["function"]["name"], "f");
  EXPECT_EQ(conversation["messages"][1]["tool_calls"][0]["function"]["arguments"], json({{"a", 1}}));
  codec.tools = false;
  const auto refused = chat(request);
  EXPECT_EQ(refused->head.status, 400);
  EXPECT_EQ(parsed(refused)["error"]["param"], "tools");
}

TEST_F(ApiTest, StreamsACompletion) {
  const auto answer = complete(
      R"({"prompt":"a","temperature":0,"max_tokens":99,"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(answer->head.content_type, "text/event-stream; charset=utf-8");
  const auto pieces = events(answer->body);
  EXPECT_EQ(streamed_text(pieces), service.script);
  for (size_t i = 0; i + 1 < pieces.size(); ++i) {
    EXPECT_TRUE(pieces[i]["usage"].is_null());
    EXPECT_EQ(pieces[i]["choices"][0]["finish_reason"].is_null(), i + 2 < pieces.size());
    EXPECT_EQ(pieces[i]["id"], pieces[0]["id"]);
  }
  EXPECT_TRUE(pieces.back()["choices"].empty());
  EXPECT_EQ(pieces.back()["usage"]["completion_tokens"], service.script.size() + 1);
}

TEST_F(ApiTest, StreamsAChatOfSeveralChoices) {
  const auto pieces = events(
      chat(R"({"messages":[{"role":"user","content":"x"}],"n":3,"max_tokens":20,"seed":5,"stream":true})")
          ->body);
  std::set<std::string> texts;
  for (size_t index = 0; index < 3; ++index) {
    std::vector<json> own;
    for (const json& piece : pieces)
      if (piece["choices"][0]["index"] == index) own.push_back(piece["choices"][0]);
    EXPECT_EQ(own.front()["delta"], (json{{"role", "assistant"}, {"content", ""}}));
    EXPECT_EQ(own.back()["delta"], json::object());
    EXPECT_EQ(own.back()["finish_reason"], "length");
    texts.insert(streamed_text(pieces, index));
  }
  EXPECT_EQ(texts.size(), 3u);
  EXPECT_FALSE(pieces[0].contains("usage"));
}

TEST_F(ApiTest, TheSameSeedGivesTheSameTextAndNoSeedADifferentOne) {
  const auto text = [&](const char* more) {
    return parsed(
               complete(std::string(R"({"prompt":"a","max_tokens":40)") + more + "}"))["choices"][0]["text"]
        .get<std::string>();
  };
  EXPECT_EQ(text(R"(,"seed":11)"), text(R"(,"seed":11)"));
  EXPECT_EQ(text(R"(,"seed":11)"), text(R"(,"seed":11,"n":3)"));
  EXPECT_NE(text(R"(,"seed":11)"), text(R"(,"seed":12)"));
  EXPECT_NE(text(""), text(""));
  text(R"(,"seed":-1)");
  EXPECT_EQ(service.seeds.back(), UINT64_MAX);
}

TEST_F(ApiTest, StopsAtStopStrings) {
  const std::string begin = R"({"prompt":"a","temperature":0,"max_tokens":99,"stop":)";
  EXPECT_EQ(parsed(complete(begin + R"(" time"})"))["choices"][0]["text"], "Once upon a");
  EXPECT_EQ(parsed(complete(begin + R"(["there","upon"]})"))["choices"][0]["text"], "Once ");
  EXPECT_EQ(parsed(complete(begin + "null}"))["choices"][0]["text"], service.script);
  EXPECT_EQ(parsed(complete(begin + R"(["",null]})"))["error"]["param"], "stop");
  EXPECT_EQ(streamed_text(events(complete(begin + R"(["there"],"stream":true})")->body)),
            "Once upon a time ");
}

TEST_F(ApiTest, GivesLogprobsInBothShapes) {
  service.script = "h\xc3\xa9!";
  const std::string begin = R"({"temperature":0,"max_tokens":9,)";
  const json chat_shape = parsed(chat(begin + R"("logprobs":true,"top_logprobs":2,
      "messages":[{"role":"user","content":"x"}]})"))["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(chat_shape.size(), 4u);
  EXPECT_EQ(chat_shape[0]["token"], "h");
  EXPECT_EQ(chat_shape[0]["bytes"], json::array({104}));
  EXPECT_EQ(chat_shape[0]["logprob"], -0.5);
  EXPECT_EQ(chat_shape[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(chat_shape[0]["top_logprobs"][1]["token"], "i");
  EXPECT_EQ(chat_shape[1]["token"], "\xef\xbf\xbd");
  EXPECT_EQ(chat_shape[1]["bytes"], json::array({0xc3}));

  const std::string completion = begin + R"("logprobs":1,"prompt":"x")";
  const json shape = parsed(complete(completion + "}"))["choices"][0]["logprobs"];
  EXPECT_EQ(shape["tokens"], (json::array({"h", "bytes:\\xc3", "bytes:\\xa9", "!"})));
  EXPECT_EQ(shape["text_offset"], (json::array({0, 1, 2, 2})));
  EXPECT_EQ(shape["top_logprobs"][1], (json{{"bytes:\\xc3", -0.5}}));
  EXPECT_EQ(shape["token_logprobs"].size(), 4u);
  // What was taken is named among the likeliest, also when none is asked for.
  const json none = parsed(complete(begin + R"("logprobs":0,"prompt":"x"})"))["choices"][0]["logprobs"];
  EXPECT_EQ(none["top_logprobs"][1], (json{{"bytes:\\xc3", none["token_logprobs"][1]}}));

  json offsets = json::array();
  for (const json& piece : events(complete(completion + R"(,"stream":true})")->body)) {
    const json& logprobs = piece["choices"][0]["logprobs"];
    if (!logprobs.is_null())
      for (const json& offset : logprobs["text_offset"]) offsets.push_back(offset);
  }
  EXPECT_EQ(offsets, shape["text_offset"]);
}

TEST_F(ApiTest, PassesTheSamplingOptionsOn) {
  complete(R"({"prompt":"a","top_p":0})");
  EXPECT_EQ(service.last.sampling.top_p, 0.0f);
  complete(R"({"prompt":"a","temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"presence_penalty":1,
      "frequency_penalty":-1.5,"repetition_penalty":1.1,"logit_bias":{"65":-100,"7":2.5},"ignore_eos":true})");
  const SamplingOptions& sampling = service.last.sampling;
  EXPECT_FLOAT_EQ(sampling.temperature, 0.5f);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.top_k, 40u);
  EXPECT_FLOAT_EQ(sampling.min_p, 0.05f);
  EXPECT_FLOAT_EQ(sampling.presence_penalty, 1.0f);
  EXPECT_FLOAT_EQ(sampling.frequency_penalty, -1.5f);
  EXPECT_FLOAT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(sampling.logit_bias, (std::vector<std::pair<TokenId, float>>{{7, 2.5f}, {65, -100.f}}));
  EXPECT_TRUE(service.last.ignore_end);
}

TEST_F(ApiTest, AWrongParameterIsA400ThatNamesIt) {
  const std::vector<std::pair<std::string, std::string>> both{
      {R"("temperature":"hot")", "temperature"},
      {R"("temperature":2.1)", "temperature"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("top_p":1.5)", "top_p"},
      {R"("top_k":1.5)", "top_k"},
      {R"("min_p":true)", "min_p"},
      {R"("presence_penalty":3)", "presence_penalty"},
      {R"("frequency_penalty":[])", "frequency_penalty"},
      {R"("repetition_penalty":0)", "repetition_penalty"},
      {R"("n":0)", "n"},
      {R"("n":65)", "n"},
      {R"("n":99999999999999999999)", "n"},
      {R"("max_tokens":-1)", "max_tokens"},
      {R"("max_tokens":18446744073709551615)", "max_tokens"},
      {R"("stop":7)", "stop"},
      {R"("stop":[1])", "stop"},
      {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])", "stop"},
      {R"("stop":")" + std::string(1025, 'x') + "\"", "stop"},
      {R"("seed":1.5)", "seed"},
      {R"("seed":"x")", "seed"},
      {R"("logit_bias":[])", "logit_bias"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("logit_bias":{"1":101})", "logit_bias"},
      {R"("logit_bias":{"":1})", "logit_bias"},
      {R"("logit_bias":{"999":1})", "logit_bias"},
      {R"("stream":"yes")", "stream"},
      {R"("model":1)", "model"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
      {R"("stream":true,"stream_options":1)", "stream_options"},
      {R"("ignore_eos":0)", "ignore_eos"}};
  for (const auto& [field, param] : both)
    for (const char* rest : {R"("prompt":"a")", R"("messages":[{"role":"user","content":"x"}])"}) {
      const bool is_chat = std::string_view(rest).starts_with("\"m");
      const auto answer =
          ask("POST", is_chat ? "/v1/chat/completions" : "/v1/completions", "{" + field + "," + rest + "}");
      EXPECT_EQ(answer->head.status, 400) << field;
      EXPECT_EQ(parsed(answer)["error"]["param"], param) << field;
      EXPECT_EQ(parsed(answer)["error"]["type"], "invalid_request_error") << field;
    }
  EXPECT_EQ(service.started, 0u);
}

TEST_F(ApiTest, AWrongPromptOrConversationIsA400ThatNamesIt) {
  for (const char* body :
       {"{}", R"({"prompt":null})", R"({"prompt":[]})", R"({"prompt":1})", R"({"prompt":[1,"a"]})",
        R"({"prompt":["a",1]})", R"({"prompt":[-1]})", R"({"prompt":[1.5]})", R"({"prompt":[[]]})",
        R"({"prompt":[258]})", R"({"prompt":[99999999999]})", R"({"prompt":{}})", R"({"prompt":[[[1]]]})"}) {
    const auto answer = complete(body);
    EXPECT_EQ(answer->head.status, 400) << body;
    EXPECT_EQ(parsed(answer)["error"]["param"], "prompt") << body;
  }
  const std::vector<std::pair<std::string, std::string>> chats{
      {R"({})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":"hi"})", "messages"},
      {R"({"messages":["hi"]})", "messages[0]"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":1,"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":{}}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[1]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"text","text":1}]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"assistant","tool_calls":[1]}]})", "messages[0].tool_calls"},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"function":{}}]}]})", "messages[0].tool_calls"},
      {R"({"messages":[{"role":"user","content":"refuse me"}]})", "messages"},
      {R"({"messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}})",
       "response_format"},
      {R"({"messages":[{"role":"user","content":"x"}],"response_format":"json"})", "response_format"},
      {R"({"messages":[{"role":"user","content":"x"}],"modalities":["audio"]})", "modalities"},
      {R"({"messages":[{"role":"user","content":"x"}],"functions":[{}]})", "functions"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{}]})", "tools"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":1})", "tools"},
      {R"({"messages":[{"role":"user","content":"x"}],"tool_choice":"required"})", "tool_choice"},
      {R"({"messages":[{"role":"user","content":"x"}],"top_logprobs":2})", "top_logprobs"},
      {R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":21})", "top_logprobs"},
      {R"({"messages":[{"role":"user","content":"x"}],"logprobs":3})", "logprobs"},
      {R"({"messages":[{"role":"user","content":"x"}],"chat_template_kwargs":1})", "chat_template_kwargs"},
      {R"({"messages":[{"role":"user","content":"x"}],"max_completion_tokens":-1})",
       "max_completion_tokens"}};
  for (const auto& [body, param] : chats) {
    const auto answer = chat(body);
    EXPECT_EQ(answer->head.status, 400) << body;
    EXPECT_EQ(parsed(answer)["error"]["param"], param) << body << answer->body;
  }
  for (const auto& [body, param] : std::vector<std::pair<std::string, std::string>>{
           {R"({"prompt":"a","logprobs":21})", "logprobs"},
           {R"({"prompt":"a","logprobs":true})", "logprobs"},
           {R"({"prompt":"a","suffix":"b"})", "suffix"},
           {R"({"prompt":"a","best_of":2})", "best_of"},
           {R"({"prompt":"a","echo":true,"logprobs":0})", "echo"},
           {R"({"prompt":["a","b"],"n":40})", "n"}}) {
    EXPECT_EQ(parsed(complete(body))["error"]["param"], param) << body;
  }
  EXPECT_EQ(service.started, 0u);
}

TEST_F(ApiTest, ABodyThatIsNoObjectIsA400) {
  std::string deep(100'000, '[');
  std::string many = "[0";
  for (int i = 0; i < 3'000'000; ++i) many += ",0";
  for (const std::string& body :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("\xff"),
        std::string(R"({"prompt":"\ud800"})"), std::string("{\"prompt\":\"\xc3\"}"),
        std::string(R"({"prompt":1e999})"), std::string("{\"a\":\"\n\"}"), deep, many + "]"}) {
    const auto answer = complete(body);
    EXPECT_EQ(answer->head.status, 400) << body.substr(0, 100);
    EXPECT_TRUE(parsed(answer)["error"]["param"].is_null());
    EXPECT_EQ(answer->body.find("json.exception"), std::string::npos) << answer->body.substr(0, 200);
  }
  EXPECT_NE(parsed(complete("{\n1"))["error"]["message"].get<std::string>().find(
                "the body is not valid JSON: line 2, column 1: syntax error"),
            std::string::npos);
}

TEST_F(ApiTest, NullCountsAsAbsent) {
  EXPECT_EQ(
      complete(
          R"({"prompt":"a","temperature":null,"top_p":null,"n":null,"stop":null,"seed":null,"stream":null,
      "logit_bias":null,"logprobs":null,"max_tokens":null,"stream_options":null,"suffix":null,"best_of":null,
      "echo":null,"user":"me","model":null})")
          ->head.status,
      200);
  EXPECT_EQ(chat(R"({"messages":[{"role":"user","content":"x","name":null}],"tools":null,"tool_choice":null,
      "response_format":null,"logprobs":null,"top_logprobs":null,"functions":null,"max_completion_tokens":3})")
                ->head.status,
            200);
}

TEST_F(ApiTest, AForeignModelOrRouteIsA404AndAWrongMethodA405) {
  const auto model = complete(R"({"model":"gpt","prompt":"a"})");
  EXPECT_EQ(model->head.status, 404);
  EXPECT_EQ(parsed(model)["error"]["code"], "model_not_found");
  EXPECT_EQ(ask("GET", "/v2")->head.status, 404);
  EXPECT_EQ(ask("GET", "/v1/models/")->head.status, 404);
  const auto method = ask("GET", "/v1/completions");
  EXPECT_EQ(method->head.status, 405);
  EXPECT_EQ(method->header("Allow"), "POST, OPTIONS");
  EXPECT_EQ(ask("POST", "/health")->head.status, 405);
  EXPECT_EQ(ask("HEAD", "/health")->head.status, 200);
  EXPECT_EQ(ask("OPTIONS", "/v1/models")->head.status, 204);
}

TEST_F(ApiTest, APromptLongerThanTheContextIsA400) {
  service.context = 8;
  const auto answer = complete(R"({"prompt":"12345678"})");
  EXPECT_EQ(answer->head.status, 400);
  EXPECT_EQ(parsed(answer)["error"]["code"], "context_length_exceeded");
}

TEST_F(ApiTest, ARingThatIsNotReadyIsA503WithItsReason) {
  service.ready = false;
  for (const auto& answer : {complete(R"({"prompt":"a"})"), ask("GET", "/health")}) {
    EXPECT_EQ(answer->head.status, 503);
    EXPECT_NE(parsed(answer)["error"]["message"].get<std::string>().find(service.reason), std::string::npos);
    EXPECT_EQ(answer->header("Retry-After"), "1");
  }
  EXPECT_EQ(ask("GET", "/v1/models")->head.status, 200);
}

TEST_F(ApiTest, TooManyRequestsAreA429AndNoneIsLeftBehind) {
  service.most_jobs = 3;
  const auto answer = complete(R"({"prompt":"a","n":4})");
  EXPECT_EQ(answer->head.status, 429);
  EXPECT_EQ(parsed(answer)["error"]["type"], "rate_limit_error");
  EXPECT_EQ(service.status().requests_running, 0u);
}

TEST_F(ApiTest, AFailureBeforeTheFirstTokenHasItsOwnStatus) {
  service.fails_after = 0;
  for (const char* stream : {"false", "true"}) {
    const auto answer = complete(std::string(R"({"prompt":"a","stream":)") + stream + "}");
    EXPECT_EQ(answer->head.status, 503);
    EXPECT_EQ(parsed(answer)["error"]["message"], "peer 'b' was lost");
  }
}

TEST_F(ApiTest, AFailureInMidStreamIsItsLastEventAndCancelsTheRest) {
  service.fails_after = 5;
  const auto answer = complete(R"({"prompt":"a","temperature":0,"n":3,"stream":true})");
  EXPECT_EQ(answer->head.status, 200);
  const auto pieces = events(answer->body, false);
  EXPECT_EQ(pieces.back()["error"]["message"], "peer 'b' was lost");
  EXPECT_EQ(pieces.back()["error"]["code"], "ring_unavailable");
  EXPECT_EQ(streamed_text({pieces.begin(), pieces.end() - 1}), "Once ");
  EXPECT_EQ(service.cancelled, 2u);
  EXPECT_EQ(service.status().requests_running, 0u);
}

TEST_F(ApiTest, AClientThatLeavesCancelsItsGenerations) {
  for (const char* stream : {"false", "true"}) {
    const uint64_t before = service.cancelled;
    const auto answer =
        send("POST", "/v1/completions",
             std::string(R"({"prompt":"a","n":2,"max_tokens":4000,"stream":)") + stream + "}");
    loop.run_until([&] { return service.generated >= 10; }, std::chrono::seconds(10));
    answer->leave();
    EXPECT_EQ(service.cancelled, before + 2);
    EXPECT_EQ(service.status().requests_running, 0u);
    service.generated = 0;
  }
  EXPECT_NE(metrics.text().find("route=\"/v1/completions\",status=\"499\"} 2"), std::string::npos)
      << metrics.text();
}

TEST_F(ApiTest, AskedForAKeyItOpensToThatKeyAlone) {
  access.api_key = "sesame";
  EXPECT_EQ(ask("GET", "/v1/models")->head.status, 401);
  for (const char* wrong :
       {"Bearer", "Bearer ", "Bearer sesam", "Bearer sesamee", "Basic sesame", "sesame"}) {
    const auto answer = ask("GET", "/v1/models", "", {{"authorization", wrong}});
    EXPECT_EQ(answer->head.status, 401) << wrong;
    EXPECT_EQ(parsed(answer)["error"]["code"], "invalid_api_key");
  }
  EXPECT_EQ(ask("GET", "/v1/models", "", {{"authorization", "bearer sesame"}})->head.status, 200);
  EXPECT_EQ(ask("GET", "/v1/models", "", {{"authorization", "Bearer sesame"}, {"host", "far.example"}})
                ->head.status,
            200);
  EXPECT_EQ(ask("GET", "/metrics")->head.status, 401);
  EXPECT_EQ(ask("GET", "/health")->head.status, 200);
}

TEST_F(ApiTest, WithoutAKeyOnlyLocalNamesAreServed) {
  for (const char* host :
       {"localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "a.localhost"})
    EXPECT_EQ(ask("GET", "/health", "", {{"host", host}})->head.status, 200) << host;
  for (const char* host : {"rebound.example", "rebound.example:8080", "10.0.0.1", "localhost.example",
                           "127.0.0.1.x", "[::2]", "[", "]:", ":"})
    EXPECT_EQ(ask("GET", "/health", "", {{"host", host}})->head.status, 403) << host;
}

TEST_F(ApiTest, PagesOfOthersAreKeptOutUnlessConfigured) {
  const HttpHeaders foreign{{"origin", "https://page.example"}};
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"prompt":"a"})", foreign)->head.status, 403);
  EXPECT_EQ(ask("GET", "/health", "", {{"origin", "null"}})->head.status, 403);
  EXPECT_EQ(service.started, 0u);
  const auto local = ask("GET", "/health", "", {{"origin", "http://localhost:3000"}});
  EXPECT_EQ(local->head.status, 200);
  EXPECT_EQ(local->header("Access-Control-Allow-Origin"), "");

  api.reset();
  access.api_key = "sesame";
  access.origins = {"https://page.example"};
  const auto preflight = ask("OPTIONS", "/v1/completions", "", foreign);
  EXPECT_EQ(preflight->head.status, 204);
  EXPECT_EQ(preflight->header("Access-Control-Allow-Origin"), "https://page.example");
  const auto refused = ask("GET", "/v1/models", "", foreign);
  EXPECT_EQ(refused->head.status, 401);
  EXPECT_EQ(refused->header("Access-Control-Allow-Origin"), "https://page.example");
  EXPECT_EQ(ask("GET", "/health", "", {{"origin", "https://other.example"}})->head.status, 403);
}

TEST(ApiAccess, BeyondLoopbackAKeyIsAMust) {
  EXPECT_NO_THROW(require_key_beyond_loopback({"127.0.0.1", 1}, ""));
  EXPECT_NO_THROW(require_key_beyond_loopback({"0.0.0.0", 1}, "key"));
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1"}) {
    try {
      require_key_beyond_loopback({host, 8080}, "");
      ADD_FAILURE() << host;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kRefused);
      EXPECT_NE(error.message().find("--api-key"), std::string::npos);
    }
  }
}

TEST_F(ApiTest, StatusIsReadBackAsItWas) {
  const auto answer = ask("GET", "/v1/caravan/status");
  const ServiceStatus status = parse_status_json(answer->body);
  EXPECT_EQ(status.model, "fake/model");
  EXPECT_EQ(status.stages.at(0).kv_blocks_free, 40u);
  EXPECT_EQ(status_json(status), answer->body);
  EXPECT_NE(status_table(status, status.started_unix + 90).find("1 min"), std::string::npos);
  EXPECT_NE(ask("GET", "/")->body.find("fake/model"), std::string::npos);
  for (const char* bad : {"", "[]", "{\"ready\":1}", "{\"stages\":1}", "{\"stages\":[1]}"})
    EXPECT_THROW(parse_status_json(bad), Error) << bad;
}

}  // namespace
}  // namespace caravan
