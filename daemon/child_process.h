#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace caravan {

// A process that this one started, with a pipe to its standard input. Its standard error is ours, and so that
// its standard output does not mix with ours, that goes there, too, or nowhere. Ended and collected by the
// destructor; the pipe closes with this process, however it ends, which is how a child
// knows. Control thread.
class ChildProcess {
 public:
  enum class Output : uint8_t { kStandardError, kNowhere };
  // Throws kIo naming the program.
  ChildProcess(std::string name, const std::string& program, const std::vector<std::string>& arguments,
               Output output = Output::kStandardError);
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;

  // Throws kIo when the child is gone.
  void write_line(const std::string& line);
  // How it ended ("exited with 1", "was killed by signal 9"), once it has.
  std::optional<std::string> ended();
  void ask_to_end();
  // Waits for its end, by force after `patience`.
  void end(Duration patience);
  // kill -9: it gets to do nothing more. Waits until it is gone.
  void kill();

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }

 private:
  std::string name_;
  pid_t pid_ = -1;
  int input_ = -1;
  std::optional<std::string> ended_;
};

// This program's own file.
std::string own_program();

}  // namespace caravan
