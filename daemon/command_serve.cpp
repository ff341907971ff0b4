// serve, join and demo.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "daemon/api_access.h"
#include "daemon/calibrate_apart.h"
#include "daemon/child_process.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/demo_tale.h"
#include "daemon/end_within.h"
#include "daemon/load_report.h"
#include "daemon/local_ring.h"
#include "daemon/model_library.h"
#include "daemon/peer_process.h"
#include "daemon/running.h"
#include "daemon/serve_process.h"
#include "daemon/serving.h"
#include "daemon/small_budgets.h"
#include "model/families.h"

namespace caravan {

namespace {

// A step that is being computed is not waited for; a head gives its children time to end first.
constexpr Duration kPeerPatience = std::chrono::milliseconds(400);
constexpr Duration kHeadPatience = std::chrono::seconds(1);

void end_on_signal(EventLoop& loop, Duration patience, const Saving& saving) {
  loop.on_signal([&loop, patience, saving, told = false](int) mutable {
    if (!std::exchange(told, true)) end_within(patience, 0, saving);
    loop.stop();
  });
}

std::string read_ticket_line() {
  std::string line;
  std::getline(std::cin, line);
  return line;
}

// Ends the loop when standard input closes: the parent is gone.
std::thread watch_standard_input(EventLoop& loop, const Saving& saving) {
  return std::thread([&loop, saving] {
    char byte;
    while (::read(STDIN_FILENO, &byte, 1) > 0) {
    }
    end_within(kPeerPatience, 0, saving);
    loop.stop();
  });
}

// Beside the checkout that the program was built in, or the bundle that it came in.
std::string find_demo_model() {
  const std::filesystem::path program = own_program();
  for (const auto& folder :
       {program.parent_path() / "../../../configs/demo", program.parent_path() / "../share/caravan",
        std::filesystem::path("configs/demo")})
    if (std::filesystem::exists(folder / "demo.gguf"))
      return (folder / "demo.gguf").lexically_normal().string();
  fail(ErrorCode::kNotFound, "the demo model is not beside the program; name a model: caravan demo MODEL");
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && name[0] ? name : "peer";
}

// Why a head without peers does not run the model, if so.
std::string too_small_alone(const Config& config, const Manifest& manifest) {
  const ModelSpec spec = read_spec(manifest);
  const EngineOptions options = engine_options(config, 1);
  return small_budgets({config, manifest, spec, options, context_of(config, spec), 0});
}

void measure_machine_once(const Config& config) {
  const std::string state = state_folder(config);
  try {
    std::optional<ChildProcess> child = calibrate_apart(config, state);
    if (!child) return;
    while (!child->ended()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    check_calibrated(config, state, *child);
  } catch (const Error& error) {
    log_warning("no_forecast reason=\"{}\"", error.message());
  }
}

}  // namespace

int command_join(const CommandLine& line) {
  apply_log_level(line.config);
  const SystemClock clock;
  SystemRandom random;
  EventLoop loop;
  LoadReport load(clock), fetch(clock, "fetch");
  const Ticket ticket = parse_ticket(line.ticket == "-" ? read_ticket_line() : line.ticket);
  PeerProcess::Options options;
  options.name = line.config.name.empty() ? host_name() : line.config.name;
  options.listen = line.config.listen.empty() ? "0.0.0.0:0" : line.config.listen;
  options.sharers = line.sharers;
  options.archive_folder = line.archive_folder;
  options.account_file = line.account_file;
  if (!line.until_eof) options.fetch_progress = fetch.progress();
  if (!line.until_eof)
    options.tell = [&fetch](const std::string& what) {
      fetch.finish();
      std::fprintf(stderr, "%s\n", what.c_str());
      std::fflush(stderr);
    };
  std::optional<Error> failure;
  std::optional<Manifest> model;
  if (!line.model.empty()) model = open_model(line.model, line.config, line.library);
  PeerProcess peer(loop, clock, random, line.config, std::move(model), ticket, options,
                   line.until_eof ? LoadProgress() : load.progress(), [&](const Error& reason) {
                     failure = reason;
                     loop.stop();
                   });
  end_on_signal(loop, kPeerPatience, peer.saving());
  if (line.until_eof) watch_standard_input(loop, peer.saving()).detach();
  peer.start();
  loop.run();
  if (failure) throw Error(*failure);
  return 0;
}

int command_serve(const CommandLine& line) {
  apply_log_level(line.config);
  const SystemClock clock;
  SystemRandom random;
  EventLoop loop;
  LoadReport load(clock);
  // What is refused, and a folder that another process holds, is told before anything is measured.
  require_key_beyond_loopback(parse_host_port(line.config.api, "--api"), line.config.api_key);
  const auto open = [&line] { return open_model(line.model, line.config, line.library); };
  Manifest manifest = open();
  StateStores stores = open_state_stores(state_folder(line.config), false);
  const std::string alone = too_small_alone(line.config, manifest);
  // While nothing answers yet: it takes seconds, in which a signal ends the process at once.
  if (line.config.calibrate) measure_machine_once(line.config);
  std::optional<ServeProcess> started;
  try {
    started.emplace(loop, clock, random, line.config, std::move(manifest), open, std::move(stores),
                    load.progress());
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    const std::string small = small_budgets(line.config, line.model, 0);
    throw Error(error.code(), small.empty() ? error.message() : small);
  }
  ServeProcess& serve = *started;
  serve.head().driver().on_change([&, told = false]() mutable {
    if (told || !serve.head().driver().node().head()->ready()) return;
    told = true;
    load.finish();
    std::printf("ready: %s on http://%s\n", serve.head().name().c_str(), serve.api_address().c_str());
    std::fflush(stdout);
  });
  std::printf("API at http://%s (generates once the ring is ready), peers join at %s; Ctrl-C ends\n",
              serve.api_address().c_str(), serve.wire_addresses().c_str());
  std::fflush(stdout);
  if (!alone.empty()) {
    std::fprintf(stderr, "note: %s; it waits for peers\n", alone.c_str());
    std::fflush(stderr);
  }
  end_on_signal(loop, kHeadPatience, serve.head().saving());
  if (line.until_eof) watch_standard_input(loop, serve.head().saving()).detach();
  serve.start();
  loop.run();
  return 0;
}

int command_demo(const CommandLine& line) {
  apply_log_level(line.config);
  const SystemClock clock;
  SystemRandom random;
  EventLoop loop;
  LoadReport load(clock);
  const std::string state = state_folder(line.config);
  const std::string model = line.model.empty() ? find_demo_model() : line.model;
  LocalRing ring(loop, clock, random, line.config, model, line.peers == 0 ? 3 : line.peers, load.progress());
  const Serving serving(loop, clock, random, line.config, ring.head());
  const RunningFile running(state, {::getpid(), serving.address(), "", ring.head().name()});
  DemoTale tale(ring.head(), clock);
  std::optional<Error> failure;
  ring.when_ready([&](const std::optional<Error>& error) {
    load.finish();
    if (error) {
      failure = error;
      return loop.stop();
    }
    // The API answers from here on, however long the tale takes.
    std::printf("%zu peers are ready behind http://%s\n", ring.children().size(), serving.address().c_str());
    std::fflush(stdout);
    tale.tell([&] {
      std::printf("API at http://%s (OpenAI-compatible), model \"%s\"; Ctrl-C ends\n",
                  serving.address().c_str(), ring.head().name().c_str());
      std::fflush(stdout);
    });
  });
  ring.when_lost([&](const std::string& what) {
    std::fprintf(stderr, "%s; its requests end with an error, %s\n", what.c_str(),
                 ring.has_child() ? "the other peers take over its layers"
                                  : "no peer is left: end this with Ctrl-C and start again");
  });
  end_on_signal(loop, kHeadPatience, ring.head().saving());
  ring.start();
  loop.run();
  if (failure) throw Error(*failure);
  return 0;
}

}  // namespace caravan
