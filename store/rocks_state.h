#pragma once

#include <atomic>
#include <exception>
#include <map>
#include <memory>
#include <string>

#include "base/bytes.h"
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
  // Of a small family, which has the same records in tables of its own.
  struct Copy {
    rocksdb::ColumnFamilyHandle* handle = nullptr;  // none: there is no copy
    bool whole = false;                             // it can stand in for the family
  };
  std::map<std::string, Copy> copies;  // of those that have one, by name; constant once the store is open
  std::atomic<bool> told_of_copy{false};
  std::atomic<uint64_t> next_table{0};  // that comes in

  State();
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

// Of a table, or of what names the tables.
bool is_damage(const rocksdb::Status& status);
[[noreturn]] void fail_status(const std::string& path, const rocksdb::Status& status);

// A call of RocksDB that an exception must not leave half-way, for want of memory or of a thread: a store
// that is then used on, or closed, takes the caller for one that still reads or writes, and waits for it for
// ever or ends the process without a word. So it ends the process here (explain_lack_of_memory). Caught, not
// noexcept: where that is inlined the process ends before anybody holds the exception, and none can be told.
template <class Call>
auto whole(Call&& call) {
  try {
    return call();
  } catch (...) {
    std::terminate();
  }
}

// Where half-written tables lie, inside the store (incoming_tables.h).
std::string incoming_folder(const std::string& store_path);

// What RocksDB has to tell goes to our log, never into a file beside the store: it ends the process when it
// cannot write there a second time.
std::shared_ptr<rocksdb::Logger> log_to_ours();

// Whether the disk has room for what a store writes beside its tables, and for `more`. Asked first, because
// what a full disk cuts short is hard to go on from.
bool has_room(const std::string& path, Bytes more = {});
void require_room(const std::string& path, Bytes more = {});

// Acknowledged when it returns: it survives a kill, and a power failure. Throws kIo.
void write_to_log(RocksStore::State& state, rocksdb::WriteBatch& batch);

// Notes what the list of tables is now, for the next opening: one that is damaged where it may end passes for
// an older one.
void note_list(const RocksStore::State& state);

// The family that has a family's copy.
std::string copy_of(const std::string& family);
// Which copies there are. When writing, the one of a family and its copy that cannot be read to its end, or a
// copy that is not as the family, is written anew from the other; where neither can, both stay as they are,
// and what the family lacks is read from the copy, as long as that can say that it is whole.
void find_copies(RocksStore::State& state);
std::shared_ptr<KeyValue> make_rocks_family(const std::shared_ptr<RocksStore::State>& state,
                                            const std::string& name);

std::shared_ptr<CompactionBytes> listen_to_compaction(rocksdb::DBOptions& options);

std::shared_ptr<BulkStore> make_rocks_bulk(std::shared_ptr<RocksStore::State> state,
                                           rocksdb::ColumnFamilyHandle* handle);

}  // namespace caravan
