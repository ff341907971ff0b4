#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "model/sampler.h"
#include "proto/messages.h"

namespace caravan {

// Units 0 and L+1, on the head: what turns tokens into rows and rows into tokens.

struct EmbedJob {
  EpochId epoch;
  StepId step;
  CodecId codec = CodecId::kF32;  // for the result
  std::vector<TokenId> tokens;    // one a row
};
struct EmbedDone {
  EpochId epoch;
  StepId step;
  Rows rows;  // encoded unit 0 rows, one a token
  std::string error;
};

// Hears of all logits of a row, in the thread that computes them and while they are there: of a prompt they
// would be many times the memory of everything else. Rows come in the order of their positions; where state
// was lost on the way, some come again, and the last is right.
using LogitsSink = std::function<void(uint32_t position, std::span<const float> logits)>;

// What is asked of one answered row.
struct OutputRow {
  bool sample = false;                       // else only `logits`
  std::shared_ptr<const LogitsSink> logits;  // may be none
  bool logprob = false;
  uint32_t top_logprobs = 0;
  uint64_t position = 0;                            // of the token that follows, for the sampler's randomness
  std::shared_ptr<const SamplingOptions> sampling;  // set when `sample`
  std::vector<TokenId> history;                     // as far as the penalties look back; empty without any
};
struct OutputJob {
  EpochId epoch;
  StepId step;
  Rows rows;                     // encoded, from the last stage
  std::vector<OutputRow> asked;  // [rows.count]
};

struct OutputResult {
  TokenId token = 0;
  float logprob = 0;
  std::vector<Candidate> top;
};
struct OutputDone {
  EpochId epoch;
  StepId step;
  std::vector<OutputResult> results;  // [rows.count]
  std::string error;                  // rows that do not decode, logits that are all NaN
};

// Runs them on the head's compute thread. Calls return at once and never throw; completions of each kind come
// to the control thread in the order of the calls.
class HeadRunner {
 public:
  virtual ~HeadRunner() = default;
  virtual void embed(EmbedJob job) = 0;
  virtual void output(OutputJob job) = 0;
};

}  // namespace caravan
