#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>

#include "base/allocator.h"
#include "base/caught_error.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/commands.h"
#include "daemon/mapping_lost.h"
#include "daemon/standard_output.h"

namespace {

using caravan::CommandLine;

int dispatch(const CommandLine& line) {
  using Command = CommandLine::Command;
  switch (line.command) {
    case Command::kServe:
      return command_serve(line);
    case Command::kJoin:
      return command_join(line);
    case Command::kInvite:
      return command_invite(line);
    case Command::kDemo:
      return command_demo(line);
    case Command::kStatus:
      return command_status(line);
    case Command::kRun:
      return command_run(line);
    case Command::kChat:
      return command_chat(line);
    case Command::kQuantize:
      return command_quantize(line);
    case Command::kTokenize:
      return command_tokenize(line);
    case Command::kInspect:
      return command_inspect(line);
    case Command::kTemplate:
      return command_template(line);
    case Command::kCalibrate:
      return command_calibrate(line);
    case Command::kPlan:
      return command_plan(line);
    case Command::kBench:
      return command_bench(line);
    case Command::kImport:
      return command_import(line);
    case Command::kList:
      return command_list(line);
    case Command::kVerify:
      return command_verify(line);
    case Command::kRemove:
      return command_remove(line);
  }
  return 2;
}

// Stores and what is read of their tables have files open by the hundred, connections come on top, and the
// limit that shells set is for programs that select().
void allow_many_files() {
  struct rlimit files {};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = std::max(files.rlim_cur, std::min<rlim_t>(files.rlim_max, 16384));
  (void)::setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace

int main(int argc, char** argv) {
  // Writes to what has gone fail instead, so that temporary folders and children go with the process.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // likewise over a limit of a file's size
  allow_many_files();
  caravan::explain_lost_mappings();
  caravan::explain_lack_of_memory();
  caravan::keep_freed_memory();
  try {
    const CommandLine line = caravan::parse_command_line(argc, argv);
    return caravan::flush_standard_output(dispatch(line));
  } catch (const std::exception&) {
    const caravan::Error error = caravan::caught_error();
    std::fprintf(stderr, "caravan: %s\n", error.what());
    if (error.code() == caravan::ErrorCode::kCancelled) return caravan::kInterrupted;
    return error.code() == caravan::ErrorCode::kInvalidArgument ? 2 : 1;
  }
}
