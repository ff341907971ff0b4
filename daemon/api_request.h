#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "daemon/generation.h"

namespace caravan {

enum class ApiKind : uint8_t { kCompletion, kChat };

// The body of /v1/completions or /v1/chat/completions, read and checked as far as that goes without a model.
struct ApiRequest {
  using Prompt = std::variant<std::string, std::vector<TokenId>>;

  ApiKind kind = ApiKind::kCompletion;
  std::string model;            // empty: whichever there is
  std::vector<Prompt> prompts;  // of completions, at least one
  std::string conversation;     // of chat: the JSON for PromptCodec::encode_chat
  bool has_tools = false;
  GenerationOptions options;     // without a seed
  std::optional<uint64_t> seed;  // none: a random one
  uint32_t n = 1;                // choices for each prompt
  bool stream = false;
  bool include_usage = false;  // in a stream
  bool echo = false;           // completions: the prompt's text comes first
};

// Throws ApiError naming the parameter; never anything else, whatever the bytes are.
ApiRequest parse_api_request(ApiKind kind, std::string_view body);

}  // namespace caravan
