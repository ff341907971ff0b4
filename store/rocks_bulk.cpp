#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/write_batch.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "store/direct_tables.h"
#include "store/incoming_tables.h"
#include "store/rocks_state.h"

namespace caravan {

class CompactionBytes final : public rocksdb::EventListener {
 public:
  uint64_t of(const std::string& family) const {
    const std::lock_guard lock(mutex_);
    const auto found = bytes_.find(family);
    return found == bytes_.end() ? 0 : found->second;
  }
  void OnCompactionCompleted(rocksdb::DB*, const rocksdb::CompactionJobInfo& job) override {
    const std::lock_guard lock(mutex_);
    bytes_[job.cf_name] += job.stats.total_output_bytes;
  }

 private:
  mutable std::mutex mutex_;  // RocksDB's threads tell
  std::map<std::string, uint64_t> bytes_;
};

namespace {

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}

struct ForgetTables {
  DirectTables& tables;
  ~ForgetTables() { tables.forget(); }
};

class Bulk final : public BulkStore {
 public:
  Bulk(std::shared_ptr<RocksStore::State> state, rocksdb::ColumnFamilyHandle* handle)
      : state_(std::move(state)), handle_(handle), tables_(*state_->database, handle) {}

  std::unique_ptr<Batch> begin(Uncommitted then) override;
  void salvage(const UseSalvaged& use) override;
  bool read(std::string_view key, const Use& use) const override;
  bool read_in_parts(std::string_view key, const UsePart& use) const override;
  void read_many(std::span<const std::string> keys, const UseOne& use) const override;
  void erase_ranges(std::span<const Range> ranges) override;
  Bytes rewritten() const override { return Bytes{state_->compacted->of(handle_->GetName())}; }
  Bytes bytes() const override;

 private:
  bool read_by_database(const rocksdb::Slice& key, const Use& use) const;
  void erase(std::span<const Range> ranges);
  bool lies_in_a_table(const rocksdb::Slice& begin, const rocksdb::Slice& end) const;
  std::optional<Range> erase_tables(const rocksdb::Slice& begin, const rocksdb::Slice& end);
  void check(const rocksdb::Status& status) const {
    if (!status.ok()) fail_status(state_->path, status);
  }
  void require_writable() const {
    if (state_->access == RocksStore::Access::kRead)
      fail(ErrorCode::kInvalidArgument, "the store {} was opened for reading", state_->path);
  }

  const std::shared_ptr<RocksStore::State> state_;
  rocksdb::ColumnFamilyHandle* const handle_;
  DirectTables tables_;
};

constexpr uint64_t kLeftForOthers = 1u << 20;

// One table file outside the database until it is moved in.
class TableBatch final : public BulkStore::Batch {
 public:
  TableBatch(std::shared_ptr<RocksStore::State> state, rocksdb::ColumnFamilyHandle* handle,
             BulkStore::Uncommitted then)
      : state_(std::move(state)),
        handle_(handle),
        is_kept_(then == BulkStore::Uncommitted::kKept),
        table_(incoming_folder(state_->path), handle_->GetName(), state_->next_table, then) {
    // Through the page cache, written back as it goes: a deeper queue than one direct write at a time.
    rocksdb::EnvOptions environment;
    environment.bytes_per_sync = 8u << 20;
    environment.allow_fallocate = false;
    environment.writable_file_max_buffer_size = 4096;  // a kept one has each block but the last
    writer_ =
        std::make_unique<rocksdb::SstFileWriter>(environment, state_->database->GetOptions(handle_), handle_);
    check(writer_->Open(table_.path()));
  }

  ~TableBatch() override {
    if (is_committed_) table_.remove();
    if (!is_kept_ || empty_ || is_committed_) return;
    table_.hold();
    writer_->Finish().PermitUncheckedError();  // brings the last block; refused when it was called before
  }

  void note(std::string_view text) override { table_.note(text); }
  void add(std::string_view key, std::span<const std::byte> value) override {
    // Also for the value that RocksDB has not written yet, and so that what `rm` needs is left.
    if (is_kept_) require_room(state_->path, Bytes{2 * value.size() + kLeftForOthers});
    check(writer_->Put(slice(key), {reinterpret_cast<const char*>(value.data()), value.size()}));
    empty_ = false;
    if (is_kept_) require_taken(value.size());
  }
  void commit() override {
    if (empty_) return;
    require_room(state_->path);
    table_.hold();
    check(writer_->Finish());
    rocksdb::IngestExternalFileOptions options;
    options.move_files = true;
    options.write_global_seqno = false;
    check(whole([&] { return state_->database->IngestExternalFile(handle_, {table_.path()}, options); }));
    is_committed_ = true;
    if (!state_->may_lose) note_list(*state_);
  }

 private:
  void check(const rocksdb::Status& status) const {
    if (!status.ok()) fail_status(state_->path, status);
  }
  // RocksDB tells of what the disk refuses only at the end, and takes more and more meanwhile. All values but
  // the last are in the file, and small ones that share a block with it.
  void require_taken(size_t last_bytes) {
    constexpr uint64_t kOnTheWay = 64u << 10;
    std::error_code error;
    const uint64_t on_disk = std::filesystem::file_size(table_.path(), error);
    if (error || on_disk + kOnTheWay < added_bytes_) {
      table_.hold();
      check(writer_->Finish());
      fail(ErrorCode::kIo, "{} has {} bytes of {} that were written", table_.path(), on_disk, added_bytes_);
    }
    added_bytes_ += last_bytes;
  }

  const std::shared_ptr<RocksStore::State> state_;
  rocksdb::ColumnFamilyHandle* const handle_;
  const bool is_kept_;
  uint64_t added_bytes_ = 0;
  IncomingTable table_;
  std::unique_ptr<rocksdb::SstFileWriter> writer_;  // goes first: it writes what it has
  bool empty_ = true, is_committed_ = false;
};

std::unique_ptr<BulkStore::Batch> Bulk::begin(Uncommitted then) {
  require_writable();
  return std::make_unique<TableBatch>(state_, handle_, then);
}

void Bulk::salvage(const UseSalvaged& use) {
  require_writable();
  salvage_tables(incoming_folder(state_->path), handle_->GetName(), use);
}

// Values carry their own sums, but RocksDB takes a block apart before it hands out the value, and ends the
// process over one that is damaged.
rocksdb::ReadOptions checked() {
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  return options;
}

bool Bulk::read(std::string_view key, const Use& use) const {
  const rocksdb::Slice wanted = slice(key);
  const auto use_one = [&](size_t, std::span<const std::byte> value) { use(value); };
  if (state_->direct && tables_.read({&wanted, 1}, use_one)) return true;
  return read_by_database(wanted, use);
}

bool Bulk::read_in_parts(std::string_view key, const UsePart& use) const {
  const rocksdb::Slice wanted = slice(key);
  if (state_->direct && tables_.read_in_parts(wanted, use)) return true;
  return read_by_database(wanted, [&](std::span<const std::byte> value) { use(0, value.size(), value); });
}

bool Bulk::read_by_database(const rocksdb::Slice& wanted, const Use& use) const {
  rocksdb::PinnableSlice value;
  const auto status = whole([&] { return state_->database->Get(checked(), handle_, wanted, &value); });
  if (status.IsNotFound()) return false;
  check(status);
  if (state_->direct) tables_.learn(wanted);
  use(std::as_bytes(std::span(value.data(), value.size())));
  return true;
}

// RocksDB reads blocks that lie next to each other in one direct read.
void Bulk::read_many(std::span<const std::string> keys, const UseOne& use) const {
  std::vector<rocksdb::Slice> wanted;
  for (const std::string& key : keys) wanted.push_back(slice(key));
  if (state_->direct && tables_.read(wanted, use)) return;
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  whole([&] {
    state_->database->MultiGet(checked(), handle_, keys.size(), wanted.data(), values.data(), statuses.data(),
                               true);
  });
  for (size_t place = 0; place < keys.size(); ++place) {
    if (statuses[place].IsNotFound()) continue;
    check(statuses[place]);
    if (state_->direct) tables_.learn(wanted[place]);
    use(place, std::as_bytes(std::span(values[place].data(), values[place].size())));
    values[place].Reset();
  }
}

// Whether a table has keys of the range, by the list of tables.
bool Bulk::lies_in_a_table(const rocksdb::Slice& begin, const rocksdb::Slice& end) const {
  rocksdb::ColumnFamilyMetaData facts;
  state_->database->GetColumnFamilyMetaData(handle_, &facts);
  for (const auto& level : facts.levels)
    for (const auto& table : level.files)
      if (end.compare(table.smallestkey) > 0 && begin.compare(table.largestkey) <= 0) return true;
  return false;
}

// Whole tables go. The first and the last key that is left, in tables of which the range is a part.
std::optional<Bulk::Range> Bulk::erase_tables(const rocksdb::Slice& begin, const rocksdb::Slice& end) {
  rocksdb::DB& database = *state_->database;
  check(whole([&] { return rocksdb::DeleteFilesInRange(&database, handle_, &begin, &end, false); }));
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &begin;
  options.iterate_upper_bound = &end;
  const std::unique_ptr<rocksdb::Iterator> at(database.NewIterator(options, handle_));
  at->SeekToFirst();
  // A damaged table beside the range is no concern of this.
  if (!at->status().ok() && !lies_in_a_table(begin, end)) return std::nullopt;
  check(at->status());
  if (!at->Valid()) return std::nullopt;
  Range left{at->key().ToString(), ""};
  at->SeekToLast();
  check(at->status());
  left.last = at->key().ToString();
  return left;
}

void Bulk::erase_ranges(std::span<const Range> ranges) {
  require_writable();
  const ForgetTables after{tables_};
  erase(ranges);
}

// Parts of tables are marked, and the tables written again without them; not the one that begins where the
// last range ends, for which RocksDB is told the last key in it.
void Bulk::erase(std::span<const Range> ranges) {
  rocksdb::DB& database = *state_->database;
  rocksdb::WriteBatch marks;
  std::optional<Range> all;
  for (const Range& range : ranges) {
    std::optional<Range> left = erase_tables(slice(range.first), slice(range.last));
    if (!left) continue;
    check(marks.DeleteRange(handle_, slice(range.first), slice(range.last)));
    if (!all) all = left;
    all->last = std::move(left->last);
  }
  if (!all) return;
  write_to_log(*state_, marks);
  const rocksdb::Slice begin = slice(all->first), end = slice(all->last);
  rocksdb::CompactRangeOptions compact;
  compact.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  check(whole([&] { return database.CompactRange(compact, handle_, &begin, &end); }));
}

Bytes Bulk::bytes() const {
  rocksdb::ColumnFamilyMetaData facts;
  state_->database->GetColumnFamilyMetaData(handle_, &facts);
  return Bytes{facts.size};
}

}  // namespace

std::shared_ptr<CompactionBytes> listen_to_compaction(rocksdb::DBOptions& options) {
  auto listener = std::make_shared<CompactionBytes>();
  options.listeners.push_back(listener);
  return listener;
}

std::shared_ptr<BulkStore> make_rocks_bulk(std::shared_ptr<RocksStore::State> state,
                                           rocksdb::ColumnFamilyHandle* handle) {
  return std::make_shared<Bulk>(std::move(state), handle);
}

}  // namespace caravan
