#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "model/sampler.h"

namespace caravan {

// What the user typed, checked for form and merged over the configuration file.
struct CommandLine {
  enum class Command {
    kServe,
    kJoin,
    kInvite,
    kDemo,
    kStatus,
    kRun,
    kChat,
    kQuantize,
    kTokenize,
    kInspect,
    kTemplate,
    kCalibrate,
    kPlan,
    kBench,
    kImport,
    kList,
    kVerify,
    kRemove
  };
  Command command{};
  Config config;  // flags win over the file, the file over the defaults

  std::string model;           // MODEL, SOURCE or FILE.jinja
  std::string output;          // OUT.gguf
  std::string input;           // INPUT.json, or the text to tokenize
  std::optional<int64_t> now;  // template: seconds since 1970
  std::string ticket;          // join
  std::string type = "q8_0";   // quantize
  bool json = false;
  uint32_t peers = 0;  // run (0: in this process), demo

  bool until_eof = false;      // join, serve, calibrate: end when standard input closes
  uint32_t sharers = 1;        // join: processes of this kind on the machine
  std::string archive_folder;  // join: in place of the one in the state folder
  std::string account_file;    // join: where a ProcessAccount is left at the end

  std::string library;  // the state folder whose imported models are meant; default: --state

  // import, rm
  bool copy = false, unused = false;

  // run
  std::string prompt;
  std::optional<std::vector<TokenId>> ids;
  std::string logits_path;
  uint32_t tokens = 64;
  std::vector<std::string> stop;
  SamplingOptions sampling;
  bool ignore_end = false;

  bool codec_given = false;
  bool force = false;      // calibrate: measure again; quantize: write over OUT
  uint32_t sequences = 1;  // plan: that run at once

  // bench
  bool pages = false;  // weights and KV that memory does not hold
  uint32_t repeats = 5;
  double seconds = 1;
  uint32_t prompt_tokens =
      2049;  // 64 whole blocks of KV, which are reused in memory, too, and one token to compute

  // tokenize
  bool text_given = false, bos = false, special = false;
  std::optional<std::vector<TokenId>> decode;

  // invite
  uint32_t ticket_minutes = 60;

  // chat, status
  bool api_given = false, temperature_given = false;
  std::string system_prompt;
};

// Parses argv; prints help or the version and ends the process with 0 where asked, or prints a usage error
// and ends it with 2.
CommandLine parse_command_line(int argc, const char* const* argv);

}  // namespace caravan
