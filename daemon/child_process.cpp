#include "daemon/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace caravan {

ChildProcess::ChildProcess(std::string name, const std::string& program,
                           const std::vector<std::string>& arguments, Output output)
    : name_(std::move(name)) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail(ErrorCode::kIo, "no pipe for {}: {}", name_, std::strerror(errno));
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  CHECK(posix_spawn_file_actions_init(&actions) == 0);
  CHECK(posix_spawnattr_init(&attributes) == 0);
  // Ctrl-C on the terminal reaches this process alone, which then ends its children in order.
  CHECK(posix_spawnattr_setflags(
            &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) == 0);
  CHECK(posix_spawnattr_setpgroup(&attributes, 0) == 0);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  CHECK(posix_spawnattr_setsigmask(&attributes, &none) == 0);
  CHECK(posix_spawnattr_setsigdefault(&attributes, &all) == 0);
  CHECK(posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO) == 0);
  // A child's words belong to standard error: standard output is for the text alone.
  if (output == Output::kStandardError)
    CHECK(posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO) == 0);
  else
    CHECK(posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0) == 0);
  const int error = ::posix_spawn(&pid_, program.c_str(), &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  ::close(ends[0]);
  input_ = ends[1];
  if (error != 0) {
    pid_ = -1;
    ::close(input_);
    fail(ErrorCode::kIo, "{} cannot be started: {}", program, std::strerror(error));
  }
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : name_(std::move(other.name_)),
      pid_(std::exchange(other.pid_, -1)),
      input_(std::exchange(other.input_, -1)),
      ended_(std::move(other.ended_)) {}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) end(std::chrono::seconds(3));
  if (input_ >= 0) ::close(input_);
}

void ChildProcess::write_line(const std::string& line) {
  const std::string text = line + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::write(input_, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(ErrorCode::kIo, "{} does not listen: {}", name_, std::strerror(errno));
    done += static_cast<size_t>(count);
  }
}

std::optional<std::string> ChildProcess::ended() {
  if (ended_ || pid_ <= 0) return ended_;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  ended_ = WIFEXITED(status) ? "exited with " + std::to_string(WEXITSTATUS(status))
                             : "was killed by signal " + std::to_string(WTERMSIG(status));
  return ended_;
}

void ChildProcess::ask_to_end() {
  if (!ended()) ::kill(pid_, SIGTERM);
}

void ChildProcess::end(Duration patience) {
  ask_to_end();
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!ended()) {
    if (std::chrono::steady_clock::now() >= deadline) ::kill(pid_, SIGKILL);
    ::usleep(5000);
  }
}

void ChildProcess::kill() {
  while (!ended()) {
    ::kill(pid_, SIGKILL);
    ::usleep(1000);
  }
}

std::string own_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

}  // namespace caravan
