#include "daemon/head_service.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "model/stop_matcher.h"

namespace caravan {

namespace {

// Of fewer, the time says little.
constexpr uint32_t kMeasuredTokens = 8;
constexpr uint32_t kMeasuredPrompt = 64;

ArchiveStatus archive_status(const KvArchive& archive) {
  const KvArchive::Status now = archive.status();
  const KvArchiveCounters& counters = archive.counters();
  return {true,
          now.off,
          archive.limit().count,
          now.bytes,
          now.blocks,
          counters.bytes_written.value(),
          counters.bytes_read.value(),
          counters.evicted.value(),
          counters.refused.value(),
          counters.quarantined.value(),
          counters.failures.value()};
}

}  // namespace

struct HeadService::Generation {
  GenerationOptions options;
  Callback callback;
  std::optional<StreamDecoder> decoder;
  StopMatcher stop;
  Usage usage;
  Time last_token{};
  bool alone = false;   // nothing else ran since it was accepted
  uint64_t reused = 0;  // prompt positions of all requests that were not computed, when it was accepted
  double prompt_ms = 0, tokens_ms = 0;

  Generation(GenerationOptions given, Callback call)
      : options(std::move(given)), callback(std::move(call)), stop(options.stop) {}
};

HeadService::HeadService(NodeDriver& driver, const Clock& clock, Options options)
    : driver_(driver), clock_(clock), options_(std::move(options)), started_unix_(clock.unix_seconds()) {}

HeadService::~HeadService() {
  for (const auto& [request, generation] : generations_) driver_.cancel(request);
}

RequestId HeadService::start(std::vector<TokenId> prompt, GenerationOptions options, Callback callback) {
  for (TokenId id : prompt)
    if (id >= options_.vocabulary)
      fail(ErrorCode::kInvalidArgument, "token {} is not among the {} of the vocabulary", id,
           options_.vocabulary);
  validate(options.sampling);
  if (options.stop.size() > limits::kMaxStopStrings)
    fail(ErrorCode::kInvalidArgument, "{} stop strings are over the limit of {}", options.stop.size(),
         limits::kMaxStopStrings);
  for (const std::string& stop : options.stop)
    if (stop.size() > limits::kMaxStopBytes)
      fail(ErrorCode::kInvalidArgument, "a stop string of {} bytes is over the limit of {}", stop.size(),
           limits::kMaxStopBytes);

  TokenRequest request;
  if (options.prompt_only)
    request.max_tokens = 0;
  else if (options.max_tokens > 0)
    request.max_tokens = options.max_tokens;
  request.sampling = options.sampling;
  request.logprobs = options.logprobs;
  request.top_logprobs = options.top_logprobs;
  request.prompt_logits = std::exchange(logits_sink_, nullptr);
  request.progress = options.progress;
  if (options_.tokenizer && !options.ignore_end)
    for (TokenId id = 0; id < options_.tokenizer->size(); ++id)
      if (options_.tokenizer->is_end(id)) request.end_tokens.push_back(id);

  auto generation = std::make_shared<Generation>(std::move(options), std::move(callback));
  generation->usage.prompt_tokens = static_cast<uint32_t>(prompt.size());
  generation->last_token = clock_.now();
  generation->alone = generations_.empty();
  generation->reused = driver_.node().head()->scheduler().reused_positions();
  if (options_.tokenizer) generation->decoder.emplace(*options_.tokenizer, StreamDecoder::Options());
  request.prompt = std::move(prompt);
  const RequestId id =
      driver_.submit(std::move(request), [this](RequestEvent event) { on_event(std::move(event)); });
  generations_.emplace(id, std::move(generation));
  return id;
}

void HeadService::cancel(RequestId request) {
  if (generations_.erase(request) > 0) driver_.cancel(request);
}

void HeadService::on_event(RequestEvent event) {
  const auto found = generations_.find(event.request);
  if (found == generations_.end()) return;
  // Kept while callbacks run: they may cancel it.
  const std::shared_ptr<Generation> generation = found->second;
  if (auto* token = std::get_if<TokenEvent>(&event.what)) {
    on_token(*generation, std::move(*token));
    if (generation->stop.matched() && generations_.count(event.request)) {
      driver_.cancel(event.request);
      finish(event.request, *generation, FinishReason::kStop);
    }
  } else if (const auto* progress = std::get_if<PromptProgress>(&event.what)) {
    GenerationEvent so_far;
    so_far.prompt_done = progress->positions;
    so_far.usage = generation->usage;
    generation->callback(so_far);
  } else if (auto* reason = std::get_if<FinishReason>(&event.what)) {
    finish(event.request, *generation, *reason);
  } else {
    generations_.erase(event.request);
    GenerationEvent last;
    last.error = std::get<Error>(event.what);
    last.usage = generation->usage;
    generation->callback(last);
  }
}

void HeadService::on_token(Generation& generation, TokenEvent token) {
  const Time now = clock_.now();
  GenerationEvent event;
  GeneratedToken& out = event.tokens.emplace_back();
  out.id = token.token;
  out.logprob = token.logprob;
  out.top = std::move(token.top);
  out.milliseconds = seconds(now - generation.last_token) * 1e3;
  generation.last_token = now;
  generation.alone &= generations_.size() == 1;
  (generation.usage.completion_tokens == 0 ? generation.prompt_ms : generation.tokens_ms) += out.milliseconds;
  ++generation.usage.completion_tokens;
  if (generation.decoder) {
    out.bytes = options_.tokenizer->piece(token.token);
    event.text = generation.stop.add(generation.decoder->add(token.token));
  }
  event.usage = generation.usage;
  generation.callback(event);
}

void HeadService::finish(RequestId request, Generation& generation, FinishReason reason) {
  measure(generation);
  generations_.erase(request);
  GenerationEvent last;
  if (generation.decoder && !generation.stop.matched()) {
    last.text = generation.stop.add(generation.decoder->finish());
    if (!generation.stop.matched()) last.text += generation.stop.finish();
  }
  last.finish = generation.stop.matched() ? FinishReason::kStop : reason;
  last.usage = generation.usage;
  generation.callback(last);
}

void HeadService::measure(const Generation& generation) {
  const Usage& usage = generation.usage;
  const auto& assign = driver_.node().head()->ring().assignment();
  if (!generation.alone || !assign) return;
  // Another cut takes other times.
  if (alone_.epoch != assign->epoch) alone_ = {.epoch = assign->epoch};
  if (usage.completion_tokens > kMeasuredTokens) {
    alone_.token_ms = generation.tokens_ms / (usage.completion_tokens - 1);
    alone_.token_position = usage.prompt_tokens + usage.completion_tokens / 2.0;
  }
  const bool computed = driver_.node().head()->scheduler().reused_positions() == generation.reused;
  if (computed && usage.completion_tokens > 0 && usage.prompt_tokens >= kMeasuredPrompt) {
    alone_.prompt_token_ms = generation.prompt_ms / usage.prompt_tokens;
    alone_.prompt_tokens = usage.prompt_tokens;
  }
}

RingForecast HeadService::ring_forecast() const {
  const Ring& ring = driver_.node().head()->ring();
  const auto& route = ring.assignment()->route;
  RingForecast forecast;
  forecast.context = options_.context;
  // Layers in this process are forecast together with the head's units.
  if (!ring.own_stage()) forecast.stages.push_back({options_.self_name, options_.own_units});
  for (uint32_t stage = 0; stage < route.size(); ++stage)
    forecast.stages.push_back({route[stage].name, ring.stage_forecast(stage)});
  return forecast;
}

void HeadService::set_beside(ServiceStatus& status) const {
  const Head& head = *driver_.node().head();
  const auto& assign = head.ring().assignment();
  if (!head.ready() || assign->epoch != alone_.epoch) return;
  status.token_ms = alone_.token_ms;
  status.prompt_token_ms = alone_.prompt_token_ms;
  const RingForecast forecast = ring_forecast();
  status.no_forecast_of = forecast.lacking();
  if (!status.no_forecast_of.empty()) return;
  status.links_ms = head.links_seconds() * 1e3;
  if (alone_.token_ms > 0)
    status.expected_token_ms = forecast.token_seconds(alone_.token_position) * 1e3 + status.links_ms;
  if (alone_.prompt_token_ms > 0)
    status.expected_prompt_token_ms =
        forecast.prompt_token_seconds(alone_.prompt_tokens, head.piece_rows()) * 1e3;
}

ServiceStatus HeadService::status() const {
  ServiceStatus status = driver_.node().head()->status(clock_.now());
  status.model = options_.model_name;
  status.family = options_.family;
  status.fingerprint = options_.fingerprint;
  status.started_unix = started_unix_;
  set_beside(status);
  if (options_.kv) {
    status.kv_bytes_written = options_.kv->bytes_written.value();
    status.kv_bytes_read = options_.kv->bytes_read.value();
    status.kv_wait_seconds = static_cast<double>(options_.kv->waited_ns.value()) * 1e-9;
  }
  if (options_.memory) status.memory = options_.memory();
  const KvArchive* archive = options_.kv_archive ? options_.kv_archive() : nullptr;
  if (archive) status.kv_archive = archive_status(*archive);
  return status;
}

}  // namespace caravan
