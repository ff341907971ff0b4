#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace caravan {

// What the options below may be. 0 of top_p keeps the best token alone.
struct SamplingRange {
  float least, most;
};
inline constexpr SamplingRange kTemperatureRange{0, 100};
inline constexpr SamplingRange kTopPRange{0, 1};
inline constexpr SamplingRange kMinPRange{0, 1};
inline constexpr SamplingRange kRepetitionRange{0.01f, 100};
inline constexpr SamplingRange kPenaltyRange{-100, 100};  // presence, frequency

struct SamplingOptions {
  float temperature = 1.0f;         // 0 is greedy
  uint32_t top_k = 0;               // 0 keeps all
  float top_p = 1.0f;               // 1 keeps all
  float min_p = 0.0f;               // of the best token's probability; 0 keeps all
  float repetition_penalty = 1.0f;  // 1 is none
  float presence_penalty = 0.0f;    // taken off the logit of a token that occurred
  float frequency_penalty = 0.0f;   // for every time it occurred
  uint32_t penalty_window = 64;     // how many last tokens the penalties look at; 0 is all
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;
};

// Throws kInvalidArgument naming the field that is out of range.
void validate(const SamplingOptions& options);

struct Candidate {
  TokenId id = 0;
  float logit = 0;
  float logprob = 0;  // natural, over all logits, before penalties and temperature
};

// Buffers kept between calls so that sampling allocates nothing in the long run. One thread.
struct SamplerScratch {
  // So many logits take this much of memory, and no more once it is reserved; what penalties look back on
  // comes on top.
  static constexpr uint64_t bytes(uint64_t vocabulary) {
    return vocabulary * (sizeof(float) + sizeof(std::pair<float, TokenId>) + sizeof(double));
  }
  void reserve(size_t vocabulary);

  std::vector<float> logits;
  std::vector<std::pair<float, TokenId>> kept;
  std::vector<TokenId> recent;
  std::vector<double> sums;
};

// The next token after `history` (prompt and answer so far): penalties and bias, then temperature, min_p,
// top_k, top_p, then a draw. The options have been validated. What is drawn is a function of the logits, the
// options, the history and `position` alone. The lower id wins a tie;
// NaN and minus infinity are never chosen; if nothing else is there, kInvalidArgument is thrown.
TokenId sample(std::span<const float> logits, const SamplingOptions& options,
               std::span<const TokenId> history, uint64_t position, SamplerScratch& scratch);

// The largest logit's id; ties, NaN and errors as above.
TokenId greedy(std::span<const float> logits);

// The `count` best, best first.
std::vector<Candidate> top_logprobs(std::span<const float> logits, size_t count, SamplerScratch& scratch);
// The log-probability of one token.
float logprob(std::span<const float> logits, TokenId id);

}  // namespace caravan
