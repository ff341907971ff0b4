#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "cache/kv_mover.h"
#include "daemon/forecast.h"
#include "daemon/generation.h"
#include "daemon/node_driver.h"
#include "model/tokenizer.h"

namespace caravan {

// GenerationService over a node's head: tokens become text, stop strings end a request, times are taken.
class HeadService final : public GenerationService {
 public:
  struct Options {
    std::string model_name;
    std::string family;
    std::string fingerprint;
    uint32_t context = 0;
    uint32_t vocabulary = 0;
    const Tokenizer* tokenizer = nullptr;               // none: tokens without text. Outlives the service
    const KvCounters* kv = nullptr;                     // of the process; outlives the service
    std::function<const KvArchive*()> kv_archive = {};  // of the process, once it is there; may be empty
    std::function<MemoryStatus()> memory = {};          // of the process; may be empty
    std::string self_name = {};                         // of the head among peers
    StageForecast own_units = {};  // of the head's two units, where no layers are hosted beside them
    bool opening = false;          // texts begin with their prompt's end, so no space is dropped
  };
  HeadService(NodeDriver& driver, const Clock& clock, Options options);
  ~HeadService() override;

  RequestId start(std::vector<TokenId> prompt, GenerationOptions options, Callback callback) override;
  void cancel(RequestId request) override;
  ServiceStatus status() const override;

  // Hears of the prompt's logits of the request that is started next, in the compute thread: until that is
  // joined.
  void collect_prompt_logits(LogitsSink sink) {
    logits_sink_ = std::make_shared<const LogitsSink>(std::move(sink));
  }

 private:
  struct Generation;
  void on_event(RequestEvent event);
  void on_token(Generation& generation, TokenEvent token);
  void finish(RequestId request, Generation& generation, FinishReason reason);
  // Takes note of a request that ran alone.
  void measure(const Generation& generation);
  void set_beside(ServiceStatus& status) const;
  RingForecast ring_forecast() const;

  NodeDriver& driver_;
  const Clock& clock_;
  const Options options_;
  const int64_t started_unix_;
  std::shared_ptr<const LogitsSink> logits_sink_;
  // Of requests that ran alone in a ring's epoch, the last of each.
  struct Alone {
    EpochId epoch;
    double token_ms = 0, token_position = 0;
    double prompt_token_ms = 0;
    uint32_t prompt_tokens = 0;
  };
  Alone alone_;
  std::map<RequestId, std::shared_ptr<Generation>> generations_;
};

}  // namespace caravan
