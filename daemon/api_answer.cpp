#include "daemon/api_answer.h"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

using json = nlohmann::ordered_json;

namespace caravan {

namespace {

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

bool is_utf8(std::string_view bytes) {
  // A string that dumps strictly is UTF-8; the library has no other way to ask.
  try {
    json(bytes).dump();
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

// The completions shape keys alternatives by their text, which must therefore tell broken bytes apart.
std::string token_name(const std::string& bytes) {
  if (is_utf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const unsigned char byte : bytes) name += fmt::format("\\x{:02x}", byte);
  return name;
}

json finish_json(const std::optional<FinishReason>& finish) {
  if (!finish) return nullptr;
  return *finish == FinishReason::kStop ? "stop" : "length";
}

json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", uint64_t{usage.prompt_tokens} + usage.completion_tokens}};
}

json chat_token(const std::string& bytes, float logprob) {
  json numbers = json::array();
  for (const unsigned char byte : bytes) numbers.push_back(byte);
  return {{"token", bytes}, {"logprob", logprob}, {"bytes", std::move(numbers)}};
}

json chat_logprobs(const ApiChoice& choice) {
  if (!choice.logprobs) return nullptr;
  json content = json::array();
  for (const ApiToken& token : choice.tokens) {
    json one = chat_token(token.bytes, token.logprob);
    json top = json::array();
    for (const auto& [bytes, logprob] : token.top) top.push_back(chat_token(bytes, logprob));
    one["top_logprobs"] = std::move(top);
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

json completion_logprobs(const ApiChoice& choice) {
  if (!choice.logprobs) return nullptr;
  json tokens = json::array(), logprobs = json::array(), top = json::array(), offsets = json::array();
  uint64_t offset = choice.text_offset;
  for (const ApiToken& token : choice.tokens) {
    tokens.push_back(token_name(token.bytes));
    logprobs.push_back(token.logprob);
    json alternatives = json::object();
    for (const auto& [bytes, logprob] : token.top) alternatives.emplace(token_name(bytes), logprob);
    // As OpenAI's: the token that was taken is among them, however many were asked for.
    alternatives.emplace(tokens.back(), token.logprob);
    top.push_back(std::move(alternatives));
    offsets.push_back(offset);
    offset += code_points(token.bytes);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(top)},
          {"text_offset", std::move(offsets)}};
}

json head(const ApiAnswer& answer, const char* object) {
  return {{"id", answer.id},
          {"object", object},
          {"created", answer.created_unix},
          {"model", answer.model},
          {"system_fingerprint", answer.fingerprint}};
}

json choice_json(ApiKind kind, const ApiChoice& choice) {
  json result = {{"index", choice.index}};
  if (kind == ApiKind::kChat) {
    result["message"] = {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}};
    result["logprobs"] = chat_logprobs(choice);
  } else {
    result["text"] = choice.text;
    result["logprobs"] = completion_logprobs(choice);
  }
  result["finish_reason"] = finish_json(choice.finish);
  return result;
}

json model(std::string_view id, int64_t created_unix, uint32_t context) {
  return {{"id", id},
          {"object", "model"},
          {"created", created_unix},
          {"owned_by", "caravan"},
          {"context_length", context}};
}

const char* piece_object(ApiKind kind) {
  return kind == ApiKind::kChat ? "chat.completion.chunk" : "text_completion";
}

}  // namespace

uint64_t code_points(std::string_view utf8) {
  return static_cast<uint64_t>(
      std::count_if(utf8.begin(), utf8.end(), [](unsigned char byte) { return (byte & 0xc0) != 0x80; }));
}

std::string answer_json(const ApiAnswer& answer, const std::vector<ApiChoice>& choices, const Usage& usage) {
  json result = head(answer, answer.kind == ApiKind::kChat ? "chat.completion" : "text_completion");
  json& list = result["choices"] = json::array();
  for (const ApiChoice& choice : choices) list.push_back(choice_json(answer.kind, choice));
  result["usage"] = usage_json(usage);
  return dump(result);
}

std::string piece_json(const ApiAnswer& answer, const ApiChoice& choice, bool opening, bool with_usage) {
  json result = head(answer, piece_object(answer.kind));
  json one = {{"index", choice.index}};
  if (answer.kind == ApiKind::kChat) {
    json delta = json::object();
    if (opening) delta["role"] = "assistant";
    if (opening || !choice.text.empty()) delta["content"] = choice.text;
    one["delta"] = std::move(delta);
    one["logprobs"] = choice.tokens.empty() ? json(nullptr) : chat_logprobs(choice);
  } else {
    one["text"] = choice.text;
    one["logprobs"] = choice.tokens.empty() ? json(nullptr) : completion_logprobs(choice);
  }
  one["finish_reason"] = finish_json(choice.finish);
  result["choices"] = json::array({std::move(one)});
  if (with_usage) result["usage"] = nullptr;
  return dump(result);
}

std::string usage_piece_json(const ApiAnswer& answer, const Usage& usage) {
  json result = head(answer, piece_object(answer.kind));
  result["choices"] = json::array();
  result["usage"] = usage_json(usage);
  return dump(result);
}

std::string model_json(std::string_view id, int64_t created_unix, uint32_t context) {
  return dump(model(id, created_unix, context));
}

std::string model_list_json(std::string_view id, int64_t created_unix, uint32_t context) {
  return dump({{"object", "list"}, {"data", json::array({model(id, created_unix, context)})}});
}

}  // namespace caravan
