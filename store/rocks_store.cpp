#include "store/rocks_store.h"

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

rocksdb::Slice slice(std::string_view text) {
  return {text.data(), text.size()};
}

[[noreturn]] void fail_status(const std::string& path, const rocksdb::Status& status) {
  const std::string reason = status.ToString();
  if (status.IsCorruption()) fail(ErrorCode::kMalformed, "the store {} is damaged: {}", path, reason);
  if (reason.find("lock ") != std::string::npos || reason.find("LOCK") != std::string::npos)
    fail(ErrorCode::kIo, "the store {} is held by another process; use another folder with --state DIR ({})",
         path, reason);
  fail(ErrorCode::kIo, "the store {}: {}", path, reason);
}

rocksdb::DBOptions database_options() {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_background_jobs = 2;
  options.max_open_files = 64;
  options.max_total_wal_size = 4u << 20;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.max_log_file_size = 1u << 20;
  options.keep_log_file_num = 2;
  options.max_manifest_file_size = 1u << 20;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // A record torn by a kill is the end of the log; damage before it is an error, never a silent loss.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  return options;
}

rocksdb::ColumnFamilyOptions family_options() {
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = 1u << 20;
  options.max_write_buffer_number = 2;
  options.compression = rocksdb::kNoCompression;
  return options;
}

}  // namespace

struct RocksStore::State {
  std::string path;
  std::unique_ptr<rocksdb::DB> database;
  std::map<std::string, rocksdb::ColumnFamilyHandle*> families;

  ~State() {
    if (!database) return;
    for (const auto& [name, handle] : families) database->DestroyColumnFamilyHandle(handle);
    database->Close();
  }

  class Family final : public KeyValue {
   public:
    Family(std::shared_ptr<State> state, rocksdb::ColumnFamilyHandle* handle)
        : state_(std::move(state)), handle_(handle) {}

    std::optional<std::string> get(std::string_view key) const override {
      std::string value;
      const auto status = state_->database->Get({}, handle_, slice(key), &value);
      if (status.IsNotFound()) return std::nullopt;
      check(status);
      return value;
    }
    void put(std::string_view key, std::string_view value) override {
      check(state_->database->Put(synced(), handle_, slice(key), slice(value)));
    }
    void erase(std::string_view key) override {
      check(state_->database->Delete(synced(), handle_, slice(key)));
    }
    void scan(std::string_view prefix,
              const std::function<bool(std::string_view, std::string_view)>& visit) const override {
      const std::unique_ptr<rocksdb::Iterator> at(state_->database->NewIterator({}, handle_));
      for (at->Seek(slice(prefix)); at->Valid() && at->key().starts_with(slice(prefix)); at->Next())
        if (!visit(at->key().ToStringView(), at->value().ToStringView())) break;
      check(at->status());
    }

   private:
    static rocksdb::WriteOptions synced() {
      rocksdb::WriteOptions options;
      options.sync = true;
      return options;
    }
    void check(const rocksdb::Status& status) const {
      if (!status.ok()) fail_status(state_->path, status);
    }

    const std::shared_ptr<State> state_;
    rocksdb::ColumnFamilyHandle* const handle_;
  };
};

RocksStore::RocksStore(const std::string& folder, const std::vector<std::string>& families)
    : state_(std::make_shared<State>()) {
  state_->path = folder + "/store";
  std::error_code error;
  fs::create_directories(state_->path, error);
  if (error)
    fail(ErrorCode::kIo, "{}: {}; choose a folder that can be written with --state DIR", state_->path,
         error.message());
  // Families of another version of the program must be opened, too.
  std::vector<std::string> names;
  if (fs::exists(state_->path + "/CURRENT", error)) {
    const auto listed = rocksdb::DB::ListColumnFamilies(database_options(), state_->path, &names);
    if (!listed.ok()) fail_status(state_->path, listed);
  }
  for (const std::string& name : families)
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  if (std::find(names.begin(), names.end(), rocksdb::kDefaultColumnFamilyName) == names.end())
    names.push_back(rocksdb::kDefaultColumnFamilyName);
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (const std::string& name : names) descriptors.emplace_back(name, family_options());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* database = nullptr;
  const auto status = rocksdb::DB::Open(database_options(), state_->path, descriptors, &handles, &database);
  if (!status.ok()) fail_status(state_->path, status);
  state_->database.reset(database);
  for (size_t i = 0; i < names.size(); ++i) state_->families[names[i]] = handles[i];
}

RocksStore::~RocksStore() = default;

std::shared_ptr<KeyValue> RocksStore::family(const std::string& name) {
  const auto found = state_->families.find(name);
  CHECK(found != state_->families.end());
  return std::make_shared<State::Family>(state_, found->second);
}

}  // namespace caravan
