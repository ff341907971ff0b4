#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "daemon/engine.h"

namespace caravan {

// What one process moved and took, and where it kept what: as `run --json` tells it.
struct ProcessAccount {
  uint64_t disk_bytes = 0;  // read and written, of weights and KV
  uint64_t kv_bytes_written = 0, kv_bytes_read = 0, kv_bytes_archived = 0;
  double kv_wait_ms = 0;
  uint64_t peak_memory_bytes = 0;
  std::string plan;  // a JSON object

  // Sums; the plan stays.
  void add(const ProcessAccount& other);
};

// Of this process, until now.
ProcessAccount account_of(const Engine& engine);

// A JSON object of all of it.
std::string account_text(const ProcessAccount& account);

// For the process that started this one. Throws kIo.
void write_account(const std::string& path, const ProcessAccount& account);
// None when it is not there, or not whole: the process did not end in order.
std::optional<ProcessAccount> read_account(const std::string& path);

}  // namespace caravan
