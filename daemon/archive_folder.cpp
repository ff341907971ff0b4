#include "daemon/archive_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/caught_error.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/kv_folder.h"
#include "store/rocks_store.h"

namespace caravan {

namespace {

namespace fs = std::filesystem;

constexpr const char* kValues = "bulk.kv";
constexpr const char* kRecords = "index";
// Where RocksStore has its files.
constexpr const char* kStore = "store";
constexpr std::string_view kPeer = "peer-";

// What is left to others of the disk, whatever the bound says.
uint64_t left_free(const std::string& folder) {
  return std::min<uint64_t>(disk_total_bytes(folder) / 64, uint64_t{512} << 20);
}

// RocksDB looks at some files before it takes its lock, so that damage alone does not say that nobody is in
// there.
bool held_by_another(const fs::path& lock_file) {
  const int file = ::open(lock_file.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return false;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  const bool held = ::fcntl(file, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  ::close(file);
  return held;
}

void remove_archive(const fs::path& folder) {
  const fs::path store = folder / kStore;
  std::error_code error;
  if (!fs::exists(store, error) || held_by_another(store / "LOCK")) return;
  fs::remove_all(store, error);
  if (error)
    log_warning("kv_archive_not_removed folder=\"{}\" reason=\"{}\"", store.string(), error.message());
  else
    log_info("kv_archive_removed folder=\"{}\"", store.string());
  fs::remove(folder, error);  // if there is nothing else in it
}

std::unique_ptr<KvArchive> open_in_folder(const ArchiveOptions& options, const Clock& clock) {
  RocksStore rocks(options.folder, {kValues, kRecords}, RocksStore::Access::kWrite,
                   RocksStore::Damage::kTolerated);
  KvArchiveOptions archive;
  archive.limit = options.limit;
  archive.most_blocks = options.most_blocks;
  archive.day = options.day;
  archive.name = "the KV archive " + options.folder;
  archive.disk_has_room = [folder = options.folder, left = left_free(options.folder)](Bytes bytes) {
    return disk_free_bytes(folder) >= bytes.count + left;
  };
  return std::make_unique<KvArchive>(rocks.bulk(kValues), rocks.family(kRecords), clock, std::move(archive));
}

}  // namespace

void remove_other_archives(const std::string& folder, bool keep_own, uint32_t keep_peers) {
  std::vector<fs::path> others;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.rfind(kPeer, 0) != 0) continue;
    uint32_t number = 0;
    const char* const last = name.data() + name.size();
    const auto [read, bad] = std::from_chars(name.data() + kPeer.size(), last, number);
    if (bad == std::errc() && read == last && number > keep_peers) others.push_back(at->path());
  }
  for (const fs::path& other : others) remove_archive(other);
  if (!keep_own) remove_archive(folder);
}

bool folder_can_be_written(const std::string& folder) {
  std::error_code error;
  fs::path path = fs::absolute(folder, error);
  while (!fs::exists(path, error) && path.has_relative_path()) path = path.parent_path();
  return ::access(path.c_str(), W_OK | X_OK) == 0;
}

std::unique_ptr<KvArchive> open_archive(const ArchiveOptions& options, const Clock& clock) {
  if (!options.on()) return nullptr;
  try {
    try {
      return open_in_folder(options, clock);
    } catch (const Error& error) {
      const fs::path store = fs::path(options.folder) / kStore;
      if (error.code() != ErrorCode::kMalformed || held_by_another(store / "LOCK")) throw;
      // All in it can be computed again, and a user should not have to remove it by hand.
      log_warning("kv_archive_new reason=\"begun anew: {}\"", error.message());
      std::error_code ignored;
      fs::remove_all(store, ignored);
      return open_in_folder(options, clock);
    }
  } catch (const std::exception&) {  // a thread or memory may be refused, too
    log_warning("kv_archive_none reason=\"prompts seen before are computed again: {}\"",
                caught_error().message());
    return nullptr;
  }
}

}  // namespace caravan
