// The small families of a store, of which some are kept twice: as tables that share no byte, so that damage
// of one of them costs nothing.
#include <rocksdb/db.h>
#include <rocksdb/metadata.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "store/rocks_state.h"

namespace caravan {
namespace {

// In a copy: it has all that the family has. Put last when a copy is written, so that one that was begun is
// never taken for all there is. No record of a family that has a copy has an empty key.
constexpr std::string_view kWhole("");

constexpr size_t kBatchBytes = 1u << 20;
// So many tables are written as one.
constexpr size_t kManyTables = 4;

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}

class Family final : public KeyValue {
 public:
  Family(std::shared_ptr<RocksStore::State> state, std::string name, rocksdb::ColumnFamilyHandle* handle,
         RocksStore::State::Copy copy)
      : state_(std::move(state)), name_(std::move(name)), handle_(handle), copy_(copy) {}

  std::optional<std::string> get(std::string_view key) const override {
    std::string value;
    const auto get_from = [&](rocksdb::ColumnFamilyHandle* handle) {
      return whole([&] { return state_->database->Get({}, handle, slice(key), &value); });
    };
    auto status = get_from(handle_);
    if (goes_on_in_copy(status)) status = get_from(copy_.handle);
    if (status.IsNotFound()) return std::nullopt;
    check(status);
    return value;
  }

  void put(std::string_view key, std::string_view value) override {
    write(key, [&](rocksdb::WriteBatch& batch, rocksdb::ColumnFamilyHandle* handle) {
      return batch.Put(handle, slice(key), slice(value));
    });
  }

  void erase(std::string_view key) override {
    write(key, [&](rocksdb::WriteBatch& batch, rocksdb::ColumnFamilyHandle* handle) {
      return batch.Delete(handle, slice(key));
    });
  }

  void scan(std::string_view prefix,
            const std::function<bool(std::string_view, std::string_view)>& visit) const override {
    std::string next(prefix);
    bool more = true;
    const auto pass = [&](rocksdb::ColumnFamilyHandle* handle) {
      const std::unique_ptr<rocksdb::Iterator> at(state_->database->NewIterator({}, handle));
      for (at->Seek(slice(next)); more && at->Valid() && at->key().starts_with(slice(prefix)); at->Next()) {
        if (at->key().empty()) continue;  // kWhole
        next = at->key().ToString();
        more = visit(at->key().ToStringView(), at->value().ToStringView());
        next += '\0';
      }
      return at->status();
    };
    auto status = pass(handle_);
    if (goes_on_in_copy(status)) status = pass(copy_.handle);
    check(status);
  }

 private:
  // Into both at once, or into none.
  template <class Change>
  void write(std::string_view key, Change&& change) {
    CHECK((!copy_.handle || key != kWhole));
    rocksdb::WriteBatch batch;
    check(change(batch, handle_));
    if (copy_.handle) check(change(batch, copy_.handle));
    write_to_log(*state_, batch);
  }

  // Damaged, or a disk that does not give it out.
  bool goes_on_in_copy(const rocksdb::Status& status) const {
    if (status.ok() || status.IsNotFound() || !copy_.whole) return false;
    if (!state_->told_of_copy.exchange(true))
      log_warning(
          "store_damaged store={} records={} reason=\"{}\" then=\"their copy is read; whoever opens the "
          "store next to write, such as caravan verify, writes them anew\"",
          state_->path, name_, status.ToString());
    return true;
  }

  void check(const rocksdb::Status& status) const {
    if (!status.ok()) fail_status(state_->path, status);
  }

  const std::shared_ptr<RocksStore::State> state_;
  const std::string name_;
  rocksdb::ColumnFamilyHandle* const handle_;
  const RocksStore::State::Copy copy_;
};

// A family and its copy, read to their ends.
struct Comparison {
  rocksdb::Status family, copy;
  bool whole = false;  // the copy says so
  bool alike = true;
};

Comparison compare(rocksdb::DB& database, rocksdb::ColumnFamilyHandle* family,
                   rocksdb::ColumnFamilyHandle* copy) {
  Comparison found;
  const std::unique_ptr<rocksdb::Iterator> a(database.NewIterator({}, family)),
      b(database.NewIterator({}, copy));
  a->SeekToFirst();
  b->SeekToFirst();
  if (b->Valid() && b->key() == slice(kWhole)) {
    found.whole = true;
    b->Next();
  }
  for (; a->Valid() && b->Valid(); a->Next(), b->Next())
    found.alike = found.alike && a->key() == b->key() && a->value() == b->value();
  found.alike = found.alike && !a->Valid() && !b->Valid();
  for (; a->Valid(); a->Next()) continue;
  for (; b->Valid(); b->Next()) continue;
  found.family = a->status();
  found.copy = b->status();
  return found;
}

rocksdb::ColumnFamilyMetaData facts_of(rocksdb::DB& database, rocksdb::ColumnFamilyHandle* family) {
  rocksdb::ColumnFamilyMetaData facts;
  database.GetColumnFamilyMetaData(family, &facts);
  return facts;
}

class Rewriting {
 public:
  explicit Rewriting(RocksStore::State& state) : state_(state), database_(*state.database) {}

  // Puts all of `from`, which can be read, into `to`, and then drops what tables `to` had before, so that at
  // every moment `to` has all of it or is seen to be damaged or not whole. Throws kIo before anything has
  // changed when the disk has no room for all of it, in the log and in tables.
  void run(rocksdb::ColumnFamilyHandle* from, rocksdb::ColumnFamilyHandle* to, bool to_is_copy) {
    require_room(state_.path, Bytes{2 * facts_of(database_, from).size});
    flush(to);
    const std::vector<std::string> before = tables_of(to);
    if (to_is_copy) {
      check(batch_.Delete(to, slice(kWhole)));
      write();
    }
    const std::unique_ptr<rocksdb::Iterator> at(database_.NewIterator({}, from));
    for (at->SeekToFirst(); at->Valid(); at->Next()) {
      if (at->key() == slice(kWhole)) continue;
      check(batch_.Put(to, at->key(), at->value()));
      if (batch_.GetDataSize() >= kBatchBytes) write();
    }
    check(at->status());
    write();
    flush(to);
    for (const std::string& table : before) check(whole([&] { return database_.DeleteFile(table); }));
    if (!to_is_copy) return;
    check(batch_.Put(to, slice(kWhole), ""));
    write();
  }

 private:
  // In the order in which RocksDB lets go of them: what is older first, so that nothing erased comes back.
  std::vector<std::string> tables_of(rocksdb::ColumnFamilyHandle* family) const {
    const rocksdb::ColumnFamilyMetaData facts = facts_of(database_, family);
    std::vector<std::string> names;
    for (auto level = facts.levels.rbegin(); level != facts.levels.rend(); ++level)
      for (auto table = level->files.rbegin(); table != level->files.rend(); ++table)
        names.push_back(table->name);
    return names;
  }
  void flush(rocksdb::ColumnFamilyHandle* family) {
    require_room(state_.path);
    rocksdb::FlushOptions options;
    options.allow_write_stall = true;
    check(whole([&] { return database_.Flush(options, family); }));
  }
  void write() {
    write_to_log(state_, batch_);
    batch_.Clear();
  }
  void check(const rocksdb::Status& status) const {
    if (!status.ok()) fail_status(state_.path, status);
  }

  RocksStore::State& state_;
  rocksdb::DB& database_;
  rocksdb::WriteBatch batch_;
};

// Whether both can be read to their ends in the end.
bool rewrite(RocksStore::State& state, const std::string& name, rocksdb::ColumnFamilyHandle* family,
             RocksStore::State::Copy& copy) {
  const Comparison found = compare(*state.database, family, copy.handle);
  const bool family_is_bad = !found.family.ok(), copy_is_bad = !found.copy.ok();
  copy.whole = found.whole;
  if (!family_is_bad && !copy_is_bad && found.alike && found.whole) return true;
  // Whatever the reason is that one cannot be read now, nothing is taken from the other. Whoever reads what
  // both lack is told.
  if (family_is_bad && (copy_is_bad || !found.whole)) return false;
  if (family_is_bad) {
    Rewriting(state).run(copy.handle, family, false);
  } else {
    copy.whole = false;
    Rewriting(state).run(family, copy.handle, true);
    copy.whole = true;
  }
  if (family_is_bad || copy_is_bad)
    log_warning("store_mended store={} records={} reason=\"{}\" then=\"they were written anew from {}\"",
                state.path, name, (family_is_bad ? found.family : found.copy).ToString(),
                family_is_bad ? "their copy" : "the records themselves");
  return true;
}

// Nobody else compacts these. It can wait: for room, too.
void compact(RocksStore::State& state, const std::string& name, rocksdb::ColumnFamilyHandle* family) {
  const rocksdb::ColumnFamilyMetaData facts = facts_of(*state.database, family);
  if (facts.levels.front().files.size() < kManyTables || !has_room(state.path, Bytes{facts.size})) return;
  const auto status = whole([&] { return state.database->CompactRange({}, family, nullptr, nullptr); });
  if (!status.ok())
    log_warning("store_not_compacted store={} records={} reason=\"{}\"", state.path, name, status.ToString());
}

}  // namespace

std::string copy_of(const std::string& family) {
  return "copy." + family;
}

void find_copies(RocksStore::State& state) {
  for (const auto& [name, handle] : state.families) {
    const auto found = state.families.find(copy_of(name));
    if (found == state.families.end()) continue;
    RocksStore::State::Copy copy{found->second, false};
    if (state.access == RocksStore::Access::kRead) {
      std::string value;
      copy.whole = whole([&] { return state.database->Get({}, copy.handle, slice(kWhole), &value); }).ok();
    } else {
      try {
        if (rewrite(state, name, handle, copy))
          for (rocksdb::ColumnFamilyHandle* one : {handle, copy.handle}) compact(state, name, one);
      } catch (const Error& error) {
        // The one that can be read is as it was, and is enough.
        log_warning("store_not_mended store={} records={} reason=\"{}\"", state.path, name, error.message());
      }
    }
    state.copies[name] = copy;
  }
}

std::shared_ptr<KeyValue> make_rocks_family(const std::shared_ptr<RocksStore::State>& state,
                                            const std::string& name) {
  const auto copy = state->copies.find(name);
  return std::make_shared<Family>(state, name, state->families.at(name),
                                  copy == state->copies.end() ? RocksStore::State::Copy{} : copy->second);
}

}  // namespace caravan
