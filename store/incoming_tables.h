#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bulk_store.h"

// Tables that are being written, in a folder of the store. Inside store/.
namespace caravan {

// The name of one: FAMILY-NUMBER and `.sst`, which goes with the process; or `.kept`, with a file of notes
// beside it, which is `.left` once it is given up or its process was killed.
class IncomingTable {
 public:
  // `next`: the number, if no file has it. No name is used twice by a process: who commits a table removes it
  // when RocksDB has done so already. Throws kIo.
  IncomingTable(const std::string& folder, const std::string& family, std::atomic<uint64_t>& next,
                BulkStore::Uncommitted then);
  // Gives it up, unless it was removed.
  ~IncomingTable();
  IncomingTable(const IncomingTable&) = delete;
  IncomingTable& operator=(const IncomingTable&) = delete;

  const std::string& path() const { return path_; }
  // Kept ones. Throws kIo.
  void note(std::string_view text);
  // Before RocksDB ends it: that removes one that it cannot end. What was kept is kept.
  void hold() const;
  // It has been moved into the database.
  void remove();

 private:
  std::string stem_, path_;  // no stem: it was removed
  const BulkStore::Uncommitted then_;
  int notes_ = -1;
};

// At opening: what nobody keeps goes, and what was kept is left. Throws kIo.
void clear_incoming_tables(const std::string& folder);

// As BulkStore::salvage.
void salvage_tables(const std::string& folder, const std::string& family, const BulkStore::UseSalvaged& use);

}  // namespace caravan
