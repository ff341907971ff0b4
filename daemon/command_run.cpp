// run: one generation, here or through a ring of processes of this machine.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/seconds_text.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/end_within.h"
#include "daemon/head_process.h"
#include "daemon/load_report.h"
#include "daemon/local_ring.h"
#include "daemon/process_account.h"
#include "daemon/weights_streamed.h"

namespace caravan {

namespace {

// A step that is being computed is not waited for.
constexpr Duration kEndPatience = std::chrono::seconds(1);

struct RunResult {
  std::vector<TokenId> prompt_ids, ids;
  std::string text;
  std::vector<double> token_ms;
  double prompt_ms = 0;  // when nothing was generated
  std::optional<FinishReason> finish;
  std::optional<Error> error;
  WeightsStreamed streamed;
};

// The f32 logits of every prompt position, [position][vocabulary], little-endian; taken back unless finished.
// Written in the compute thread.
class LogitsFile {
 public:
  LogitsFile(std::string path, uint32_t vocabulary)
      : path_(std::move(path)), vocabulary_(vocabulary), out_(path_, std::ios::binary) {
    if (!out_) fail(ErrorCode::kIo, "{}: cannot be written", path_);
  }
  ~LogitsFile() {
    if (finished_) return;
    out_.close();
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  void write(uint32_t position, std::span<const float> logits) {
    out_.seekp(static_cast<std::streamoff>(uint64_t{position} * vocabulary_ * sizeof(float)));
    out_.write(reinterpret_cast<const char*>(logits.data()),
               static_cast<std::streamsize>(logits.size_bytes()));
    positions_ = std::max<size_t>(positions_, position + 1);
  }
  void finish(size_t positions) {
    out_.flush();
    if (!out_) fail(ErrorCode::kIo, "{}: cannot be written", path_);
    if (positions_ != positions)
      fail(ErrorCode::kUnavailable, "{} of {} positions came", positions_, positions);
    finished_ = true;
  }

 private:
  const std::string path_;
  const uint32_t vocabulary_;
  std::ofstream out_;
  size_t positions_ = 0;
  bool finished_ = false;
};

std::vector<TokenId> prompt_ids(const CommandLine& line, const ModelText& text) {
  if (line.ids) return *line.ids;
  const Tokenizer& tokenizer = text.need_tokenizer();
  auto ids = tokenizer.encode(line.prompt, {.bos = tokenizer.vocabulary().add_bos, .special = true});
  if (ids.empty())
    fail(ErrorCode::kInvalidArgument, "the prompt is empty; give one with -p \"...\" or --ids 1,2,3");
  return ids;
}

void print_statistics(const RunResult& result, const ServiceStatus& status) {
  if (result.token_ms.empty()) {
    std::fprintf(stderr, "%zu prompt token%s in %s\n", result.prompt_ids.size(),
                 result.prompt_ids.size() == 1 ? "" : "s", seconds_text(result.prompt_ms * 1e-3).c_str());
    return;
  }
  double decode_ms = 0;
  for (size_t i = 1; i < result.token_ms.size(); ++i) decode_ms += result.token_ms[i];
  std::fprintf(stderr, "%zu prompt token%s in %s", result.prompt_ids.size(),
               result.prompt_ids.size() == 1 ? "" : "s", seconds_text(result.token_ms[0] * 1e-3).c_str());
  if (result.token_ms.size() > 1)
    std::fprintf(stderr, ", %zu tokens at %.1f tokens/s", result.token_ms.size(),
                 static_cast<double>(result.token_ms.size() - 1) * 1e3 / decode_ms);
  if (status.wire_bytes > 0)
    std::fprintf(stderr, ", %s over %zu stage%s (%s)", to_string(Bytes{status.wire_bytes}).c_str(),
                 status.stages.size(), status.stages.size() == 1 ? "" : "s", status.codec.c_str());
  std::fprintf(stderr, "\n");
}

std::string streamed_text(const WeightsRead& read) {
  const std::string text = fmt::format("{} read in {:.1f} s", to_string(Bytes{read.bytes}),
                                       static_cast<double>(read.busy_ns) / 1e9);
  const std::optional<double> hidden = read.hidden();
  return hidden ? fmt::format("{}, {:.0f} % of it beside computing", text, 100 * *hidden) : text;
}

void print_streaming(const Pager& pager, const WeightsStreamed& streamed) {
  if (pager.mapped()) return;
  std::string text = "prompt: " + streamed_text(streamed.prompt());
  if (const auto tokens = streamed.tokens()) text += "; tokens: " + streamed_text(*tokens);
  std::fprintf(stderr, "weights streamed (%s): %s\n", pager.reader_name().c_str(), text.c_str());
}

nlohmann::ordered_json streamed_json(const WeightsRead& read) {
  nlohmann::ordered_json json = {{"read_bytes", read.bytes},
                                 {"read_seconds", static_cast<double>(read.busy_ns) / 1e9},
                                 {"hidden", nullptr}};
  if (const auto hidden = read.hidden()) json["hidden"] = *hidden;
  return json;
}

// Null where no weights are streamed.
nlohmann::ordered_json streaming_json(const Pager& pager, const WeightsStreamed& streamed) {
  if (pager.mapped()) return nullptr;
  nlohmann::ordered_json json = {{"prompt", streamed_json(streamed.prompt())}, {"tokens", nullptr}};
  if (const auto tokens = streamed.tokens()) json["tokens"] = streamed_json(*tokens);
  return json;
}

// This process's and its peers', which have ended.
void print_json(const RunResult& result, const ServiceStatus& status, const Engine& engine,
                const std::vector<LocalRing::PeerAccount>& peers) {
  using Json = nlohmann::ordered_json;
  ProcessAccount sum = account_of(engine);
  Json each = Json::array();
  for (const auto& [name, account] : peers) {
    each.push_back({{"name", name}});
    if (!account) continue;
    sum.add(*account);
    each.back().update(Json::parse(account_text(*account)));
  }
  Json json = {{"prompt_ids", result.prompt_ids},
               {"ids", result.ids},
               {"text", result.text},
               {"token_ms", result.token_ms},
               {"wire_bytes", status.wire_bytes},
               {"finish", !result.finish                          ? ""
                          : *result.finish == FinishReason::kStop ? "stop"
                                                                  : "length"}};
  json.update(Json::parse(account_text(sum)));
  json.update(Json{{"weights_streamed", streaming_json(engine.pager(), result.streamed)},
                   {"peers", std::move(each)},
                   {"model", status.model},
                   {"codec", status.codec},
                   {"exact", status.exact},
                   {"stages", status.stages.size()}});
  std::printf("%s\n", json.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

void print_spilling(const Engine& engine) {
  const KvRoom room = engine.kv_room();
  if (!room.spills()) return;
  const KvCounters& kv = engine.kv_counters();
  std::fprintf(stderr, "KV in memory: %u of %u blocks; %s to disk, %s back, waited %.1f s\n", room.frames,
               room.blocks, to_string(Bytes{kv.bytes_written.value()}).c_str(),
               to_string(Bytes{kv.bytes_read.value()}).c_str(),
               static_cast<double>(kv.waited_ns.value()) * 1e-9);
}

GenerationOptions generation_options(const CommandLine& line) {
  GenerationOptions options;
  options.sampling = line.sampling;
  options.stop = line.stop;
  options.max_tokens = line.tokens;
  options.prompt_only = line.tokens == 0;
  options.ignore_end = line.ignore_end;
  options.progress = true;
  return options;
}

// Shows on standard error how far a long prompt is.
class PrefillReport {
 public:
  PrefillReport(const Clock& clock, size_t tokens)
      : shown_(clock, "prefill", Progress::Unit::kTokens, tokens, standard_error_is_terminal(),
               standard_error()) {}
  // To be told of every event, before its text is shown.
  void take(const GenerationEvent& event) {
    if (event.prompt_done > done_)
      shown_.advance(event.prompt_done - std::exchange(done_, event.prompt_done));
    if (!event.tokens.empty() || event.finish || event.error) shown_.finish();
  }

 private:
  Progress shown_;
  uint32_t done_ = 0;
};

// Keeps what an event brings; shows its text as it comes. True for the last one.
bool take(const GenerationEvent& event, bool show, const PagerCounters& weights, RunResult& result) {
  if (!event.tokens.empty()) result.streamed.add_tokens(event.tokens.size(), WeightsRead::by_now(weights));
  for (const GeneratedToken& token : event.tokens) {
    result.ids.push_back(token.id);
    result.token_ms.push_back(token.milliseconds);
  }
  result.text += event.text;
  bool shown = true;
  if (show && !event.text.empty()) {
    std::fwrite(event.text.data(), 1, event.text.size(), stdout);
    shown = std::fflush(stdout) == 0;
  }
  result.error = event.error;
  result.finish = event.finish;
  return event.error || event.finish || !shown;  // nobody reads on
}

}  // namespace

int command_run(const CommandLine& line) {
  apply_log_level(line.config);
  if (line.codec_given && line.peers == 0)
    fail(ErrorCode::kInvalidArgument, "--codec is for rows between peers; add --peers N");
  const SystemClock clock;
  SystemRandom random;
  EventLoop loop;
  LoadReport load(clock);
  Config config = line.config;
  config.max_sequences = 1;  // one generation: no memory is kept for others
  // Outlives the thread that writes to it.
  std::optional<LogitsFile> logits;
  LocalRing ring(loop, clock, random, config, line.model, line.peers, load.progress());
  HeadProcess& head = ring.head();
  RunResult result;
  result.prompt_ids = prompt_ids(line, head.text());
  std::optional<PrefillReport> prefill;
  if (!line.logits_path.empty()) logits.emplace(line.logits_path, head.engine().spec().vocabulary);

  int interrupted = 0;  // by this signal
  loop.on_signal([&](int signal) {
    if (std::exchange(interrupted, signal) == 0) end_within(kEndPatience, 128 + signal, head.saving());
    loop.stop();
  });
  ring.when_ready([&](const std::optional<Error>& failure) {
    load.finish();
    try {
      if (failure) throw Error(*failure);
      if (logits)
        head.service().collect_prompt_logits(
            [&](uint32_t position, std::span<const float> row) { logits->write(position, row); });
      prefill.emplace(clock, result.prompt_ids.size());
      const PagerCounters& weights = head.engine().pager().counters();
      result.streamed.begin(WeightsRead::by_now(weights));
      const Time start = clock.now();
      head.service().start(result.prompt_ids, generation_options(line),
                           [&, start](const GenerationEvent& event) {
                             prefill->take(event);
                             if (!take(event, !line.json, weights, result)) return;
                             result.streamed.end(WeightsRead::by_now(weights));
                             result.prompt_ms = seconds(clock.now() - start) * 1e3;
                             loop.stop();
                           });
    } catch (const Error& error) {
      result.error = error;
      loop.stop();
    }
  });
  ring.start();
  loop.run();
  if (interrupted != 0) {
    std::fprintf(stderr, "\ninterrupted\n");
    return 128 + interrupted;
  }
  if (result.error) throw Error(*result.error);
  if (logits) logits->finish(result.prompt_ids.size());
  if (line.json) {
    const ServiceStatus status = head.service().status();
    const std::vector<LocalRing::PeerAccount> peers = ring.end();
    print_json(result, status, head.engine(), peers);
  } else {
    if (!result.text.empty()) std::printf("\n");
    std::fflush(stdout);
    print_statistics(result, head.service().status());
    print_streaming(head.engine().pager(), result.streamed);
    print_spilling(head.engine());
  }
  return 0;
}

}  // namespace caravan
