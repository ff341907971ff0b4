#include "store/rocks_store.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/atomic_file.h"
#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/direct_tables.h"
#include "store/incoming_tables.h"
#include "store/rocks_state.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kVersionWords = "caravan store ";
// Of the list of tables, which grows with each change until it is written anew.
constexpr uint64_t kLeastListBytes = 2u << 20, kMostListBytes = 64u << 20;

// Hears of records that RocksDB leaves out of a log. It says so nowhere else when it is told to open a store
// whatever its tables are like.
class HearsOfDroppedRecords final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    std::array<char, 512> line{};
    std::vsnprintf(line.data(), line.size(), format, arguments);
    if (said_.empty() && std::strstr(line.data(), "dropping ") != nullptr) said_ = line.data();
  }
  const std::string& said() const { return said_; }

 private:
  std::string said_;
};

rocksdb::DBOptions database_options(bool direct) {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_background_jobs = 2;
  options.max_open_files = 512;
  options.max_file_opening_threads = 1;  // where a thread is refused, RocksDB ends the process
  options.max_total_wal_size = 1u << 20;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  options.use_direct_reads = direct;
  options.allow_fallocate = false;  // 4 MiB for a list of a few KiB, beside budgets of little more
  options.info_log = log_to_ours();
  options.info_log->SetInfoLogLevel(rocksdb::InfoLogLevel::WARN_LEVEL);
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

// Tables come in whole and go whole, so nothing is ever compacted; a value is a block of its own, and the
// filter keeps a table that lacks a key from being read for it.
rocksdb::ColumnFamilyOptions bulk_options() {
  rocksdb::ColumnFamilyOptions options = family_options();
  options.disable_auto_compactions = true;
  options.level0_slowdown_writes_trigger = std::numeric_limits<int>::max();
  options.level0_stop_writes_trigger = std::numeric_limits<int>::max();
  rocksdb::BlockBasedTableOptions table;
  // It keeps nothing that nobody reads; without a cache each value would be copied once more, out of its
  // block.
  table.block_cache = rocksdb::NewLRUCache(0, 0, false);
  table.block_size = 16u << 10;
  table.format_version = 5;
  // Debian builds RocksDB for any x86-64: its XXH3 and CRC32C are slow there, this one is not (decision 3).
  table.checksum = rocksdb::kxxHash64;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(20, false));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.table_properties_collector_factories.push_back(note_places());
  return options;
}

bool is_bulk(const std::string& family) {
  return family.rfind(RocksStore::kBulkPrefix, 0) == 0;
}

rocksdb::ColumnFamilyOptions options_of(const std::string& family) {
  return is_bulk(family) ? bulk_options() : family_options();
}

std::string version_file(const std::string& path) {
  return path + "/CARAVAN";
}

// Of what a version file says, enough to know it by.
constexpr size_t kMostShown = 40;

std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

// A table or log of a store that lacks CURRENT; empty when there is none.
std::string left_alone(const std::string& path) {
  std::error_code error;
  if (fs::exists(path + "/CURRENT", error)) return "";
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error))
    if (at->path().extension() == ".sst" || at->path().extension() == ".log")
      return at->path().filename().string();
  return "";
}

// RocksDB would begin anew without CURRENT, and remove what it does not know.
void check_current(const std::string& path) {
  if (const std::string file = left_alone(path); !file.empty())
    fail(ErrorCode::kMalformed,
         "the store {} is damaged: {} is there, but not CURRENT, which names the list of files; nothing was "
         "changed",
         path, file);
}

// Whether CURRENT names a list of files that is not there. One who opens the store writes a new list, so that
// a name that has changed meanwhile says nothing.
bool list_is_missing(const std::string& path) {
  const auto named = [&path] {
    std::string name;
    std::ifstream in(path + "/CURRENT");
    std::getline(in, name);
    return name;
  };
  std::error_code error;
  const std::string name = named();
  return !name.empty() && name.size() < kMostShown && !fs::exists(path + "/" + name, error) &&
         named() == name;
}

// What is left to be known of the list of files, whenever it was added to and by a process that ends in
// order: its name, how long it was, and a sum. A list that is cut short, or whose last record is damaged so
// that it looks cut, passes for an older one, and RocksDB would remove the tables that it does not know.
std::string note_file(const std::string& path) {
  return path + "/LIST";
}

std::string listed_in(const std::string& path) {
  std::string name;
  std::ifstream(path + "/CURRENT") >> name;
  return name;
}

// How long the list may become. It is written whole each time it outgrows that, so there is room for three
// more beside what is listed now; what is left of it lies beside budgets that may be small.
uint64_t list_bytes(const std::string& path) {
  std::error_code error;
  const uint64_t now = fs::file_size(path + "/" + listed_in(path), error);
  return error ? kLeastListBytes : std::clamp(4 * now, kLeastListBytes, kMostListBytes);
}

// Of the list's first bytes; nothing when it has fewer.
std::optional<uint64_t> sum_of(const std::string& list, uint64_t bytes) {
  std::ifstream in(list, std::ios::binary);
  std::vector<char> text(std::min(bytes, kMostListBytes));
  if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) return std::nullopt;
  return xxh3(std::as_bytes(std::span(text)));
}

bool synced(const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool done = ::fsync(descriptor) == 0;
  ::close(descriptor);
  return done;
}

std::string sum_of_note(const std::string& note) {
  return fmt::format(" {:x}", xxh3(std::as_bytes(std::span(note))));
}

void write_note(const std::string& path) {
  const std::string name = listed_in(path);
  std::error_code error;
  const uint64_t bytes = fs::file_size(path + "/" + name, error);
  const auto sum = error ? std::nullopt : sum_of(path + "/" + name, bytes);
  // If it cannot be read, the next opening says why. What is noted must not be lost while the note is not.
  if (!sum || !synced(path + "/" + name)) return;
  std::string text = fmt::format("{} {} {:x}", name, bytes, *sum);
  text += sum_of_note(text) + "\n";
  AtomicFile file(note_file(path));
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

// A list that is another one by now says nothing, and neither does a damaged note of it. One that is written
// to at this moment grows.
void check_note(const std::string& path) {
  std::string note;
  std::ifstream file(note_file(path));
  std::getline(file, note);
  const size_t end = std::min(note.size(), note.rfind(' '));
  if (note.substr(end) != sum_of_note(note.substr(0, end))) return;
  std::istringstream in(note.substr(0, end));
  std::string name;
  uint64_t bytes = 0, sum = 0;
  if (!(in >> name >> bytes >> std::hex >> sum) || name != listed_in(path)) return;
  std::error_code error;
  if (!fs::exists(path + "/" + name, error)) return;
  if (sum_of(path + "/" + name, bytes) != sum && name == listed_in(path))
    fail(ErrorCode::kMalformed,
         "the store {} is damaged: {}, the list of its files, is cut short or not as it was written; nothing "
         "was changed",
         path, name);
}

// Without the list of its files a store cannot be read.
[[noreturn]] void fail_to_open(const std::string& path, const rocksdb::Status& status) {
  if (!status.IsCorruption() && !list_is_missing(path)) fail_status(path, status);
  fail(ErrorCode::kMalformed,
       "the store {} is damaged: what names its files (CURRENT, MANIFEST) or one of these files: {}; nothing "
       "was changed",
       path, status.ToString());
}

// Before anything is opened, so that a store of another version stays as it is.
void check_version(const std::string& path) {
  std::error_code error;
  if (!fs::exists(version_file(path), error)) return;
  std::ifstream in(version_file(path), std::ios::binary);
  std::string line(kMostShown, '\0');
  in.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  const bool read = in.is_open() && !in.bad();
  line.resize(std::min(line.size(), line.find('\n')));
  const std::string own = std::string(kVersionWords) + std::to_string(RocksStore::kVersion);
  if (line == own) return;
  const bool number = line.size() > kVersionWords.size() &&
                      line.find_first_not_of("0123456789", kVersionWords.size()) == std::string::npos;
  if (line.rfind(kVersionWords, 0) != 0 || !number)
    fail(ErrorCode::kMalformed,
         "the store {} is damaged: {} {}, where \"{}\" was expected; nothing was changed", path,
         version_file(path),
         !read          ? "cannot be read"
         : line.empty() ? "is empty"
                        : "says \"" + printable(line) + "\"",
         own);
  fail(
      ErrorCode::kUnsupported,
      "the store {} is of version {}; this program reads version {}. Nothing was changed; use another folder "
      "with --state DIR",
      path, line.substr(kVersionWords.size()), RocksStore::kVersion);
}

void write_version(const std::string& path) {
  std::error_code error;
  if (fs::exists(version_file(path), error)) return;
  const std::string text = std::string(kVersionWords) + std::to_string(RocksStore::kVersion) + "\n";
  AtomicFile file(version_file(path));
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

// Whether files of this folder can be read past the page cache (a tmpfs may refuse).
bool reads_directly(const std::string& path) {
  const int descriptor = ::open(version_file(path).c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (descriptor >= 0) ::close(descriptor);
  return descriptor >= 0;
}

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error || ::access(path.c_str(), W_OK | X_OK) != 0)
    fail(ErrorCode::kIo, "{}: {}; choose a folder that can be written with --state DIR", path,
         error ? error.message() : "cannot be written");
}

// RocksDB makes a log at each opening, and lets go of it with what is flushed: that of a process that wrote
// nothing stays, empty. All but the newest, which is in use.
void remove_empty_logs(const std::string& path) {
  std::map<uint64_t, fs::path> logs;
  std::error_code error;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error))
    if (at->path().extension() == ".log")
      logs[std::strtoull(at->path().filename().c_str(), nullptr, 10)] = at->path();
  if (!logs.empty()) logs.erase(std::prev(logs.end()));
  for (const auto& [number, log] : logs)
    if (fs::file_size(log, error) == 0 && !error) fs::remove(log, error);
}

// Those on disk, and when writing those wanted, too; the default one is always there.
std::vector<std::string> family_names(const std::string& path, const std::vector<std::string>& wanted,
                                      RocksStore::Access access, bool twice) {
  std::vector<std::string> names;
  std::error_code error;
  if (fs::exists(path + "/CURRENT", error)) {
    const auto listed = rocksdb::DB::ListColumnFamilies(database_options(false), path, &names);
    if (!listed.ok()) fail_to_open(path, listed);
  }
  const auto add = [&names](const std::string& name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  if (access == RocksStore::Access::kWrite)
    for (const std::string& name : wanted) {
      add(name);
      if (twice && !is_bulk(name)) add(copy_of(name));
    }
  add(rocksdb::kDefaultColumnFamilyName);
  return names;
}

// What is opened, and as what.
struct Opening {
  std::string path;
  RocksStore::Access access;
  rocksdb::DBOptions options;
  std::vector<rocksdb::ColumnFamilyDescriptor> families;

  rocksdb::Status open(std::vector<rocksdb::ColumnFamilyHandle*>& handles,
                       std::unique_ptr<rocksdb::DB>& database) const {
    rocksdb::DB* opened = nullptr;
    const auto status = access == RocksStore::Access::kWrite
                            ? rocksdb::DB::Open(options, path, families, &handles, &opened)
                            : rocksdb::DB::OpenForReadOnly(options, path, families, &handles, &opened);
    database.reset(opened);
    return status;
  }
};

// Opened strictly, a store with one bad table is no store at all; opened leniently, it also goes on behind a
// record of its log that it cannot read, and forgets it. So the log is looked at first, by a reader, who
// changes nothing. A store that is well is never opened so: it would write on behind a record that a full
// disk cut short.
rocksdb::Status open_with_damaged_tables(Opening opening, const rocksdb::Status& problem,
                                         std::vector<rocksdb::ColumnFamilyHandle*>& handles,
                                         std::unique_ptr<rocksdb::DB>& database) {
  opening.options.paranoid_checks = false;
  Opening look = opening;
  const auto dropped = std::make_shared<HearsOfDroppedRecords>();
  look.access = RocksStore::Access::kRead;
  look.options.info_log = dropped;
  // A reader makes no family.
  const std::vector<std::string> there = family_names(look.path, {}, look.access, false);
  std::erase_if(look.families, [&there](const rocksdb::ColumnFamilyDescriptor& family) {
    return std::find(there.begin(), there.end(), family.name) == there.end();
  });
  {
    std::vector<rocksdb::ColumnFamilyHandle*> seen;
    std::unique_ptr<rocksdb::DB> looked_at;
    if (!look.open(seen, looked_at).ok()) return problem;
    for (rocksdb::ColumnFamilyHandle* handle : seen) looked_at->DestroyColumnFamilyHandle(handle);
  }
  if (!dropped->said().empty()) return rocksdb::Status::Corruption(dropped->said());
  return opening.open(handles, database);
}

// A table whose end the disk does not give out: as good as one that is cut short.
bool is_unreadable(const rocksdb::Status& status) {
  return status.IsIOError() && status.ToString().find("Input/output error") != std::string::npos;
}

}  // namespace

bool is_damage(const rocksdb::Status& status) {
  return status.IsCorruption() || status.IsPathNotFound();
}

void fail_status(const std::string& path, const rocksdb::Status& status) {
  const std::string reason = status.ToString();
  if (is_damage(status)) fail(ErrorCode::kMalformed, "the store {} is damaged: {}", path, reason);
  if (reason.find("lock hold by current process") != std::string::npos)
    fail(ErrorCode::kIo, "the store {} is open in this very process ({})", path, reason);
  if (reason.find("lock ") != std::string::npos || reason.find("LOCK") != std::string::npos)
    fail(ErrorCode::kIo, "the store {} is held by another process; use another folder with --state DIR ({})",
         path, reason);
  if (status.IsNoSpace() || reason.find("No space left") != std::string::npos)
    fail(ErrorCode::kIo,
         "the disk of the store {} is full; what it held before is kept. Free some of it: with 2 MiB caravan "
         "rm "
         "works, too ({})",
         path, reason);
  fail(ErrorCode::kIo, "the store {}: {}", path, reason);
}

void note_list(const RocksStore::State& state) {
  if (state.access == RocksStore::Access::kRead || !has_room(state.path)) return;
  try {
    write_note(state.path);
  } catch (const Error& error) {
    log_warning("{}", error.message());
  }
}

std::string incoming_folder(const std::string& store_path) {
  return store_path + "/incoming";
}

RocksStore::State::State() = default;

RocksStore::State::~State() {
  if (!database) return;
  // A log has no sums over what is missing at its end; a table and the list of tables have. What a process
  // acknowledged is in a table once it has ended in order; but not where it may be lost, since RocksDB then
  // tries without end on a disk that is full.
  if (access == Access::kWrite && !may_lose && !log_is_torn && has_room(path)) {
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    for (const auto& [name, handle] : families) handles.push_back(handle);
    rocksdb::FlushOptions flush;
    flush.allow_write_stall = true;
    // The log has all of it, should it fail.
    if (const auto status = whole([&] { return database->Flush(flush, handles); }); !status.ok())
      log_warning("store_not_flushed store={} reason=\"{}\"", path, status.ToString());
  }
  for (const auto& [name, handle] : families) database->DestroyColumnFamilyHandle(handle);
  database->Close();
  note_list(*this);
}

RocksStore::RocksStore(const std::string& folder, const std::vector<std::string>& families, Access access,
                       Damage damage)
    : state_(std::make_shared<State>()) {
  const std::string path = folder + "/store";
  state_->path = path;
  state_->access = access;
  state_->may_lose = damage == Damage::kTolerated;
  if (access == Access::kWrite)
    make_folders(path);
  else if (!exists(folder))
    fail(ErrorCode::kNotFound, "{}: there is no store", path);
  check_version(path);
  check_current(path);
  check_note(path);
  const bool twice = damage == Damage::kOfTablesTolerated;
  const std::vector<std::string> names = family_names(path, families, access, twice);
  if (access == Access::kWrite) write_version(path);
  state_->direct = reads_directly(path);
  Opening opening{path, access, database_options(state_->direct), {}};
  opening.options.paranoid_checks = damage != Damage::kTolerated;
  opening.options.max_manifest_file_size = list_bytes(path);
  for (const std::string& name : names) {
    opening.families.emplace_back(name, options_of(name));
    // Where it meets damage there is an end to writing; find_copies does it, when it has looked for damage.
    if (twice) opening.families.back().options.disable_auto_compactions = true;
  }
  state_->compacted = listen_to_compaction(opening.options);
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  auto status = opening.open(handles, state_->database);
  if (damage == Damage::kOfTablesTolerated && (is_damage(status) || is_unreadable(status))) {
    const std::string problem = status.ToString();
    status = open_with_damaged_tables(opening, status, handles, state_->database);
    if (status.ok())
      log_warning(
          "store_damaged store={} reason=\"{}\" then=\"what else it has is used; caravan verify mends "
          "what can be had elsewhere\"",
          path, problem);
  }
  if (!status.ok()) fail_to_open(path, status);
  for (size_t i = 0; i < names.size(); ++i) state_->families[names[i]] = handles[i];
  // Whoever writes must write both.
  if (twice || access == Access::kWrite) find_copies(*state_);
  if (access == Access::kRead) return;
  clear_incoming_tables(incoming_folder(path));
  remove_empty_logs(path);
  if (!state_->may_lose) note_list(*state_);
}

RocksStore::~RocksStore() = default;

bool RocksStore::exists(const std::string& folder) {
  std::error_code error;
  return fs::exists(folder + "/store/CURRENT", error) || !left_alone(folder + "/store").empty();
}

bool RocksStore::has(const std::string& name) const {
  return state_->families.count(name) > 0;
}

std::shared_ptr<KeyValue> RocksStore::family(const std::string& name) {
  CHECK(has(name));
  return make_rocks_family(state_, name);
}

std::shared_ptr<BulkStore> RocksStore::bulk(const std::string& name) {
  CHECK((has(name) && is_bulk(name)));
  return make_rocks_bulk(state_, state_->families.at(name));
}

}  // namespace caravan
