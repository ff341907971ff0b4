#include "daemon/local_head_runner.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/caught_error.h"
#include "base/error.h"
#include "compute/codec.h"
#include "shards/not_finite.h"

namespace caravan {

namespace {

// Weights that are searched for what spoils every logit: what reads in seconds.
constexpr Bytes kMostSearched{uint64_t{8} << 30};

}  // namespace

LocalHeadRunner::LocalHeadRunner(Engine& engine, ComputeThread& thread, const LoadProgress& progress,
                                 Post post)
    : engine_(engine),
      thread_(thread),
      post_(std::move(post)),
      reserved_(engine.budget().reserve(MemoryTag::kScratch, scratch_bytes(engine.spec()))) {
  const uint32_t last = engine.spec().unit_count();
  embed_ = engine.host({0, 1}, 1, {}, progress);
  output_ = engine.host({last - 1, last}, 1, {}, progress);
  rows_.resize(size_t{kRowsAtOnce} * engine.spec().width);
  logits_.resize(size_t{kRowsAtOnce} * engine.spec().vocabulary);
  scratch_.reserve(engine.spec().vocabulary);
}

LocalHeadRunner::~LocalHeadRunner() = default;

void LocalHeadRunner::embed(EmbedJob job) {
  thread_.post([this, job = std::move(job)] { post_(embed_now(job)); });
}

void LocalHeadRunner::output(OutputJob job) {
  thread_.post([this, job = std::move(job)] { post_(output_now(job)); });
}

EmbedDone LocalHeadRunner::embed_now(const EmbedJob& job) {
  EmbedDone done{job.epoch, job.step, {}, ""};
  try {
    const uint32_t width = engine_.spec().width;
    const auto count = static_cast<uint32_t>(job.tokens.size());
    const size_t row_bytes = encoded_row_bytes(job.codec, width);
    auto bytes = std::make_shared<std::vector<std::byte>>(count * row_bytes);
    for (uint32_t first = 0; first < count; first += kRowsAtOnce) {
      const uint32_t rows = std::min(kRowsAtOnce, count - first);
      embed_.stage->embed(std::span(job.tokens).subspan(first, rows), rows_.data());
      encode_rows(job.codec, rows_.data(), rows, width, bytes->data() + first * row_bytes);
    }
    done.rows = {job.codec, width, count, std::move(bytes)};
  } catch (const std::exception&) {
    done.error = caught_error().message();
  }
  return done;
}

OutputDone LocalHeadRunner::output_now(const OutputJob& job) {
  OutputDone done{job.epoch, job.step, {}, ""};
  try {
    const uint32_t width = engine_.spec().width, vocabulary = engine_.spec().vocabulary;
    const uint32_t count = job.rows.count;
    if (job.rows.width != width || job.asked.size() != count || (count > 0 && !job.rows.bytes))
      fail(ErrorCode::kMalformed, "{} rows of width {} came back for {} of width {}", count, job.rows.width,
           job.asked.size(), width);
    if (count == 0) return done;
    const size_t row_bytes = encoded_row_bytes(job.rows.codec, width);
    if (job.rows.bytes->size() != count * row_bytes)
      fail(ErrorCode::kMalformed, "{} bytes came back for {} rows of {}", job.rows.bytes->size(), count,
           row_bytes);
    for (uint32_t first = 0; first < count; first += kRowsAtOnce) {
      const uint32_t rows = std::min(kRowsAtOnce, count - first);
      decode_rows(job.rows.codec, std::span(*job.rows.bytes).subspan(first * row_bytes, rows * row_bytes),
                  rows, width, rows_.data());
      output_.stage->output(rows_.data(), rows, logits_.data());
      for (uint32_t i = 0; i < rows; ++i)
        done.results.push_back(
            finish_row(job.asked[first + i], std::span(logits_).subspan(size_t{i} * vocabulary, vocabulary)));
    }
  } catch (const std::exception&) {
    done.error = caught_error().message();
  }
  return done;
}

void LocalHeadRunner::refuse_numbers() {
  if (no_numbers_.empty()) {
    const Manifest& manifest = engine_.manifest();
    const auto found = find_not_finite(manifest, kMostSearched);
    no_numbers_ = found ? fmt::format(
                              "{}: tensor {} ({}) holds values that are not finite (NaN or infinite), so "
                              "that no token can be chosen; get the file anew",
                              found->file, found->tensor, to_string(found->group))
                        : manifest.path + ": no logit is a finite number, so that no token can be chosen";
  }
  fail(ErrorCode::kMalformed, "{}", no_numbers_);
}

OutputResult LocalHeadRunner::finish_row(const OutputRow& asked, std::span<const float> logits) {
  OutputResult result;
  if (asked.logits) (*asked.logits)(static_cast<uint32_t>(asked.position - 1), logits);
  if (!asked.sample) return result;
  // Neither NaN nor minus infinity.
  const auto can_be_chosen = [](float logit) { return logit > -std::numeric_limits<float>::infinity(); };
  if (std::none_of(logits.begin(), logits.end(), can_be_chosen)) refuse_numbers();
  result.token = sample(logits, *asked.sampling, asked.history, asked.position, scratch_);
  if (asked.logprob) result.logprob = logprob(logits, result.token);
  if (asked.top_logprobs > 0) result.top = top_logprobs(logits, asked.top_logprobs, scratch_);
  return result;
}

}  // namespace caravan
