// status, chat and invite: they find the running head through the state folder.
#include <cstdio>

#include "base/error.h"
#include "daemon/chat_client.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/invitations.h"
#include "daemon/running.h"
#include "peers/keys.h"

namespace caravan {

namespace {

// --api when it was given, else what the running head left in the state folder.
HostPort find_server(const CommandLine& line) {
  // Also as serve and demo print it.
  constexpr std::string_view kScheme = "http://";
  std::string api = line.config.api;
  if (api.starts_with(kScheme)) api.erase(0, kScheme.size());
  if (line.api_given) return parse_host_port(api, "--api");
  return parse_host_port(require_running(state_folder_to_read(line.config)).api,
                         "the running head's address");
}

}  // namespace

int command_status(const CommandLine& line) {
  EventLoop loop;
  const SystemClock clock;
  const std::string text = fetch_status(loop, find_server(line), line.config.api_key, line.json, clock);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

int command_chat(const CommandLine& line) {
  EventLoop loop;
  ChatOptions options;
  options.server = find_server(line);
  options.api_key = line.config.api_key;
  options.system = line.system_prompt;
  if (line.temperature_given) options.temperature = line.sampling.temperature;
  return run_chat(loop, options, standard_terminal());
}

int command_invite(const CommandLine& line) {
  const std::string state = state_folder(line.config);
  const RunningHead head = require_running(state);
  if (head.wire.empty())
    fail(ErrorCode::kUnavailable, "the running head takes no peers; start one with: caravan serve MODEL");
  SystemRandom random;
  const KeyPair keys = load_or_create_keys(state, random);
  const int64_t expires = SystemClock().unix_seconds() + int64_t{60} * line.ticket_minutes;
  std::vector<std::string> endpoints;
  for (size_t start = 0; start < head.wire.size();) {
    const size_t end = std::min(head.wire.find(' ', start), head.wire.size());
    endpoints.push_back(head.wire.substr(start, end - start));
    start = end + 1;
  }
  const Ticket ticket = make_ticket(keys.public_key, endpoints, expires, random);
  hand_over(state, open_ticket(ticket), std::chrono::seconds(5));
  std::printf("%s\n", to_text(ticket).c_str());
  std::fflush(stdout);
  std::fprintf(stderr,
               "One peer may join with it, once, within %u minutes. On the other machine:\n"
               "  caravan join TICKET\n"
               "It fetches the layers that it takes, unless it has the model: --model MODEL.\n",
               line.ticket_minutes);
  return 0;
}

}  // namespace caravan
