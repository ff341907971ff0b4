#include "daemon/demo_tale.h"

#include "base/bytes.h"
#include "base/error.h"
#include "base/seconds_text.h"

namespace caravan {

namespace {

constexpr const char* kBeginning = "Once upon a time there was a poor fisherman who";
constexpr uint32_t kTokens = 96;

}  // namespace

void DemoTale::tell(std::function<void()> done) {
  done_ = std::move(done);
  if (!head_.text().tokenizer) {
    std::printf("no text is shown: %s\n", head_.text().no_tokenizer.c_str());
    return done_();
  }
  GenerationOptions options;
  options.max_tokens = kTokens;
  options.sampling.temperature = 0.6f;
  options.sampling.top_p = 0.9f;
  options.sampling.seed = 7;
  const Tokenizer& tokenizer = *head_.text().tokenizer;
  start_ = clock_.now();
  std::printf("\n%s", kBeginning);
  std::fflush(stdout);
  try {
    head_.service().start(
        tokenizer.encode(kBeginning, {.bos = tokenizer.vocabulary().add_bos, .special = false}), options,
        [this](const GenerationEvent& event) { on_event(event); });
  } catch (const Error& error) {
    std::printf("\n%s\n", error.what());
    done_();
  }
}

void DemoTale::on_event(const GenerationEvent& event) {
  if (!event.tokens.empty() && event.usage.completion_tokens == 1) first_token_ = clock_.now();
  std::fwrite(event.text.data(), 1, event.text.size(), stdout);
  std::fflush(stdout);
  if (!event.finish && !event.error) return;
  if (event.error) {
    std::printf("\n%s\n", event.error->what());
  } else {
    const ServiceStatus status = head_.service().status();
    const double decode_s = seconds(clock_.now() - first_token_);
    std::printf(
        "\n\n%u tokens through %zu stages at %.1f tokens/s, the first after %s; %s over the wire as "
        "%s\n",
        event.usage.completion_tokens, status.stages.size(),
        decode_s > 0 ? (event.usage.completion_tokens - 1) / decode_s : 0.0,
        seconds_text(seconds(first_token_ - start_)).c_str(), to_string(Bytes{status.wire_bytes}).c_str(),
        status.codec.c_str());
  }
  std::fflush(stdout);
  done_();
}

}  // namespace caravan
