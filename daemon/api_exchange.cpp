#include "daemon/api_exchange.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "daemon/api_error.h"

namespace caravan {

namespace {

// nginx's number for a client that did not wait; it is never sent, only counted.
constexpr int kClientLeft = 499;

// The first choice has the client's seed itself, so that n = 1 and the first of many agree.
uint64_t seed_of_choice(uint64_t seed, size_t index) {
  return index == 0 ? seed : mix64(seed + index);
}

}  // namespace

void ApiExchange::start(uint32_t context) {
  const auto prompts = encode();
  for (const auto& ids : prompts) {
    check(ids, context);
    prompt_tokens_ += static_cast<uint32_t>(ids.size());
  }
  choices_.resize(prompts.size() * request_.n);
  try {
    for (size_t i = 0; i < choices_.size(); ++i) start_one(i, prompts[i / request_.n]);
  } catch (const Error&) {
    cancel_all();
    throw;
  }
  responder_->on_disconnect([self = shared_from_this()] {
    self->cancel_all();
    self->parts_.metrics.request(self->route_.name, kClientLeft);
  });
}

std::vector<std::vector<TokenId>> ApiExchange::encode() const {
  const char* const param = chat() ? "messages" : "prompt";
  try {
    if (chat()) {
      if (!parts_.codec.has_chat_template())
        refuse_param(param, "the model has no chat template; use /v1/completions");
      if (request_.has_tools && !parts_.codec.takes_tools())
        refuse_param("tools", "the chat template of the model does not take tools");
      return {parts_.codec.encode_chat(request_.conversation)};
    }
    std::vector<std::vector<TokenId>> prompts;
    for (const auto& prompt : request_.prompts) prompts.push_back(encode(prompt));
    return prompts;
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {
    // What a tokenizer or template refuses is the client's text, whatever the reason.
    refuse_param(param, error.message());
  }
}

std::vector<TokenId> ApiExchange::encode(const ApiRequest::Prompt& prompt) const {
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return *ids;
  return parts_.codec.encode(std::get<std::string>(prompt));
}

void ApiExchange::check(const std::vector<TokenId>& ids, uint32_t context) const {
  const char* const param = chat() ? "messages" : "prompt";
  const size_t vocabulary = parts_.codec.vocabulary();
  if (vocabulary == 0) refuse_param(param, "the model has no tokenizer, which the API needs");
  if (ids.empty()) refuse_param(param, "the prompt has no tokens");
  const auto foreign = std::find_if(ids.begin(), ids.end(), [&](TokenId id) { return id >= vocabulary; });
  if (foreign != ids.end())
    refuse_param(param,
                 fmt::format("the prompt holds {}, the vocabulary has {} tokens", *foreign, vocabulary));
  for (const auto& [id, bias] : request_.options.sampling.logit_bias)
    if (id >= vocabulary)
      refuse_param("logit_bias",
                   fmt::format("'logit_bias' names {}, the vocabulary has {} tokens", id, vocabulary));
  if (context > 0 && ids.size() >= context)
    refuse_param(param, fmt::format("the prompt has {} tokens, the context {}", ids.size(), context),
                 "context_length_exceeded");
}

void ApiExchange::start_one(size_t index, const std::vector<TokenId>& prompt) {
  Choice& choice = choices_[index];
  choice.shown.index = static_cast<uint32_t>(index);
  choice.shown.logprobs = request_.options.logprobs;
  if (request_.echo) {
    const auto* text = std::get_if<std::string>(&request_.prompts[index / request_.n]);
    choice.shown.text = text ? *text : parts_.codec.decode(prompt);
  }
  GenerationOptions options = request_.options;
  options.sampling.seed = seed_of_choice(request_.seed.value_or(0), index);
  choice.generation = parts_.service.start(
      prompt, std::move(options),
      [self = shared_from_this(), index](const GenerationEvent& event) { self->on_event(index, event); });
  choice.running = true;
  ++running_;
}

void ApiExchange::on_event(size_t index, const GenerationEvent& event) {
  Choice& choice = choices_[index];
  if (!choice.running) return;
  if (event.finish || event.error) {
    choice.running = false;
    --running_;
  }
  if (event.error) return fail_with(*event.error);
  take_tokens(choice, event);
  choice.shown.text += event.text;
  choice.shown.finish = event.finish;
  if (request_.stream) write_pieces(choice);
  if (running_ == 0) finish();
}

void ApiExchange::take_tokens(Choice& choice, const GenerationEvent& event) {
  for (const GeneratedToken& token : event.tokens) {
    if (choice.tokens++ == 0)
      parts_.metrics.first_token(token.milliseconds / 1000);
    else
      parts_.metrics.next_token(token.milliseconds / 1000);
    if (!request_.options.logprobs) continue;
    // Control tokens have no text, but a name.
    ApiToken shown{token.bytes.empty() ? parts_.codec.piece(token.id) : token.bytes, token.logprob, {}};
    for (const Candidate& candidate : token.top)
      shown.top.emplace_back(parts_.codec.piece(candidate.id), candidate.logprob);
    choice.shown.tokens.push_back(std::move(shown));
  }
  if (event.finish) choice.tokens = event.usage.completion_tokens;
}

// The end comes in a piece of its own, after the text.
void ApiExchange::write_pieces(Choice& choice) {
  open_stream();
  ApiChoice& shown = choice.shown;
  const auto finish = std::exchange(shown.finish, std::nullopt);
  const auto write = [&](bool opening) {
    write_event(piece_json(answer_, shown, opening, request_.include_usage));
  };
  if (chat() && !choice.opened) {
    ApiChoice first;
    first.index = shown.index;
    write_event(piece_json(answer_, first, true, request_.include_usage));
  }
  choice.opened = true;
  if (!shown.text.empty() || !shown.tokens.empty()) {
    shown.text_offset = choice.offset;
    write(false);
    for (const ApiToken& token : shown.tokens) choice.offset += code_points(token.bytes);
    shown.text.clear();
    shown.tokens.clear();
  }
  if (!finish) return;
  shown.finish = finish;
  write(false);
}

void ApiExchange::open_stream() {
  if (std::exchange(streaming_, true)) return;
  HttpResponse head{.content_type = "text/event-stream; charset=utf-8", .headers = route_.headers};
  head.headers.emplace_back("Cache-Control", "no-cache");
  parts_.metrics.request(route_.name, head.status);
  responder_->start_stream(std::move(head));
}

void ApiExchange::write_event(const std::string& json) {
  responder_->write("data: " + json + "\n\n");
}

void ApiExchange::finish() {
  if (request_.stream) {
    if (request_.include_usage) write_event(usage_piece_json(answer_, usage()));
    write_event("[DONE]");
    return responder_->end();
  }
  std::vector<ApiChoice> shown;
  for (Choice& choice : choices_) shown.push_back(std::move(choice.shown));
  parts_.metrics.request(route_.name, 200);
  responder_->send({.headers = route_.headers, .body = answer_json(answer_, shown, usage())});
}

void ApiExchange::fail_with(const Error& error) {
  cancel_all();
  const ApiRefusal refusal = refusal_of(error);
  if (streaming_) {
    write_event(error_json(refusal, error.message()));
    return responder_->end();
  }
  HttpResponse response = error_response(refusal, error.message());
  response.headers.insert(response.headers.end(), route_.headers.begin(), route_.headers.end());
  parts_.metrics.request(route_.name, response.status);
  responder_->send(std::move(response));
}

void ApiExchange::cancel_all() {
  for (Choice& choice : choices_) {
    if (!std::exchange(choice.running, false)) continue;
    --running_;
    parts_.service.cancel(choice.generation);
  }
}

Usage ApiExchange::usage() const {
  Usage sum{prompt_tokens_, 0};
  for (const Choice& choice : choices_) sum.completion_tokens += choice.tokens;
  return sum;
}

}  // namespace caravan
