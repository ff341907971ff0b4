#include "store/incoming_tables.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "store/table_block.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

constexpr const char* kPlain = ".sst";
constexpr const char* kKept = ".kept";
constexpr const char* kLeft = ".left";
constexpr const char* kNotes = ".notes";

void remove_file(const std::string& path) {
  std::error_code ignored;
  fs::remove(path, ignored);
}

// As far as they can be read.
std::string read_notes(const std::string& path) {
  std::error_code error;
  std::string notes;
  if (!fs::is_regular_file(path, error)) return notes;
  std::ifstream file(path, std::ios::binary);
  for (std::array<char, 4096> part{}; file.good();) {
    file.read(part.data(), part.size());
    if (!file.bad()) notes.append(part.data(), static_cast<size_t>(file.gcount()));
  }
  return notes;
}

// An empty file of that name, unless there is one. Throws kIo.
bool claim(const std::string& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0 && errno != EEXIST) fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  if (file >= 0) ::close(file);
  return file >= 0;
}

}  // namespace

IncomingTable::IncomingTable(const std::string& folder, const std::string& family,
                             std::atomic<uint64_t>& next, BulkStore::Uncommitted then)
    : then_(then) {
  do {
    stem_ = fmt::format("{}/{}-{}", folder, family, next++);
    path_ = stem_ + (then == BulkStore::Uncommitted::kKept ? kKept : kPlain);
  } while (fs::exists(stem_ + kLeft) || !claim(path_));
}

IncomingTable::~IncomingTable() {
  if (notes_ >= 0) ::close(notes_);
  if (stem_.empty()) return;
  std::error_code ignored;
  if (then_ == BulkStore::Uncommitted::kKept && !fs::exists(stem_ + kLeft, ignored))
    fs::rename(path_, stem_ + kLeft, ignored);
  else
    remove_file(path_);
}

void IncomingTable::hold() const {
  if (then_ == BulkStore::Uncommitted::kGone) return;
  std::error_code ignored;  // where files have one name only
  fs::create_hard_link(path_, stem_ + kLeft, ignored);
}

void IncomingTable::note(std::string_view text) {
  if (then_ == BulkStore::Uncommitted::kGone) return;
  const std::string path = stem_ + kNotes;
  if (notes_ < 0) notes_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  while (notes_ >= 0 && !text.empty()) {
    const ssize_t count = ::write(notes_, text.data(), text.size());
    if (count < 0 && errno != EINTR) break;
    if (count > 0) text.remove_prefix(static_cast<size_t>(count));
  }
  if (notes_ < 0 || !text.empty()) fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
}

void IncomingTable::remove() {
  remove_file(path_);
  if (then_ == BulkStore::Uncommitted::kKept)
    for (const char* kind : {kLeft, kNotes}) remove_file(stem_ + kind);
  stem_.clear();
}

void clear_incoming_tables(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    files.push_back(at->path());
  for (const fs::path& file : files) {
    const fs::path left = fs::path(file).replace_extension(kLeft);
    if (!error && file.extension() == kKept && !fs::exists(left)) fs::rename(file, left, error);
  }
  for (const fs::path& file : files) {
    const bool is_left = file.extension() == kLeft;
    const bool stays =
        is_left || (file.extension() == kNotes && fs::exists(fs::path(file).replace_extension(kLeft)));
    if (!error && !stays) fs::remove_all(file, error);
  }
  if (error) fail(ErrorCode::kIo, "{}: {}", folder, error.message());
}

void salvage_tables(const std::string& folder, const std::string& family, const BulkStore::UseSalvaged& use) {
  std::set<std::string> stems;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const fs::path path = at->path();
    const std::string stem = fs::path(path).replace_extension().string();
    const std::string name = fs::path(stem).filename().string();
    if (path.extension() == kLeft && name.substr(0, name.rfind('-')) == family) stems.insert(stem);
  }
  if (error) fail(ErrorCode::kIo, "{}: {}", folder, error.message());
  for (const std::string& stem : stems) {
    const std::string notes = read_notes(stem + kNotes);
    const std::string problem = read_cut_table(
        stem + kLeft,
        [&](std::string_view key, std::span<const std::byte> value) { use(notes, key, value); });
    if (!problem.empty()) log_warning("{}; what it had is fetched again", problem);
    remove_file(stem + kLeft);
    remove_file(stem + kNotes);
  }
}

}  // namespace caravan
