#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "daemon/event_loop.h"
#include "daemon/http.h"

namespace caravan {

struct ChatOptions {
  HostPort server;
  std::string api_key;
  std::string system;  // the first message; empty: none
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  uint32_t max_tokens = 0;  // of one answer; 0: until the context is full
};

// Where the conversation happens.
struct ChatTerminal {
  std::function<std::optional<std::string>()> read_line;  // nothing at the end of the input
  std::function<void(std::string_view)> write;            // text, at once
  bool prompts = true;                                    // a person sits there
};

// Standard input and output.
ChatTerminal standard_terminal();

// `caravan chat`: reads lines, sends the conversation so far to a daemon and prints the answers as they come.
// /reset forgets the conversation, /quit or the end of the input ends it; SIGINT stops the current answer, of
// which what came is kept. Returns the exit status: 1 when the last answer failed. Throws kUnavailable when
// no daemon answers.
int run_chat(EventLoop& loop, const ChatOptions& options, const ChatTerminal& terminal);

// `caravan status`: the table, or the daemon's own JSON. Throws kUnavailable, kRefused (the key).
std::string fetch_status(EventLoop& loop, const HostPort& server, const std::string& api_key, bool json,
                         const Clock& clock);

}  // namespace caravan
