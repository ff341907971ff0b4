#include "bench/restart_bench.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/source.h"
#include "bench/median.h"
#include "daemon/api_status.h"
#include "daemon/child_flags.h"
#include "daemon/child_process.h"
#include "daemon/event_loop.h"
#include "daemon/http_client.h"
#include "daemon/running.h"
#include "model/families.h"
#include "offload/read_rate.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

constexpr Duration kLook = std::chrono::milliseconds(5);
constexpr Duration kLookWhileWaiting = std::chrono::milliseconds(100);
constexpr Duration kArchivePatience = std::chrono::seconds(60);
constexpr uint32_t kRoom = 64;  // of the context, beside the prompt

// What a request came to.
struct Answer {
  double seconds = 0;
  std::string choices;  // with the logarithms of what was likely: the state's bits show in them
};

// Does something every so often while the loop runs.
class Repeated {
 public:
  Repeated(EventLoop& loop, Duration interval, std::function<void()> task)
      : loop_(loop), interval_(interval), task_(std::move(task)) {
    wait();
  }
  ~Repeated() { loop_.cancel(timer_); }
  Repeated(const Repeated&) = delete;
  Repeated& operator=(const Repeated&) = delete;

 private:
  void wait() {
    timer_ = loop_.after(interval_, [this] {
      task_();
      wait();
    });
  }
  EventLoop& loop_;
  const Duration interval_;
  const std::function<void()> task_;
  TimerId timer_;
};

// `caravan serve` on a state folder of its own. Killed at the latest by the destructor.
class Server {
 public:
  // Returns when it answers.
  Server(EventLoop& loop, const PagesBenchOptions& options, const std::string& state, uint32_t context)
      : loop_(loop),
        options_(options),
        process_("the bench's server", own_program(), arguments(options, state, context),
                 ChildProcess::Output::kNowhere) {
    std::optional<RunningHead> head;
    while (!(head = find_running(state))) wait();
    address_ = parse_host_port(head->api, "the server's address");
    while (request("GET", "/health").status != 200) wait();
  }
  ~Server() { process_.kill(); }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // One token behind a prompt of `tokens`, which begins with token `first`.
  Answer ask(const Clock& clock, uint32_t first, uint32_t tokens, uint32_t vocabulary) {
    std::vector<TokenId> prompt(tokens);
    for (uint32_t i = 0; i < tokens; ++i) prompt[i] = (first + i * 7919) % vocabulary;
    const Json body = {{"prompt", prompt}, {"max_tokens", 1}, {"temperature", 0}, {"logprobs", 5}};
    const std::string text = body.dump();
    const Time start = clock.now();
    const HttpResponse response = request("POST", "/v1/completions", text);
    const double elapsed = seconds(clock.now() - start);
    const Json answer = Json::parse(response.body, nullptr, false);
    if (response.status != 200 || !answer.is_object() || !answer.contains("choices"))
      fail(ErrorCode::kUnavailable, "{} answers {}: {}", process_.name(), response.status, response.body);
    return {elapsed, answer["choices"].dump()};
  }
  ServiceStatus status() { return parse_status_json(request("GET", "/v1/caravan/status").body); }
  // Lets some time pass.
  void wait() {
    look();
    std::this_thread::sleep_for(kLook);
  }

 private:
  static std::vector<std::string> arguments(const PagesBenchOptions& options, const std::string& state,
                                            uint32_t context) {
    std::vector<std::string> list = {"serve",     child_model(options.model),
                                     "--state",   state,
                                     "--api",     "127.0.0.1:0",
                                     "--listen",  "127.0.0.1:0",
                                     "--context", std::to_string(context)};
    Config config = options.config;
    // A context beyond what the model was trained for is no news here.
    if (config.log_level == "warning") config.log_level = "error";
    for (std::string& flag : child_flags(config)) list.push_back(std::move(flag));
    if (!options.config.archive.empty()) list.insert(list.end(), {"--archive", options.config.archive});
    return list;
  }
  void look() {
    options_.check();
    if (const auto how = process_.ended())
      fail(ErrorCode::kUnavailable, "{} {}; what it said is above", process_.name(), *how);
  }
  HttpResponse request(std::string_view method, std::string_view target, std::string body = "") {
    // What this throws ends the request.
    const Repeated looking(loop_, kLookWhileWaiting, [this] { look(); });
    return HttpClient(loop_, address_, "").request(method, target, std::move(body));
  }

  EventLoop& loop_;
  const PagesBenchOptions& options_;
  ChildProcess process_;
  HostPort address_;
};

class RestartBenchRun {
 public:
  RestartBenchRun(const PagesBenchOptions& options, const Manifest& model, std::string folder,
                  const Clock& clock)
      : options_(options), spec_(read_spec(model)), folder_(std::move(folder)), clock_(clock) {
    result_.prompt_tokens = options.prompt_tokens;
  }

  RestartBench run() {
    begin();
    std::vector<double> raw, load, warm, in_memory;
    for (uint32_t i = 1; i <= options_.repeats; ++i) {
      options_.step(fmt::format("the prompt again, after kill -9 and restart {} of {}", i, options_.repeats));
      raw.push_back(raw_rate());
      const Time start = clock_.now();
      Server server(loop_, options_, folder_, context());
      load.push_back(seconds(clock_.now() - start));
      warm.push_back(ask_again(server));
      result_.loads += server.status().archive_loads > 0 ? 1 : 0;
      in_memory.push_back(ask_again(server));
    }
    result_.restarts = options_.repeats;
    result_.raw_rate = median(raw);
    result_.load = median(load);
    result_.warm = median(warm);
    result_.in_memory = median(in_memory);
    return result_;
  }

 private:
  static constexpr uint32_t kFirst = 5;
  uint32_t context() const { return result_.prompt_tokens + kRoom; }
  uint32_t whole_blocks() const { return result_.prompt_tokens / limits::kKvBlockPositions; }

  // The prompt for the first time, until all its blocks are in the archive.
  void begin() {
    options_.step(fmt::format("a prompt of {} tokens, seen for the first time", result_.prompt_tokens));
    Server server(loop_, options_, folder_, context());
    if (!server.status().kv_archive.on)
      fail(ErrorCode::kInvalidArgument, "the server keeps no archive: the disk of {} has no room for one",
           folder_);
    const Answer first = server.ask(clock_, kFirst, result_.prompt_tokens, spec_.vocabulary);
    result_.cold = first.seconds;
    choices_ = first.choices;
    const Time deadline = clock_.now() + kArchivePatience;
    ArchiveStatus archive;
    for (uint32_t i = 1; (archive = server.status().kv_archive).blocks < whole_blocks(); ++i) {
      if (clock_.now() >= deadline)
        fail(ErrorCode::kUnavailable, "the archive took {} of {} blocks of the prompt; it may have {}",
             archive.blocks, whole_blocks(), to_string(Bytes{archive.limit_bytes}));
      // Each step moves blocks on that became full in others.
      server.ask(clock_, kFirst + i, 1, spec_.vocabulary);
      server.wait();
    }
    result_.kv_bytes = archive.bytes / archive.blocks * whole_blocks();
  }

  double ask_again(Server& server) const {
    const Answer again = server.ask(clock_, kFirst, result_.prompt_tokens, spec_.vocabulary);
    if (again.choices != choices_)
      fail(ErrorCode::kUnavailable, "after a restart the prompt is answered otherwise: {} instead of {}",
           again.choices, choices_);
    return again.seconds;
  }

  // Nobody has them open now.
  double raw_rate() const {
    std::vector<std::string> paths;
    std::vector<Extent> extents;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ + "/archive"))
      if (entry.path().extension() == ".sst") {
        extents.push_back({static_cast<uint32_t>(paths.size()), 0, entry.file_size()});
        paths.push_back(entry.path().string());
      }
    return read_rate(std::make_shared<FileSource>(std::move(paths)), extents, clock_, options_.lasting).rate;
  }

  const PagesBenchOptions& options_;
  const ModelSpec spec_;
  const std::string folder_;
  const Clock& clock_;
  EventLoop loop_;
  std::string choices_;
  RestartBench result_;
};

}  // namespace

RestartBench run_restart_bench(const PagesBenchOptions& options, const Manifest& model,
                               const std::string& folder, const Clock& clock) {
  return RestartBenchRun(options, model, folder, clock).run();
}

}  // namespace caravan
