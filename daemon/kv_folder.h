#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bulk_store.h"
#include "base/error.h"
#include "store/rocks_store.h"

namespace caravan {

// The folder in which a process keeps KV that its memory does not hold: one of its own, PLACE/PID, gone with
// the process; what was left by processes that were killed goes when the next one comes. Made when it is
// needed (docs/decisions/0006-kv-on-disk.md).
class KvFolder {
 public:
  // In the first of the places that can be written. Throws kIo naming --state when none can.
  explicit KvFolder(const std::vector<std::string>& places);
  ~KvFolder();
  KvFolder(const KvFolder&) = delete;
  KvFolder& operator=(const KvFolder&) = delete;

  const std::string& path() const { return path_; }
  // Empty. Once the system had no memory or thread for it, it fails for that reason ever after.
  std::shared_ptr<BulkStore> store();
  // At once, also while the store is in use: what uses it then meets errors. Any thread.
  void remove() const;

 private:
  std::string path_;
  std::unique_ptr<RocksStore> rocks_;
  std::optional<Error> refused_;
};

// What an ordinary user may still write to the disk of a folder, which need not be there yet; 0 when nobody
// knows.
uint64_t disk_free_bytes(const std::string& folder);
uint64_t disk_total_bytes(const std::string& folder);
// Of all files in a folder; 0 when it is not there.
uint64_t folder_bytes(const std::string& folder);

}  // namespace caravan
