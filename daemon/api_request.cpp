#include "daemon/api_request.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "daemon/api_error.h"
#include "shards/json_metadata.h"

using nlohmann::json;

namespace caravan {

namespace {

// Depth and number of values, before a parser allocates anything for them.
void check_size(std::string_view body) {
  uint32_t depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (c == ',' || c == '[' || c == '{') ++values;
    if (depth > limits::kMaxJsonDepth)
      refuse_param("", fmt::format("the body nests deeper than {} levels", limits::kMaxJsonDepth));
    if (values > limits::kMaxRequestValues)
      refuse_param("", fmt::format("the body has more than {} values", limits::kMaxRequestValues));
  }
}

json parse_object(std::string_view body) {
  check_size(body);
  try {
    json parsed = json::parse(body.begin(), body.end());
    if (!parsed.is_object()) refuse_param("", "the body is not a JSON object");
    return parsed;
  } catch (const json::exception& error) {
    refuse_param("", fmt::format("the body is not valid JSON: {}", json_reason(error.what())));
  }
}

// The fields of one object, each read with its type; null counts as absent, as OpenAI has it.
class Fields {
 public:
  explicit Fields(const json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  std::string param(const char* key) const { return prefix_ + key; }
  [[noreturn]] void refuse(const char* key, const std::string& why) const {
    refuse_param(param(key), fmt::format("'{}' {}", param(key), why));
  }
  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  bool boolean(const char* key, bool fallback) const {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) refuse(key, "must be true or false");
    return value->get<bool>();
  }
  std::optional<int64_t> integer(const char* key, int64_t least, int64_t most) const {
    const json* value = find(key);
    if (!value) return std::nullopt;
    if (!value->is_number_integer()) refuse(key, "must be an integer");
    const bool huge = value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX};
    const int64_t number = huge ? INT64_MAX : value->get<int64_t>();
    if (huge || number < least || number > most)
      refuse(key, fmt::format("must be from {} to {}", least, most));
    return number;
  }
  float number(const char* key, double least, double most, float fallback) const {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_number()) refuse(key, "must be a number");
    const double number = value->get<double>();
    if (!(number >= least && number <= most)) refuse(key, fmt::format("must be from {} to {}", least, most));
    return static_cast<float>(number);
  }
  std::string text(const char* key) const {
    const json* value = find(key);
    if (!value) return {};
    if (!value->is_string()) refuse(key, "must be a string");
    return value->get<std::string>();
  }
  void refuse_if_given(const char* key) const {
    const json* value = find(key);
    if (value && !(value->is_array() && value->empty())) refuse(key, "is not supported");
  }

 private:
  const json& object_;
  const std::string prefix_;
};

void read_seed(const Fields& fields, ApiRequest& request) {
  const json* seed = fields.find("seed");
  if (!seed) return;
  if (!seed->is_number_integer()) fields.refuse("seed", "must be an integer of 64 bits");
  request.seed =
      seed->is_number_unsigned() ? seed->get<uint64_t>() : static_cast<uint64_t>(seed->get<int64_t>());
}

void read_stop(const Fields& fields, GenerationOptions& options) {
  const json* stop = fields.find("stop");
  if (!stop) return;
  const auto add = [&](const json& text) {
    if (!text.is_string()) fields.refuse("stop", "must be a string or an array of strings");
    const auto& value = text.get_ref<const std::string&>();
    if (value.size() > limits::kMaxStopBytes)
      fields.refuse("stop", fmt::format("holds a string of more than {} bytes", limits::kMaxStopBytes));
    // An empty string would stop everything before it starts.
    if (!value.empty()) options.stop.push_back(value);
  };
  if (!stop->is_array()) return add(*stop);
  if (stop->size() > limits::kMaxStopStrings)
    fields.refuse("stop", fmt::format("may hold at most {} strings", limits::kMaxStopStrings));
  for (const json& text : *stop) add(text);
}

void read_logit_bias(const Fields& fields, SamplingOptions& sampling) {
  const json* biases = fields.find("logit_bias");
  if (!biases) return;
  if (!biases->is_object()) fields.refuse("logit_bias", "must be an object from token ids to numbers");
  if (biases->size() > limits::kMaxLogitBias)
    fields.refuse("logit_bias", fmt::format("may name at most {} tokens", limits::kMaxLogitBias));
  for (const auto& [key, value] : biases->items()) {
    TokenId id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (key.empty() || error != std::errc() || end != key.data() + key.size())
      fields.refuse("logit_bias", fmt::format("has the key '{}', which is no token id", key));
    if (!value.is_number() || !(std::abs(value.get<double>()) <= 100))
      fields.refuse("logit_bias", "holds a value that is no number from -100 to 100");
    sampling.logit_bias.emplace_back(id, value.get<float>());
  }
  std::sort(sampling.logit_bias.begin(), sampling.logit_bias.end());
}

void read_sampling(const Fields& fields, SamplingOptions& sampling) {
  sampling.temperature = fields.number("temperature", 0, 2, 1);
  sampling.top_p = fields.number("top_p", 0, 1, 1);
  sampling.min_p = fields.number("min_p", 0, 1, 0);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2, 0);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2, 0);
  sampling.repetition_penalty = fields.number("repetition_penalty", 0.01, 10, 1);
  const int64_t top_k = fields.integer("top_k", -1, limits::kMaxVocabulary).value_or(0);
  sampling.top_k = static_cast<uint32_t>(std::max<int64_t>(top_k, 0));
  read_logit_bias(fields, sampling);
}

void read_common(const Fields& fields, ApiRequest& request) {
  request.model = fields.text("model");
  read_sampling(fields, request.options.sampling);
  read_seed(fields, request);
  read_stop(fields, request.options);
  request.n = static_cast<uint32_t>(fields.integer("n", 1, limits::kMaxChoices).value_or(1));
  request.stream = fields.boolean("stream", false);
  request.options.ignore_end = fields.boolean("ignore_eos", false);
  if (const json* stream_options = fields.find("stream_options")) {
    if (!stream_options->is_object()) fields.refuse("stream_options", "must be an object");
    if (!request.stream) fields.refuse("stream_options", "is only allowed when 'stream' is true");
    request.include_usage = Fields(*stream_options, "stream_options.").boolean("include_usage", false);
  }
}

// 0, when it is said, asks for the prompt alone.
void read_max_tokens(const Fields& fields, const char* key, GenerationOptions& options) {
  const auto tokens = fields.integer(key, 0, limits::kMaxContext);
  if (!tokens) return;
  options.max_tokens = static_cast<uint32_t>(*tokens);
  options.prompt_only = *tokens == 0;
}

std::vector<TokenId> read_ids(const Fields& fields, const json& array) {
  std::vector<TokenId> ids;
  ids.reserve(array.size());
  for (const json& id : array) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= limits::kMaxVocabulary)
      fields.refuse("prompt", "holds something that is no token id");
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

void read_prompts(const Fields& fields, ApiRequest& request) {
  const json* prompt = fields.find("prompt");
  if (!prompt) fields.refuse("prompt", "is missing");
  if (prompt->is_string()) {
    request.prompts.emplace_back(prompt->get<std::string>());
    return;
  }
  if (!prompt->is_array())
    fields.refuse("prompt", "must be a string, an array of strings, of token ids, or of such arrays");
  if (prompt->empty()) fields.refuse("prompt", "is empty");
  if (prompt->front().is_number()) {
    request.prompts.emplace_back(read_ids(fields, *prompt));
    return;
  }
  if (prompt->size() > limits::kMaxChoices)
    fields.refuse("prompt", fmt::format("may hold at most {} prompts", limits::kMaxChoices));
  for (const json& one : *prompt) {
    if (one.is_string())
      request.prompts.emplace_back(one.get<std::string>());
    else if (one.is_array())
      request.prompts.emplace_back(read_ids(fields, one));
    else
      fields.refuse("prompt", "must hold strings or arrays of token ids");
  }
}

void read_completion(const Fields& fields, ApiRequest& request) {
  constexpr uint32_t kDefaultTokens = 16;  // OpenAI's
  request.options.max_tokens = kDefaultTokens;
  read_max_tokens(fields, "max_tokens", request.options);
  read_prompts(fields, request);
  if (request.prompts.size() * request.n > limits::kMaxChoices)
    fields.refuse("n", fmt::format("times the number of prompts may be at most {}", limits::kMaxChoices));
  if (!fields.text("suffix").empty()) fields.refuse("suffix", "is not supported");
  if (fields.integer("best_of", 1, limits::kMaxChoices).value_or(request.n) != request.n)
    fields.refuse("best_of", "is only supported equal to 'n'");
  const auto logprobs = fields.integer("logprobs", 0, limits::kMaxTopLogprobs);
  request.options.logprobs = logprobs.has_value();
  request.options.top_logprobs = static_cast<uint32_t>(logprobs.value_or(0));
  request.echo = fields.boolean("echo", false);
  if (request.echo && logprobs) fields.refuse("echo", "together with 'logprobs' is not supported");
}

// The text of a message: a string, or the text parts of an array joined.
json read_content(const Fields& fields, const json& content) {
  if (content.is_null() || content.is_string()) return content;
  if (!content.is_array()) fields.refuse("content", "must be a string or an array of parts");
  std::string text;
  for (const json& part : content) {
    if (!part.is_object()) fields.refuse("content", "holds a part that is no object");
    const auto type = part.find("type");
    if (type == part.end() || *type != "text") fields.refuse("content", "may hold parts of type 'text' only");
    const auto found = part.find("text");
    if (found == part.end() || !found->is_string()) fields.refuse("content", "holds a part without its text");
    text += found->get_ref<const std::string&>();
  }
  return text;
}

// Templates expect the arguments of calls as objects; OpenAI sends them as text.
void read_tool_calls(const Fields& fields, json& message) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || calls->is_null()) return;
  if (!calls->is_array()) fields.refuse("tool_calls", "must be an array");
  for (json& call : *calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object())
      fields.refuse("tool_calls", "holds something that is no function call");
    json& function = call["function"];
    if (!function.contains("name") || !function["name"].is_string())
      fields.refuse("tool_calls", "holds a call without a name");
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    const auto& text = function["arguments"].get_ref<const std::string&>();
    check_size(text);
    json arguments = json::parse(text, nullptr, false);
    if (arguments.is_object()) function["arguments"] = std::move(arguments);
  }
}

json read_message(const json& given, size_t index) {
  const std::string prefix = fmt::format("messages[{}]", index);
  if (!given.is_object()) refuse_param(prefix, fmt::format("'{}' must be an object", prefix));
  const Fields fields(given, prefix + ".");
  json message = given;
  std::string role = fields.text("role");
  if (role.empty()) fields.refuse("role", "is missing");
  message["role"] = role == "developer" ? "system" : role;  // what templates call it
  const auto content = given.find("content");
  const bool calls = fields.find("tool_calls") != nullptr;
  if ((content == given.end() || content->is_null()) && !(role == "assistant" && calls))
    fields.refuse("content", "is missing");
  message["content"] = content == given.end() ? json("") : read_content(fields, *content);
  if (message["content"].is_null()) message["content"] = "";
  read_tool_calls(fields, message);
  return message;
}

json read_tools(const Fields& fields) {
  const json* tools = fields.find("tools");
  if (const json* choice = fields.find("tool_choice")) {
    if (!choice->is_string() || (*choice != "none" && *choice != "auto"))
      fields.refuse("tool_choice", "may be 'none' or 'auto' only");
    if (*choice == "none") tools = nullptr;
  }
  if (!tools) return json::array();
  if (!tools->is_array()) fields.refuse("tools", "must be an array");
  for (const json& tool : *tools) {
    if (!tool.is_object() || !tool.contains("function") || !tool["function"].is_object() ||
        !tool["function"].contains("name") || !tool["function"]["name"].is_string())
      fields.refuse("tools", "holds something that is no function with a name");
  }
  return *tools;
}

void refuse_what_chat_lacks(const Fields& fields) {
  for (const char* key : {"functions", "function_call", "audio", "web_search_options"})
    fields.refuse_if_given(key);
  if (const json* format = fields.find("response_format")) {
    const auto type = format->is_object() ? format->find("type") : format->end();
    if (!format->is_object() || type == format->end() || *type != "text")
      fields.refuse("response_format", "of another type than 'text' is not supported");
  }
  if (const json* modalities = fields.find("modalities"); modalities && *modalities != json::array({"text"}))
    fields.refuse("modalities", "other than text are not supported");
}

void read_chat_logprobs(const Fields& fields, GenerationOptions& options) {
  options.logprobs = fields.boolean("logprobs", false);
  const auto top = fields.integer("top_logprobs", 0, limits::kMaxTopLogprobs);
  if (top && !options.logprobs) fields.refuse("top_logprobs", "is only allowed when 'logprobs' is true");
  options.top_logprobs = static_cast<uint32_t>(top.value_or(0));
}

void read_chat(const Fields& fields, ApiRequest& request) {
  refuse_what_chat_lacks(fields);
  read_max_tokens(fields, "max_tokens", request.options);
  read_max_tokens(fields, "max_completion_tokens", request.options);
  read_chat_logprobs(fields, request.options);
  const json* messages = fields.find("messages");
  if (!messages) fields.refuse("messages", "is missing");
  if (!messages->is_array() || messages->empty())
    fields.refuse("messages", "must be an array with a message");
  if (messages->size() > limits::kMaxMessages)
    fields.refuse("messages", fmt::format("may hold at most {} messages", limits::kMaxMessages));
  json conversation = json::object();
  if (const json* more = fields.find("chat_template_kwargs")) {
    if (!more->is_object()) fields.refuse("chat_template_kwargs", "must be an object");
    conversation = *more;
  }
  json& list = conversation["messages"] = json::array();
  for (size_t i = 0; i < messages->size(); ++i) list.push_back(read_message((*messages)[i], i));
  json tools = read_tools(fields);
  request.has_tools = !tools.empty();
  if (request.has_tools) conversation["tools"] = std::move(tools);
  conversation["add_generation_prompt"] = fields.boolean("add_generation_prompt", true);
  request.conversation = conversation.dump();
}

}  // namespace

ApiRequest parse_api_request(ApiKind kind, std::string_view body) {
  const json object = parse_object(body);
  const Fields fields(object);
  ApiRequest request;
  request.kind = kind;
  read_common(fields, request);
  if (kind == ApiKind::kChat)
    read_chat(fields, request);
  else
    read_completion(fields, request);
  return request;
}

}  // namespace caravan
