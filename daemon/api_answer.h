#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/api_request.h"
#include "daemon/generation.h"

namespace caravan {

// The texts of answers, in OpenAI's shapes. Bytes that are no UTF-8 become U+FFFD.

struct ApiToken {
  std::string bytes;
  float logprob = 0;
  std::vector<std::pair<std::string, float>> top;  // bytes and logprob, best first
};

struct ApiChoice {
  uint32_t index = 0;
  std::string text;
  bool logprobs = false;
  std::vector<ApiToken> tokens;  // with logprobs
  uint64_t text_offset = 0;      // of the first of them, in code points
  std::optional<FinishReason> finish;
};

// What every piece of one answer repeats.
struct ApiAnswer {
  ApiKind kind = ApiKind::kCompletion;
  std::string id;
  int64_t created_unix = 0;
  std::string model;
  std::string fingerprint;
};

std::string answer_json(const ApiAnswer& answer, const std::vector<ApiChoice>& choices, const Usage& usage);

// One piece of a stream. `opening`: of chat, names the role. `with_usage`: says that usage comes at the end.
std::string piece_json(const ApiAnswer& answer, const ApiChoice& choice, bool opening, bool with_usage);
std::string usage_piece_json(const ApiAnswer& answer, const Usage& usage);

std::string model_json(std::string_view id, int64_t created_unix, uint32_t context);
std::string model_list_json(std::string_view id, int64_t created_unix, uint32_t context);

// Code points of a text: offsets count them.
uint64_t code_points(std::string_view utf8);

}  // namespace caravan
