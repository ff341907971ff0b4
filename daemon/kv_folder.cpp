#include "daemon/kv_folder.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "base/caught_error.h"
#include "base/error.h"
#include "daemon/process_folder.h"

namespace caravan {

namespace {

namespace fs = std::filesystem;

constexpr const char* kFamily = "bulk.kv";

bool ask_disk(const std::string& folder, struct statvfs& disk) {
  std::error_code error;
  fs::path path = fs::absolute(folder, error);
  while (!fs::exists(path, error) && path.has_relative_path()) path = path.parent_path();
  return ::statvfs(path.c_str(), &disk) == 0;
}

}  // namespace

KvFolder::KvFolder(const std::vector<std::string>& places) {
  for (const std::string& place : places) {
    remove_left_over(place, "");
    path_ = place + "/" + std::to_string(::getpid());
    std::error_code error;
    fs::remove_all(path_, error);
    fs::create_directories(path_, error);
    if (!error && ::access(path_.c_str(), W_OK | X_OK) == 0) return;
  }
  fail(ErrorCode::kIo,
       "{} cannot be written, and KV is to go there that memory does not hold or that idles; name another "
       "folder with --state DIR, or give more memory with --ram or --kv-ram",
       places.empty() ? "no folder" : places.front());
}

KvFolder::~KvFolder() {
  rocks_.reset();
  remove();
  std::error_code ignored;
  fs::remove(fs::path(path_).parent_path(), ignored);  // when nobody else is in it
}

std::shared_ptr<BulkStore> KvFolder::store() {
  if (refused_) throw Error(*refused_);
  try {
    if (!rocks_)
      rocks_ = std::make_unique<RocksStore>(path_, std::vector<std::string>{kFamily},
                                            RocksStore::Access::kWrite, RocksStore::Damage::kTolerated);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    // RocksDB keeps what it had opened by then, so that trying again would only meet its own lock.
    refused_ = caught_error();
    throw Error(*refused_);
  }
  auto store = rocks_->bulk(kFamily);
  store->erase_range("", std::string(16, '\xff'));
  return store;
}

void KvFolder::remove() const {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

uint64_t disk_free_bytes(const std::string& folder) {
  struct statvfs disk {};
  return ask_disk(folder, disk) ? uint64_t{disk.f_bavail} * disk.f_frsize : 0;
}

uint64_t disk_total_bytes(const std::string& folder) {
  struct statvfs disk {};
  return ask_disk(folder, disk) ? uint64_t{disk.f_blocks} * disk.f_frsize : 0;
}

uint64_t folder_bytes(const std::string& folder) {
  uint64_t sum = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (at->is_regular_file(ignored)) sum += at->file_size(ignored);
  }
  return sum;
}

}  // namespace caravan
