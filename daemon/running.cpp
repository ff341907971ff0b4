#include "daemon/running.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "shards/json_metadata.h"

using nlohmann::json;

namespace caravan {

namespace {

constexpr size_t kMostBytes = 64u << 10;

std::string path_in(const std::string& folder) {
  return folder + "/running.json";
}

struct FoundFile {
  std::string text;
  bool held = false;  // by the process that wrote it
};

// A process's id says nothing once it has ended, since another gets it: a head holds a lock on its file for
// as long as it lives, which no kill leaves behind.
std::optional<FoundFile> read_small_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    if (errno == ENOENT) return std::nullopt;
    fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  }
  FoundFile found{std::string(kMostBytes, '\0'), ::flock(file, LOCK_SH | LOCK_NB) != 0};
  size_t size = 0;
  for (ssize_t count; size < found.text.size(); size += static_cast<size_t>(count)) {
    count = ::read(file, found.text.data() + size, found.text.size() - size);
    if (count <= 0) break;
  }
  ::close(file);
  found.text.resize(size);
  return found;
}

// Whole or not at all: a reader sees the old file or the new one, also after a crash in between. Returns the
// locked file.
int write_whole(const std::string& path, const std::string& text) {
  const std::string temporary = fmt::format("{}.{}", path, ::getpid());
  const auto refuse = [&](const char* what) {
    const int reason = errno;
    ::unlink(temporary.c_str());
    fail(ErrorCode::kIo, "cannot {} {}: {} (choose another folder with --state)", what, path,
         std::strerror(reason));
  };
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (file < 0) refuse("write");
  const bool locked = ::flock(file, LOCK_EX | LOCK_NB) == 0;
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const bool synced = ::fsync(file) == 0;
  const bool replaced = locked && written && synced && ::rename(temporary.c_str(), path.c_str()) == 0;
  if (replaced) return file;
  const int reason = errno;
  ::close(file);
  errno = reason;
  refuse(locked && written && synced ? "replace" : "write");
  return -1;
}

RunningHead parse(const std::string& text, const std::string& path) {
  try {
    const json object = json::parse(text);
    RunningHead head;
    head.pid = object.at("pid").get<int64_t>();
    head.api = object.at("api").get<std::string>();
    head.wire = object.value("wire", "");
    head.model = object.value("model", "");
    return head;
  } catch (const json::exception& error) {
    fail(ErrorCode::kMalformed, "{}: {}", path, json_reason(error.what()));
  }
}

}  // namespace

std::optional<RunningHead> find_running(const std::string& state_folder) {
  const std::string path = path_in(state_folder);
  const auto found = read_small_file(path);
  if (!found) return std::nullopt;
  RunningHead head = parse(found->text, path);
  if (!found->held) return std::nullopt;
  return head;
}

RunningHead require_running(const std::string& state_folder) {
  auto head = find_running(state_folder);
  if (!head)
    fail(ErrorCode::kUnavailable,
         "no daemon is running on {}; start one with 'caravan serve MODEL' or name its address with --api",
         state_folder);
  return *head;
}

RunningFile::RunningFile(const std::string& state_folder, const RunningHead& head)
    : path_(path_in(state_folder)), pid_(head.pid) {
  // What cannot be read (an older version's file, half a disk) says nothing about a head that runs.
  std::optional<RunningHead> other;
  try {
    other = find_running(state_folder);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) throw;
  }
  if (other && other->pid != head.pid)
    fail(ErrorCode::kRefused, "process {} serves '{}' on {} already, with the state folder {}; see --state",
         other->pid, other->model, other->api, state_folder);
  const json object = {{"pid", head.pid}, {"api", head.api}, {"wire", head.wire}, {"model", head.model}};
  file_ = write_whole(path_, object.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

RunningFile::~RunningFile() {
  // Another head may have taken the folder over, if this one was thought dead.
  try {
    const auto found = read_small_file(path_);
    if (found && parse(found->text, path_).pid == pid_) ::unlink(path_.c_str());
  } catch (const Error&) {
    // What is there now is another's.
  }
  ::close(file_);
}

}  // namespace caravan
