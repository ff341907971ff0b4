#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/bulk_store.h"
#include "base/key_value.h"

namespace caravan {

// The one RocksDB handle of a state folder; its column families are handed out as KeyValue or BulkStore.
// Small on purpose: few threads, small buffers, logs that do not grow. Any thread.
class RocksStore {
 public:
  // kRead looks at what was there when it opened, beside a process that writes; nothing on disk changes.
  enum class Access { kWrite, kRead };
  // Whether a store opens although it has tables that cannot be read: whoever reads a value of such a table
  // then gets kMalformed. Of families handed out as KeyValue a copy is kept, which is read where their own
  // tables are damaged, and of which these are written anew when the store is opened for writing, with a
  // warning. Damage of the list of tables or of the log is refused all the same.
  // kTolerated, for what can be computed again: log records that cannot be read are as if they were not there
  // besides, and a compaction that meets damage fails by itself, without an end to writing.
  enum class Damage { kRefused, kOfTablesTolerated, kTolerated };
  // A family whose name begins so is laid out for bulk (docs/decisions/0003-shard-store.md).
  static constexpr const char* kBulkPrefix = "bulk.";
  // Of the layout of every store; another one is refused and left as it is.
  static constexpr int kVersion = 1;

  // Opens or makes `folder`/store with (at least) these families; kRead makes nothing. Throws kIo, naming the
  // folder: another process holds it, it cannot be written (then --state is named, too), or the disk refuses;
  // kNotFound (kRead) when there is none; kMalformed when it is damaged; kUnsupported when it is of another
  // version.
  RocksStore(const std::string& folder, const std::vector<std::string>& families,
             Access access = Access::kWrite, Damage damage = Damage::kRefused);
  ~RocksStore();
  RocksStore(const RocksStore&) = delete;
  RocksStore& operator=(const RocksStore&) = delete;

  // Whether `folder` has a store at all.
  static bool exists(const std::string& folder);
  // Opened for reading, a store may lack a family that was named.
  bool has(const std::string& name) const;
  // Both keep the store open for as long as they live. The family must have been named at opening.
  std::shared_ptr<KeyValue> family(const std::string& name);
  std::shared_ptr<BulkStore> bulk(const std::string& name);

  struct State;  // inside store/

 private:
  std::shared_ptr<State> state_;
};

}  // namespace caravan
