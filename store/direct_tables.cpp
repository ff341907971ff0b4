#include "store/direct_tables.h"

#include <fcntl.h>
#include <rocksdb/db.h>
#include <rocksdb/table_properties.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "store/part_reader.h"
#include "store/table_block.h"

namespace caravan {

namespace {

constexpr const char* kProperty = "caravan.places";
constexpr uint64_t kAlignment = 4096;  // of direct reads
constexpr size_t kMostTables = 128;    // open at a time
constexpr size_t kMostBuffers = 4;     // kept
// Between two values of a run: the end of a block, and the beginning of the next.
constexpr uint64_t kMostGap = 256;

std::string_view view(const rocksdb::Slice& slice) {
  return {slice.data(), slice.size()};
}

struct Place {
  std::string key;
  uint64_t block = 0;  // offset in the file
  uint32_t value_bytes = 0;
};

void append_number(std::string& to, uint64_t value) {
  for (int i = 0; i < 8; ++i) to.push_back(static_cast<char>(value >> (8 * i)));
}

std::optional<uint64_t> take_number(std::string_view& from) {
  if (from.size() < 8) return std::nullopt;
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t{static_cast<unsigned char>(from[i])} << (8 * i);
  from.remove_prefix(8);
  return value;
}

// In ascending order of keys; nothing where the note is not one.
std::vector<Place> decode_places(std::string_view note) {
  std::vector<Place> places;
  while (!note.empty()) {
    const auto block = take_number(note), value_bytes = take_number(note), key_bytes = take_number(note);
    if (!key_bytes || *key_bytes > note.size() || *value_bytes > UINT32_MAX || *block > INT64_MAX) return {};
    places.push_back({std::string(note.substr(0, *key_bytes)), *block, static_cast<uint32_t>(*value_bytes)});
    note.remove_prefix(*key_bytes);
    if (places.size() > 1 && places[places.size() - 2].key >= places.back().key) return {};
  }
  return places;
}

class PlaceCollector final : public rocksdb::TablePropertiesCollector {
 public:
  // `file_bytes` are those of the blocks before the one that the value goes into.
  rocksdb::Status AddUserKey(const rocksdb::Slice& key, const rocksdb::Slice& value, rocksdb::EntryType type,
                             rocksdb::SequenceNumber, uint64_t file_bytes) override {
    if (type != rocksdb::kEntryPut) return rocksdb::Status::OK();
    append_number(note_, file_bytes);
    append_number(note_, value.size());
    append_number(note_, key.size());
    note_.append(view(key));
    return rocksdb::Status::OK();
  }
  rocksdb::Status Finish(rocksdb::UserCollectedProperties* properties) override {
    properties->insert({kProperty, note_});
    return rocksdb::Status::OK();
  }
  rocksdb::UserCollectedProperties GetReadableProperties() const override { return {}; }
  const char* Name() const override { return "caravan.PlaceCollector"; }

 private:
  std::string note_;
};

class PlaceCollectorFactory final : public rocksdb::TablePropertiesCollectorFactory {
 public:
  rocksdb::TablePropertiesCollector* CreateTablePropertiesCollector(Context) override {
    return new PlaceCollector;  // RocksDB owns it
  }
  const char* Name() const override { return "caravan.PlaceCollectorFactory"; }
};

// Memory that direct reads go into.
class Buffer {
 public:
  explicit Buffer(size_t bytes)
      : bytes_(bytes),
        data_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (data_ == MAP_FAILED)
      fail(ErrorCode::kOutOfMemory, "the system has no {} bytes left to read into", bytes);
  }
  ~Buffer() { ::munmap(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t size() const { return bytes_; }
  PartReader& parts() {
    if (!parts_) parts_.emplace();
    return *parts_;
  }

 private:
  const size_t bytes_;
  void* const data_;
  std::optional<PartReader> parts_;
};

}  // namespace

std::shared_ptr<rocksdb::TablePropertiesCollectorFactory> note_places() {
  return std::make_shared<PlaceCollectorFactory>();
}

// Pages that were touched once are kept for the next read, as many buffers as there are readers at a time.
// From the heap they would leave holes in every reader's part of it.
class DirectTables::Buffers {
 public:
  std::unique_ptr<Buffer> take(size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      for (auto at = free_.begin(); at != free_.end(); ++at) {
        if ((*at)->size() < bytes) continue;
        std::unique_ptr<Buffer> found = std::move(*at);
        free_.erase(at);
        return found;
      }
    }
    constexpr size_t kStep = 64u << 10;
    return std::make_unique<Buffer>((bytes + kStep - 1) / kStep * kStep);
  }
  void give_back(std::unique_ptr<Buffer> buffer) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(buffer));
    // The smallest goes: the others serve more reads.
    const auto smaller = [](const auto& a, const auto& b) { return a->size() < b->size(); };
    if (free_.size() > kMostBuffers) free_.erase(std::min_element(free_.begin(), free_.end(), smaller));
  }

 private:
  std::mutex mutex_;  // readers are several
  std::vector<std::unique_ptr<Buffer>> free_;
};

class DirectTables::Table {
 public:
  Table(const std::string& path, std::vector<Place> places)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT)), places_(std::move(places)) {
    struct stat status {};
    if (descriptor_ >= 0 && ::fstat(descriptor_, &status) == 0)
      bytes_ = static_cast<uint64_t>(status.st_size);
  }
  ~Table() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;

  bool is_open() const { return descriptor_ >= 0; }
  const std::string& first() const { return places_.front().key; }
  bool may_have(std::string_view key) const { return first() <= key && key <= places_.back().key; }

  bool read(Buffers& buffers, std::span<const rocksdb::Slice> keys, const BulkStore::UseOne& use) const {
    std::vector<std::pair<const Place*, std::string>> wanted;  // and what stands before the value
    for (const rocksdb::Slice& key : keys) {
      const Place* place = find(view(key));
      if (!place) return false;
      wanted.emplace_back(place, block_begin(place->key, place->value_bytes));
    }
    uint64_t end = wanted.front().first->block;
    for (const auto& [place, begin] : wanted) {
      if (place->block < end || (place != wanted.front().first && place->block > end + kMostGap))
        return false;
      end = place->block + begin.size() + place->value_bytes;
    }
    if (end > bytes_) return false;
    const uint64_t start = wanted.front().first->block / kAlignment * kAlignment;
    std::unique_ptr<Buffer> buffer = buffers.take(round_up(end - start));
    const bool is_right =
        read_run(start, end, *buffer) && std::all_of(wanted.begin(), wanted.end(), [&](const auto& one) {
          return std::memcmp(buffer->data() + (one.first->block - start), one.second.data(),
                             one.second.size()) == 0;
        });
    for (size_t i = 0; is_right && i < wanted.size(); ++i) {
      const auto& [place, begin] = wanted[i];
      use(i, {buffer->data() + (place->block - start) + begin.size(), place->value_bytes});
    }
    buffers.give_back(std::move(buffer));
    return is_right;
  }

  // `alone`: nobody else keeps the disk busy while this reader uses what it has.
  bool read_in_parts(Buffers& buffers, const rocksdb::Slice& key, const BulkStore::UsePart& use,
                     bool alone) const {
    const Place* place = find(view(key));
    if (!place) return false;
    const std::string begin = block_begin(place->key, place->value_bytes);
    const uint64_t start = place->block / kAlignment * kAlignment, before = place->block - start;
    const uint64_t value_at = before + begin.size(), needed = value_at + place->value_bytes;
    if (start + needed > bytes_) return false;
    std::unique_ptr<Buffer> buffer = buffers.take(round_up(needed));
    const std::byte* data = buffer->data();
    bool is_right = true;
    uint64_t used = 0;
    const auto grown = [&](uint64_t have) {
      if (!is_right || have < value_at || (used > 0 && have - value_at == used)) return;
      is_right = used > 0 || std::memcmp(data + before, begin.data(), begin.size()) == 0;
      if (!is_right) return;
      use(used, place->value_bytes, {data + value_at + used, have - value_at - used});
      used = have - value_at;
    };
    const std::span<std::byte> to(buffer->data(), round_up(needed));
    const bool is_there = alone ? buffer->parts().read(descriptor_, start, to, needed, grown)
                                : read_run(start, start + needed, *buffer);
    if (is_there && !alone) grown(needed);
    is_right = is_there && is_right;
    buffers.give_back(std::move(buffer));
    return is_right;
  }

 private:
  const Place* find(std::string_view key) const {
    const auto at = std::lower_bound(places_.begin(), places_.end(), key,
                                     [](const Place& place, std::string_view k) { return place.key < k; });
    return at != places_.end() && at->key == key ? &*at : nullptr;
  }

  static uint64_t round_up(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  // False when the disk refuses or the file ends before.
  bool read_run(uint64_t start, uint64_t end, Buffer& to) const {
    const uint64_t length = round_up(end - start);
    for (uint64_t have = 0; have < end - start;) {
      const ssize_t got =
          ::pread(descriptor_, to.data() + have, length - have, static_cast<off_t>(start + have));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      have += static_cast<uint64_t>(got);
    }
    return true;
  }

  const int descriptor_;
  uint64_t bytes_ = 0;
  const std::vector<Place> places_;
};

DirectTables::DirectTables(rocksdb::DB& database, rocksdb::ColumnFamilyHandle* handle)
    : database_(database), handle_(handle), buffers_(std::make_unique<Buffers>()) {}
DirectTables::~DirectTables() = default;

bool DirectTables::read(std::span<const rocksdb::Slice> keys, const BulkStore::UseOne& use) const {
  if (keys.empty()) return true;
  const std::shared_ptr<const Table> table = table_of(keys.front());
  return table && table->read(*buffers_, keys, use);
}

bool DirectTables::read_in_parts(const rocksdb::Slice& key, const BulkStore::UsePart& use) const {
  const std::shared_ptr<const Table> table = table_of(key);
  struct Reader {
    std::atomic<int>& count;
    ~Reader() { --count; }
  };
  const bool alone = readers_++ == 0;
  const Reader reader{readers_};
  return table && table->read_in_parts(*buffers_, key, use, alone);
}

std::shared_ptr<const DirectTables::Table> DirectTables::table_of(const rocksdb::Slice& key) const {
  const std::lock_guard lock(mutex_);
  const auto after = tables_.upper_bound(view(key));
  if (after == tables_.begin()) return nullptr;
  const std::shared_ptr<const Table>& table = std::prev(after)->second;
  return table->may_have(view(key)) ? table : nullptr;
}

void DirectTables::learn(const rocksdb::Slice& key) const {
  if (table_of(key)) return;
  const uint64_t forgotten = forgotten_;
  const rocksdb::Range range(key, key);
  rocksdb::TablePropertiesCollection found;
  if (!database_.GetPropertiesOfTablesInRange(handle_, &range, 1, &found).ok()) return;
  for (const auto& [path, properties] : found) {
    const auto note = properties->user_collected_properties.find(kProperty);
    if (note == properties->user_collected_properties.end()) continue;
    std::vector<Place> places = decode_places(note->second);
    if (places.empty()) continue;
    const auto table = std::make_shared<const Table>(path, std::move(places));
    if (!table->is_open()) continue;
    const std::lock_guard lock(mutex_);
    if (forgotten != forgotten_) return;  // what was found may be gone
    if (tables_.size() >= kMostTables) tables_.clear();
    tables_.insert_or_assign(table->first(), table);
  }
}

void DirectTables::forget() {
  const std::lock_guard lock(mutex_);
  tables_.clear();
  ++forgotten_;
}

}  // namespace caravan
