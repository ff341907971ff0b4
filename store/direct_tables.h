#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/bulk_store.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Slice;
class TablePropertiesCollectorFactory;
}  // namespace rocksdb

// Inside store/: large values read from the table files themselves.
namespace caravan {

// Notes in each table, as a property of it, where its values lie.
std::shared_ptr<rocksdb::TablePropertiesCollectorFactory> note_places();

// One direct read for values that lie next to each other, and nothing done with their bytes: RocksDB sums and
// copies each block first, which costs more than the reading (docs/decisions/0003-shard-store.md). What
// stands before a value in its block is compared with what RocksDB writes there. Any thread.
class DirectTables {
 public:
  DirectTables(rocksdb::DB& database, rocksdb::ColumnFamilyHandle* handle);
  ~DirectTables();
  DirectTables(const DirectTables&) = delete;
  DirectTables& operator=(const DirectTables&) = delete;

  // False when RocksDB is to be asked, which then also says what is wrong: nothing is known of the table, a
  // key is not there, the values lie apart, the disk refuses. Throws what `use` throws, and kOutOfMemory.
  bool read(std::span<const rocksdb::Slice> keys, const BulkStore::UseOne& use) const;
  // Of one value, as BulkStore.
  bool read_in_parts(const rocksdb::Slice& key, const BulkStore::UsePart& use) const;
  // RocksDB has read this one: from now on its table is read directly, if it has a note.
  void learn(const rocksdb::Slice& key) const;
  // To be called after tables went, so that the disk has their space again.
  void forget();

 private:
  class Buffers;
  class Table;
  std::shared_ptr<const Table> table_of(const rocksdb::Slice& key) const;

  rocksdb::DB& database_;
  rocksdb::ColumnFamilyHandle* const handle_;
  const std::unique_ptr<Buffers> buffers_;
  mutable std::mutex mutex_;                                                         // readers are several
  mutable std::map<std::string, std::shared_ptr<const Table>, std::less<>> tables_;  // by smallest key
  std::atomic<uint64_t> forgotten_{0};                                               // times
  mutable std::atomic<int> readers_{0};                                              // of parts, at a time
};

}  // namespace caravan
