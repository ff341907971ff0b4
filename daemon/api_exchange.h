#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "daemon/api_answer.h"
#include "daemon/api_request.h"
#include "daemon/generation.h"
#include "daemon/http.h"
#include "daemon/metrics.h"
#include "daemon/prompt_codec.h"

namespace caravan {

// One request for text, from its generations (prompts times n) to the answer, whole or as a stream of
// server-sent events. It lives in the callbacks of the service and the responder; when the client leaves, the
// generations are cancelled. A failure before the first piece is an answer with its own status; after that,
// it is the stream's last event.
class ApiExchange : public std::enable_shared_from_this<ApiExchange> {
 public:
  struct Parts {
    GenerationService& service;
    const PromptCodec& codec;
    Metrics& metrics;
  };
  struct Route {
    std::string name;     // for metrics
    HttpHeaders headers;  // of the answer
  };

  ApiExchange(Parts parts, ApiRequest request, ApiAnswer answer, std::shared_ptr<HttpResponder> responder,
              Route route)
      : parts_(parts),
        request_(std::move(request)),
        answer_(std::move(answer)),
        responder_(std::move(responder)),
        route_(std::move(route)) {}

  // Starts the generations, all or none. Throws Error when that cannot be; then nothing was answered.
  void start(uint32_t context);

 private:
  struct Choice {
    ApiChoice shown;  // a stream: since the piece before
    RequestId generation;
    bool running = false;
    bool opened = false;  // the first piece of the stream is out
    uint64_t offset = 0;  // code points of the tokens so far
    uint32_t tokens = 0;
  };

  std::vector<std::vector<TokenId>> encode() const;
  std::vector<TokenId> encode(const ApiRequest::Prompt& prompt) const;
  void check(const std::vector<TokenId>& ids, uint32_t context) const;
  void start_one(size_t index, const std::vector<TokenId>& prompt);
  void on_event(size_t index, const GenerationEvent& event);
  void take_tokens(Choice& choice, const GenerationEvent& event);
  void write_pieces(Choice& choice);
  void write_event(const std::string& json);
  void open_stream();
  void finish();
  void fail_with(const Error& error);
  void cancel_all();
  Usage usage() const;
  bool chat() const { return request_.kind == ApiKind::kChat; }

  const Parts parts_;
  const ApiRequest request_;
  const ApiAnswer answer_;
  const std::shared_ptr<HttpResponder> responder_;
  const Route route_;

  std::vector<Choice> choices_;
  size_t running_ = 0;
  uint32_t prompt_tokens_ = 0;
  bool streaming_ = false;
};

}  // namespace caravan
