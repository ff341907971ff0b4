#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace caravan {

// What a running head leaves in its state folder, so that `status`, `chat` and `invite` find it.
struct RunningHead {
  int64_t pid = 0;
  std::string api;    // HOST:PORT
  std::string wire;   // where peers join, HOST:PORT; empty: nowhere
  std::string model;  // the API's id
  bool operator==(const RunningHead&) const = default;
};

// Writes STATE/running.json, whole or not at all, and takes it away in the end. The file is readable by its
// owner alone.
class RunningFile {
 public:
  // Throws kRefused when a head runs on that folder already, kIo naming the folder (and --state).
  RunningFile(const std::string& state_folder, const RunningHead& head);
  ~RunningFile();
  RunningFile(const RunningFile&) = delete;
  RunningFile& operator=(const RunningFile&) = delete;

 private:
  const std::string path_;
  const int64_t pid_;
  int file_ = -1;  // locked, for as long as this lives
};

// The head that runs on that folder; none when there is no file, or nobody holds it.
// Throws kMalformed.
std::optional<RunningHead> find_running(const std::string& state_folder);

// The same, for commands that need one: throws kUnavailable saying how to start one.
RunningHead require_running(const std::string& state_folder);

}  // namespace caravan
