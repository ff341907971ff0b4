#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/source.h"
#include "offload/page_reader.h"

namespace caravan {

// What one read moves at most: the size at which disks and the store (1 MiB values) reach their speed.
inline constexpr uint64_t kPieceBytes = 1u << 20;

// A page being read: how many pieces are left, and the first thing that went wrong.
struct ReadJob {
  explicit ReadJob(uint64_t job) : id(job) {}
  const uint64_t id;
  size_t left = 0;
  std::optional<Error> error;
};

struct ReadPiece {
  std::shared_ptr<ReadJob> job;
  ReadRun run;
};

// Runs in pieces of at most kPieceBytes.
std::vector<ReadRun> split(const std::vector<ReadRun>& runs);
// `error_number` 0: the file ended.
[[noreturn]] void fail_read(const Source& source, const ReadRun& run, uint64_t have, int error_number);

}  // namespace caravan
