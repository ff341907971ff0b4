#pragma once

#include <map>
#include <memory>
#include <string>

#include "store/rocks_store.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Status;
struct DBOptions;
}  // namespace rocksdb

// Inside store/: what the families of one handle share.
namespace caravan {

// What compaction wrote, by family.
class CompactionBytes;

struct RocksStore::State {
  std::string path;
  Access access = Access::kWrite;
  bool direct = false;  // the file system reads past the page cache
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

std::shared_ptr<CompactionBytes> listen_to_compaction(rocksdb::DBOptions& options);

std::shared_ptr<BulkStore> make_rocks_bulk(std::shared_ptr<RocksStore::State> state,
                                           rocksdb::ColumnFamilyHandle* handle);

}  // namespace caravan
