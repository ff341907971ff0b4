#pragma once

#include "daemon/command_line.h"

namespace caravan {

// The exit status after Ctrl-C.
inline constexpr int kInterrupted = 130;

// One function a sub-command; each returns the process's exit status and throws Error, which main prints.
int command_run(const CommandLine& line);
int command_serve(const CommandLine& line);
int command_join(const CommandLine& line);
int command_demo(const CommandLine& line);
int command_invite(const CommandLine& line);
int command_status(const CommandLine& line);
int command_chat(const CommandLine& line);
int command_quantize(const CommandLine& line);
int command_tokenize(const CommandLine& line);
int command_inspect(const CommandLine& line);
int command_template(const CommandLine& line);
int command_calibrate(const CommandLine& line);
int command_plan(const CommandLine& line);
int command_bench(const CommandLine& line);
int command_import(const CommandLine& line);
int command_list(const CommandLine& line);
int command_verify(const CommandLine& line);
int command_remove(const CommandLine& line);

}  // namespace caravan
