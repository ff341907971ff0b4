#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "store/rocks_store.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Logger;
class Status;
class WriteBatch;
struct DBOptions;
}  // namespace rocksdb

// Inside store/: what the families of one handle share.
namespace caravan {

// What compaction wrote, by family.
class CompactionBytes;

struct RocksStore::State {
  std::string path;
  Access access = Access::kWrite;
  bool direct = false;    // the file system reads past the page cache
  bool may_lose = false;  // Damage::kTolerated
  // A record was cut short on its way into the log. RocksDB would write on behind it when there is room
  // again, where the next opening does not look, or end the process.
  std::atomic<bool> log_is_torn{false};
  std::shared_ptr<CompactionBytes> compacted;
  std::unique_ptr<rocksdb::DB> database;
  std::map<std::string, rocksdb::ColumnFamilyHandle*> families;

  State();
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

[[noreturn]] void fail_status(const std::string& path, const rocksdb::Status& status);

// Where half-written tables lie, inside the store; emptied at opening.
std::string incoming_folder(const std::string& store_path);

// What RocksDB has to tell goes to our log, never into a file beside the store: it ends the process when it
// cannot write there a second time.
std::shared_ptr<rocksdb::Logger> log_to_ours();

// Whether the disk has room for what a store writes beside its tables. Asked first, because what a full disk
// cuts short is hard to go on from.
bool has_room(const std::string& path);
void require_room(const std::string& path);

// Acknowledged when it returns: it survives a kill, and a power failure. Throws kIo.
void write_to_log(RocksStore::State& state, rocksdb::WriteBatch& batch);

std::shared_ptr<CompactionBytes> listen_to_compaction(rocksdb::DBOptions& options);

std::shared_ptr<BulkStore> make_rocks_bulk(std::shared_ptr<RocksStore::State> state,
                                           rocksdb::ColumnFamilyHandle* handle);

}  // namespace caravan
