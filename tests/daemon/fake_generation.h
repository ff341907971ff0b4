#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "daemon/event_loop.h"
#include "daemon/generation.h"
#include "daemon/prompt_codec.h"

namespace caravan {

// A vocabulary of the 256 bytes, a start token and an end token.
class ByteCodec : public PromptCodec {
 public:
  static constexpr TokenId kStart = 256, kEnd = 257;
  std::vector<TokenId> encode(std::string_view text) const override {
    std::vector<TokenId> ids{kStart};
    for (const unsigned char byte : text) ids.push_back(byte);
    return ids;
  }
  bool has_chat_template() const override { return chat; }
  bool takes_tools() const override { return tools; }
  std::vector<TokenId> encode_chat(std::string_view json) const override {
    if (json.find("refuse me") != std::string_view::npos)
      fail(ErrorCode::kLimit, "the template refuses the conversation");
    conversations.emplace_back(json);
    return encode(json);
  }
  std::string piece(TokenId id) const override {
    if (id == kStart) return "<start>";
    if (id == kEnd) return "<end>";
    return std::string(1, static_cast<char>(id));
  }
  std::string decode(std::span<const TokenId> ids) const override {
    std::string text;
    for (const TokenId id : ids)
      if (id < kStart) text.push_back(static_cast<char>(id));
    return text;
  }
  size_t vocabulary() const override { return 258; }

  bool chat = true, tools = true;
  mutable std::vector<std::string> conversations;
};

// The in-memory twin of generation: a text that is a function of the seed, a byte a token, on a timer of the
// loop. Greedy requests get `script` instead, and end after it.
class FakeGeneration : public GenerationService {
 public:
  explicit FakeGeneration(EventLoop& event_loop) : loop(event_loop) {}
  ~FakeGeneration() override {
    for (const auto& [id, job] : jobs) loop.cancel(job.timer);
  }

  RequestId start(std::vector<TokenId> prompt, GenerationOptions options, Callback callback) override {
    if (!ready) fail(ErrorCode::kUnavailable, "the ring is not ready: {}", reason);
    if (jobs.size() >= most_jobs) fail(ErrorCode::kLimit, "{} requests wait already", jobs.size());
    const RequestId id{++started};
    Job& job = jobs[id];
    job.prompt_tokens = static_cast<uint32_t>(prompt.size());
    job.options = std::move(options);
    job.callback = std::move(callback);
    seeds.push_back(job.options.sampling.seed);
    last = job.options;
    last_prompt = std::move(prompt);
    schedule(id);
    return id;
  }
  void cancel(RequestId id) override {
    const auto found = jobs.find(id);
    if (found == jobs.end()) return;
    loop.cancel(found->second.timer);
    jobs.erase(found);
    ++cancelled;
  }
  ServiceStatus status() const override {
    ServiceStatus status;
    status.ready = ready;
    status.not_ready_reason = ready ? "" : reason;
    status.model = "fake/model";
    status.family = "bytes";
    status.fingerprint = "0123456789abcdef";
    status.codec = "f32";
    status.ring = "00112233445566778899aabbccddeeff";
    status.context = context;
    status.requests_running = static_cast<uint32_t>(jobs.size());
    status.generated_tokens = generated;
    status.kv_bytes_written = 1500;
    status.kv_bytes_read = 2500;
    status.kv_wait_seconds = 0.5;
    status.memory = {1000, 600, 200, 50, 25, 7000, 1.5};
    status.kv_archive = {true, false, 9000, 7000, 70, 8000, 600, 5, 4, 3, 2};
    status.archive = true;
    status.archive_hits = 11;
    status.archive_misses = 12;
    status.archive_timeouts = 13;
    status.archive_loads = 14;
    status.archive_loaded_tokens = 15;
    status.archive_dearer = 16;
    status.archive_failed = 17;
    status.started_unix = 1'700'000'000;
    StageStatus stage;
    stage.peer = "head";
    stage.last_unit = 4;
    stage.state = ready ? "ready" : "joining";
    stage.kv_blocks = 100;
    stage.kv_blocks_free = 40;
    status.stages.push_back(stage);
    return status;
  }

  EventLoop& loop;
  bool ready = true;
  std::string reason = "peer 'b' has not joined";
  std::string script = "Once upon a time there was a caravan.";
  Duration pace{0};                     // between two tokens
  std::optional<uint32_t> fails_after;  // tokens, with kUnavailable
  size_t most_jobs = 64;
  uint32_t context = 4096;

  uint64_t started = 0, cancelled = 0, generated = 0;
  std::vector<uint64_t> seeds;
  GenerationOptions last;
  std::vector<TokenId> last_prompt;

 private:
  struct Job {
    uint32_t prompt_tokens = 0;
    GenerationOptions options;
    Callback callback;
    TimerId timer;
    std::string text;  // all of it
    size_t shown = 0;  // bytes of it that are out
    uint32_t tokens = 0;
  };

  void schedule(RequestId id) {
    jobs[id].timer = loop.after(pace, [this, id] { step(id); });
  }

  // The next byte; nothing at the end.
  std::optional<char> next(const Job& job) const {
    if (job.options.sampling.temperature == 0) {
      if (job.tokens < script.size()) return script[job.tokens];
      if (!job.options.ignore_end) return std::nullopt;
    }
    const uint64_t drawn = mix64(job.options.sampling.seed * 1000 + job.tokens);
    return "abcdefghijklmnopqrstuvwxyz .,"[drawn % 29];
  }

  void step(RequestId id) {
    Job& job = jobs[id];
    GenerationEvent event;
    event.usage.prompt_tokens = job.prompt_tokens;
    if (fails_after && job.tokens >= *fails_after) {
      event.error = Error(ErrorCode::kUnavailable, "peer 'b' was lost");
    } else if (const auto byte = next(job)) {
      take(job, *byte, event);
    } else {
      ++job.tokens;
      event.finish = FinishReason::kStop;
    }
    finish_text(job, event);
    event.usage.completion_tokens = job.tokens;
    const Callback callback = job.callback;
    if (event.finish || event.error)
      jobs.erase(id);
    else
      schedule(id);
    callback(event);
  }

  void take(Job& job, char byte, GenerationEvent& event) {
    job.text.push_back(byte);
    ++job.tokens;
    ++generated;
    GeneratedToken token;
    token.id = static_cast<unsigned char>(byte);
    token.bytes = std::string(1, byte);
    token.milliseconds = 5;
    if (job.options.logprobs) {
      token.logprob = -0.5f;
      for (uint32_t i = 0; i < job.options.top_logprobs; ++i)
        token.top.push_back({(token.id + i) % 256, 0, -0.5f - static_cast<float>(i)});
    }
    event.tokens.push_back(token);
    const uint32_t room = context - job.prompt_tokens;
    const uint32_t most = job.options.max_tokens == 0 ? room : std::min(room, job.options.max_tokens);
    if (job.tokens >= most) event.finish = FinishReason::kLength;
  }

  // Takes stop strings out; holds back what could become one, and bytes of an unfinished character.
  void finish_text(Job& job, GenerationEvent& event) {
    size_t end = job.text.size(), hold = 0;
    for (const std::string& stop : job.options.stop) {
      if (const size_t found = job.text.find(stop); found < end) {
        end = found;
        event.finish = FinishReason::kStop;
      }
      hold = std::max(hold, stop.size() - 1);
    }
    if (!event.finish && !event.error) end = std::max(job.shown, end - std::min(end, hold));
    if (end > job.shown) event.text = job.text.substr(job.shown, end - job.shown);
    job.shown = std::max(job.shown, end);
  }

  std::map<RequestId, Job> jobs;
};

}  // namespace caravan
