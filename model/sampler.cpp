#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/error.h"
#include "base/limits.h"
#include "base/random.h"

namespace caravan {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();
constexpr float kMostLogit = std::numeric_limits<float>::max();
// How many best tokens are sorted first when looking for the share top_p; most often they are enough.
constexpr size_t kFirstSorted = 256;

using Kept = std::vector<std::pair<float, TokenId>>;  // scaled logit, token

// NaN loses against everything, and a difference with infinity must not be NaN.
float orderly(float logit) {
  return std::isnan(logit) ? kBanned : std::min(logit, kMostLogit);
}

bool better(const std::pair<float, TokenId>& a, const std::pair<float, TokenId>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

void check_range(std::string_view field, float value, SamplingRange range) {
  // Written so that NaN fails.
  if (value >= range.least && value <= range.most) return;
  fail(ErrorCode::kInvalidArgument, "{} is {}, not between {} and {}", field, value, range.least, range.most);
}

void apply_penalties(std::vector<float>& logits, const SamplingOptions& options,
                     std::span<const TokenId> history, std::vector<TokenId>& recent) {
  const bool any =
      options.repetition_penalty != 1 || options.presence_penalty != 0 || options.frequency_penalty != 0;
  if (!any) return;
  if (options.penalty_window > 0 && history.size() > options.penalty_window) {
    history = history.last(options.penalty_window);
  }
  recent.assign(history.begin(), history.end());
  std::sort(recent.begin(), recent.end());
  for (size_t i = 0; i < recent.size();) {
    const TokenId id = recent[i];
    size_t count = 0;
    for (; i < recent.size() && recent[i] == id; ++i) ++count;
    if (id >= logits.size()) continue;
    float& logit = logits[id];
    logit = logit > 0 ? logit / options.repetition_penalty : logit * options.repetition_penalty;
    logit -= options.presence_penalty + options.frequency_penalty * static_cast<float>(count);
  }
}

void keep_best(Kept& kept, size_t count) {
  if (count >= kept.size()) return;
  std::nth_element(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(count), kept.end(), better);
  kept.resize(count);
}

// Kept logits lie below the best one's, which is 0.
double weight(const std::pair<float, TokenId>& candidate) {
  return std::exp(static_cast<double>(candidate.first));
}

// The fewest best tokens that together have the share `top_p`.
void keep_share(Kept& kept, double top_p) {
  double total = 0;
  for (const auto& candidate : kept) total += weight(candidate);
  for (size_t sorted = std::min(kFirstSorted, kept.size());; sorted = std::min(sorted * 8, kept.size())) {
    std::partial_sort(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(sorted), kept.end(), better);
    double sum = 0;
    for (size_t i = 0; i < sorted; ++i) {
      sum += weight(kept[i]);
      if (sum < top_p * total) continue;
      kept.resize(i + 1);
      return;
    }
    if (sorted == kept.size()) return;
  }
}

// In [0, 1), 53 bits, the same for the same seed and position whatever was drawn before.
double draw(uint64_t seed, uint64_t position) {
  return static_cast<double>(mix64(mix64(seed) ^ mix64(~position)) >> 11) * 0x1p-53;
}

TokenId choose(const Kept& kept, double unit, std::vector<double>& sums) {
  sums.clear();
  double sum = 0;
  for (const auto& candidate : kept) sums.push_back(sum += weight(candidate));
  // The first whose sum is above the mark; one without weight never is, since its sum is its neighbour's.
  const auto found = std::upper_bound(sums.begin(), sums.end(), unit * sum);
  // Rounding can put the mark at the very end.
  const size_t index =
      found != sums.end()
          ? static_cast<size_t>(found - sums.begin())
          : static_cast<size_t>(std::lower_bound(sums.begin(), sums.end(), sum) - sums.begin());
  return kept[index].second;
}

// The logarithm of a sum of exponentials in two parts, since the first can be too large to add to.
struct LogSum {
  double best = 0;  // the largest exponent
  double rest = 0;  // the logarithm of the sum with the largest taken out as a factor
  float share(float logit) const {
    if (logit == kBanned) return kBanned;
    return static_cast<float>(static_cast<double>(logit) - best - rest);
  }
};

LogSum log_sum_exp(std::span<const float> logits) {
  float best = kBanned;
  for (const float logit : logits) best = std::max(best, orderly(logit));
  if (best == kBanned) return {};
  double sum = 0;
  for (const float logit : logits)
    sum += std::exp(static_cast<double>(orderly(logit)) - static_cast<double>(best));
  return {static_cast<double>(best), std::log(sum)};
}

}  // namespace

void validate(const SamplingOptions& options) {
  check_range("temperature", options.temperature, kTemperatureRange);
  check_range("top_p", options.top_p, kTopPRange);
  check_range("min_p", options.min_p, kMinPRange);
  check_range("repetition_penalty", options.repetition_penalty, kRepetitionRange);
  check_range("presence_penalty", options.presence_penalty, kPenaltyRange);
  check_range("frequency_penalty", options.frequency_penalty, kPenaltyRange);
  if (options.logit_bias.size() > limits::kMaxLogitBias) {
    fail(ErrorCode::kInvalidArgument, "logit_bias has {} entries, more than {}", options.logit_bias.size(),
         limits::kMaxLogitBias);
  }
  for (const auto& [id, bias] : options.logit_bias) {
    if (std::isnan(bias)) fail(ErrorCode::kInvalidArgument, "logit_bias of token {} is not a number", id);
  }
}

void SamplerScratch::reserve(size_t vocabulary) {
  logits.reserve(vocabulary);
  kept.reserve(vocabulary);
  sums.reserve(vocabulary);
}

TokenId greedy(std::span<const float> logits) {
  size_t best = logits.size();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == kBanned) continue;
    if (best == logits.size() || logits[i] > logits[best]) best = i;
  }
  if (best == logits.size()) {
    fail(ErrorCode::kInvalidArgument,
         "no token can be chosen: none of {} logits is a number above minus infinity", logits.size());
  }
  return static_cast<TokenId>(best);
}

TokenId sample(std::span<const float> logits, const SamplingOptions& options,
               std::span<const TokenId> history, uint64_t position, SamplerScratch& scratch) {
  scratch.logits.resize(logits.size());
  std::transform(logits.begin(), logits.end(), scratch.logits.begin(), orderly);
  apply_penalties(scratch.logits, options, history, scratch.recent);
  for (const auto& [id, bias] : options.logit_bias) {
    if (id < scratch.logits.size()) scratch.logits[id] = orderly(scratch.logits[id] + bias);
  }
  const TokenId first = greedy(scratch.logits);
  if (options.temperature == 0 || options.top_k == 1) return first;

  const float best = scratch.logits[first];
  // A token with less than min_p of the best one's probability lies more than this below it.
  const float floor = options.min_p > 0 ? std::log(options.min_p) : kBanned;
  Kept& kept = scratch.kept;
  kept.clear();
  for (TokenId id = 0; id < scratch.logits.size(); ++id) {
    const float scaled = (scratch.logits[id] - best) / options.temperature;
    if (scaled == kBanned || scaled < floor) continue;
    kept.emplace_back(scaled, id);
  }
  const bool cuts = options.top_k > 0 || options.top_p < 1;
  if (options.top_k > 0) keep_best(kept, options.top_k);
  if (options.top_p < 1) keep_share(kept, static_cast<double>(options.top_p));
  // One order for what is left, so that the draw does not depend on how it was selected.
  if (cuts)
    std::sort(kept.begin(), kept.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return choose(kept, draw(options.seed, position), scratch.sums);
}

std::vector<Candidate> top_logprobs(std::span<const float> logits, size_t count, SamplerScratch& scratch) {
  Kept& all = scratch.kept;
  all.clear();
  for (TokenId id = 0; id < logits.size(); ++id) all.emplace_back(orderly(logits[id]), id);
  count = std::min(count, all.size());
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(), better);
  const LogSum sum = log_sum_exp(logits);
  std::vector<Candidate> best;
  best.reserve(count);
  for (size_t i = 0; i < count; ++i)
    best.push_back({all[i].second, logits[all[i].second], sum.share(all[i].first)});
  return best;
}

float logprob(std::span<const float> logits, TokenId id) {
  if (id >= logits.size()) fail(ErrorCode::kInvalidArgument, "token {} of {}", id, logits.size());
  return log_sum_exp(logits).share(orderly(logits[id]));
}

}  // namespace caravan
