#include "daemon/chat_client.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "daemon/api_status.h"
#include "daemon/http_client.h"

using json = nlohmann::ordered_json;

namespace caravan {

namespace {

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// The message of an error in OpenAI's shape, or the text itself.
const char* way_out(unsigned status) {
  return status == 401 ? " (give it with --api-key, or as api_key in the file of --config)" : "";
}

std::string error_message(std::string_view body) {
  const json parsed = json::parse(body.begin(), body.end(), nullptr, false);
  if (parsed.is_object() && parsed.contains("error") && parsed["error"].is_object())
    return parsed["error"].value("message", std::string(body));
  return std::string(body);
}

// A model's text may not steer the terminal.
std::string without_controls(std::string_view text) {
  std::string result;
  for (const char c : text)
    if (c == '\n' || c == '\t' || is_printable({&c, 1})) result.push_back(c);
  return result;
}

// Cuts server-sent events out of the pieces of a body.
class EventReader {
 public:
  explicit EventReader(std::function<void(const json&)> on_event) : on_event_(std::move(on_event)) {}
  void add(std::string_view piece) {
    constexpr size_t kMostWaiting = 16u << 20;
    waiting_ += piece;
    for (size_t end; (end = waiting_.find("\n\n")) != std::string::npos; waiting_.erase(0, end + 2)) {
      const std::string_view event = std::string_view(waiting_).substr(0, end);
      if (event.starts_with("data: ") && event != "data: [DONE]") take(event.substr(6));
      done_ = done_ || event == "data: [DONE]";
    }
    if (waiting_.size() > kMostWaiting) fail(ErrorCode::kLimit, "the daemon sent an event without an end");
  }
  bool done() const { return done_; }

 private:
  void take(std::string_view data) {
    const json event = json::parse(data.begin(), data.end(), nullptr, false);
    if (!event.is_object()) fail(ErrorCode::kMalformed, "the daemon sent what is no JSON");
    on_event_(event);
  }
  const std::function<void(const json&)> on_event_;
  std::string waiting_;
  bool done_ = false;
};

class Chat {
 public:
  Chat(EventLoop& loop, const ChatOptions& options, const ChatTerminal& terminal)
      : loop_(loop), client_(loop, options.server, options.api_key), options_(options), terminal_(terminal) {
    loop.on_signal([this](int) { client_.abort(); });
    reset();
  }
  ~Chat() {
    loop_.on_signal([](int) {});
  }
  Chat(const Chat&) = delete;
  Chat& operator=(const Chat&) = delete;

  int run() {
    greet();
    bool failed = false;
    for (;;) {
      if (terminal_.prompts) terminal_.write("> ");
      const auto line = terminal_.read_line();
      if (!line || *line == "/quit") break;
      if (*line == "/reset") {
        reset();
        if (terminal_.prompts) terminal_.write("the conversation begins anew\n");
      } else if (line->find_first_not_of(" \t\r") != std::string::npos) {
        failed = !answer(*line);
      }
    }
    return failed ? 1 : 0;
  }

 private:
  void greet() {
    const HttpResponse models = client_.request("GET", "/v1/models");
    if (models.status != 200)
      fail(ErrorCode::kRefused, "{}{}", error_message(models.body), way_out(models.status));
    const json list = json::parse(models.body, nullptr, false);
    if (list.is_object() && list.contains("data") && list["data"].is_array() && !list["data"].empty() &&
        list["data"][0].is_object())
      model_ = list["data"][0].value("id", "");
    if (terminal_.prompts)
      terminal_.write(fmt::format("{} on {}; /reset begins anew, /quit ends, Ctrl-C stops an answer\n",
                                  model_, options_.server.to_string()));
  }
  void reset() {
    messages_ = json::array();
    if (!options_.system.empty()) messages_.push_back({{"role", "system"}, {"content", options_.system}});
  }
  std::string request() const {
    json body = {{"model", model_}, {"messages", messages_}, {"stream", true}};
    if (options_.temperature) body["temperature"] = *options_.temperature;
    if (options_.seed) body["seed"] = *options_.seed;
    if (options_.max_tokens > 0) body["max_completion_tokens"] = options_.max_tokens;
    return dump(body);
  }

  // Whether an answer came; without one, the question is forgotten, so that it may be asked again.
  bool answer(const std::string& line) {
    messages_.push_back({{"role", "user"}, {"content", line}});
    std::string text, problem;
    bool cut = false;
    EventReader events([&](const json& event) {
      take(event, text, problem);
      cut = cut || is_cut(event);
    });
    HttpResponse response;
    bool whole = false;
    try {
      whole = client_.stream(
          "POST", "/v1/chat/completions", request(), [&](std::string_view piece) { events.add(piece); },
          response);
      if (whole && response.status != 200) problem = error_message(response.body);
      if (whole && problem.empty() && !events.done()) problem = "the answer ended early";
    } catch (const Error& error) {
      problem = error.message();
    }
    terminal_.write("\n");
    if (!problem.empty()) terminal_.write("error: " + problem + "\n");
    if (cut && options_.max_tokens == 0)
      terminal_.write("[the answer was cut: the context is full; /reset begins anew]\n");
    if (!problem.empty() || (text.empty() && !whole))
      messages_.erase(messages_.size() - 1);
    else
      messages_.push_back({{"role", "assistant"}, {"content", text}});
    return problem.empty();
  }
  void take(const json& event, std::string& text, std::string& problem) {
    if (event.contains("error")) problem = error_message(dump(event));
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array() || choices->empty()) return;
    const json& choice = (*choices)[0];
    if (!choice.is_object() || !choice.contains("delta") || !choice["delta"].is_object()) return;
    const auto content = choice["delta"].find("content");
    if (content == choice["delta"].end() || !content->is_string()) return;
    const auto& piece = content->get_ref<const std::string&>();
    text += piece;
    terminal_.write(terminal_.prompts ? without_controls(piece) : piece);
  }

  // Whether the answer ends here for want of room.
  static bool is_cut(const json& event) {
    const auto choices = event.find("choices");
    if (choices == event.end() || !choices->is_array() || choices->empty()) return false;
    const json& choice = (*choices)[0];
    return choice.is_object() && choice.contains("finish_reason") && choice["finish_reason"] == "length";
  }

  EventLoop& loop_;
  HttpClient client_;
  const ChatOptions& options_;
  const ChatTerminal& terminal_;
  std::string model_;
  json messages_;
};

}  // namespace

ChatTerminal standard_terminal() {
  return {.read_line = []() -> std::optional<std::string> {
            std::string line;
            if (!std::getline(std::cin, line)) return std::nullopt;
            return line;
          },
          .write =
              [](std::string_view text) {
                std::fwrite(text.data(), 1, text.size(), stdout);
                std::fflush(stdout);
              },
          .prompts = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1};
}

int run_chat(EventLoop& loop, const ChatOptions& options, const ChatTerminal& terminal) {
  return Chat(loop, options, terminal).run();
}

std::string fetch_status(EventLoop& loop, const HostPort& server, const std::string& api_key, bool as_json,
                         const Clock& clock) {
  const HttpResponse response = HttpClient(loop, server, api_key).request("GET", "/v1/caravan/status");
  if (response.status != 200)
    fail(response.status == 401 ? ErrorCode::kRefused : ErrorCode::kUnavailable, "{}{}",
         error_message(response.body), way_out(response.status));
  if (as_json) return response.body + "\n";
  return status_table(parse_status_json(response.body), clock.unix_seconds());
}

}  // namespace caravan
