#include "shards/incoming_groups.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "shards/part_file.h"

namespace caravan {

namespace {

constexpr const char* kSuffix = ".part";
// Of the disk, what is left for whoever removes something, and what a writer takes before it has written.
constexpr uint64_t kLeftFree = 2u << 20;
constexpr uint64_t kWriterBytes = 6u << 20;

void require_free(const std::string& folder, uint64_t bytes) {
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (!error && space.available < bytes + kLeftFree)
    fail(ErrorCode::kIo,
         "the disk of {} is full, it has less than {} left; what was fetched is kept, and the fetch goes on "
         "when there is room",
         folder, to_string(Bytes{bytes + kLeftFree}));
}

// Whose file has that name.
std::optional<Hash256> group_of(const std::string& name) {
  Hash256 group;
  const bool is_one = name.size() == 2 * group.size() + std::strlen(kSuffix) && name.ends_with(kSuffix) &&
                      from_hex(name.substr(0, 2 * group.size()), group.bytes.data(), group.size());
  return is_one ? std::optional(group) : std::nullopt;
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    log_warning("{}: {}", path, std::strerror(errno));  // only its space is lost
}

}  // namespace

IncomingGroups::IncomingGroups(std::shared_ptr<ShardStore> store, std::string folder)
    : store_(std::move(store)), folder_(std::move(folder)) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) fail(ErrorCode::kIo, "{}: {}", folder_, error.message());
}

// What the store has not acknowledged is salvaged by the next one.
IncomingGroups::~IncomingGroups() {
  forget_writer();
}

std::string IncomingGroups::path_of(const Hash256& group) const {
  return folder_ + "/" + to_string(group) + kSuffix;
}

std::string IncomingGroups::chunks_path() const {
  return folder_ + "/chunks";
}

bool IncomingGroups::is_stored(const Hash256& group) const {
  if (std::find(finished_.begin(), finished_.end(), group) != finished_.end()) return true;
  return is_good(group);
}

bool IncomingGroups::is_good(const Hash256& group) const {
  return store_->contains(group) && !store_->is_damaged(group);
}

void IncomingGroups::check(const Hash256& group, uint64_t bytes) {
  if (!is_good(group)) return;
  std::vector<std::byte> buffer(std::min<uint64_t>(limits::kShardChunkBytes, bytes));
  try {
    for (uint64_t offset = 0; offset < bytes; offset += buffer.size())
      store_->read(group, offset, std::span(buffer).first(std::min<uint64_t>(buffer.size(), bytes - offset)));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed && error.code() != ErrorCode::kNotFound) throw;
    log_warning("group_damaged reason=\"{}\" then=\"it is fetched again\"", error.message());
    store_->note_damage(group, true);
  }
}

uint64_t IncomingGroups::have(const Hash256& group, uint64_t bytes) {
  salvage();
  if (is_stored(group)) {
    // A process that was killed may have left the file of what it had stored.
    if (is_good(group)) remove_file(path_of(group));
    return bytes;
  }
  if (writer_)
    if (const auto passed = writer_->passed(group); passed && *passed < bytes) return *passed;
  uint64_t have = 0;
  if (const auto file = PartFile::open(path_of(group), group)) have = file->have();
  if (have > 0 && have < bytes) return have;
  if (have == bytes && finish(group, bytes) == State::kWhole) return bytes;
  remove_file(path_of(group));
  return 0;
}

IncomingGroups::State IncomingGroups::append(const Hash256& group, uint64_t bytes, uint64_t offset,
                                             std::span<const std::span<const std::byte>> parts) {
  uint64_t end = offset;
  for (const auto& part : parts) end += part.size();
  CHECK(end <= bytes);
  if (offset == 0) begin(group, bytes);
  if (writer_ && writer_->passed(group) == offset)
    use_writer([&](ShardStore::Writer& writer) {
      for (const auto& part : parts) writer.append(part);
    });
  else
    write_file(group, offset, parts);
  return end < bytes ? State::kPart : finish(group, bytes);
}

void IncomingGroups::write_file(const Hash256& group, uint64_t offset,
                                std::span<const std::span<const std::byte>> parts) const {
  PartFile file = PartFile::make(path_of(group), group);
  if (file.have() < offset)
    fail(ErrorCode::kIo, "{} has {} bytes, and had {}", path_of(group), file.have(), offset);
  for (const auto& part : parts) {
    file.write(offset, part);
    offset += part.size();
  }
  file.note_have();
}

// After an error but a wrong hash the writer is of no more use.
void IncomingGroups::use_writer(const std::function<void(ShardStore::Writer&)>& what) {
  try {
    if (!writer_) {
      salvage();  // its file of chunks is the next one's
      require_free(folder_, kWriterBytes);
      writer_.emplace(*store_, chunks_path());
    }
    what(*writer_);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) forget_writer();
    throw;
  }
}

void IncomingGroups::begin(const Hash256& group, uint64_t bytes) {
  if (writer_ && writer_->is_passing() && !writer_->passed(group)) set_aside();
  use_writer([&](ShardStore::Writer& writer) { writer.begin(group, bytes); });
}

// The store's writer hashes what it is given, and adds nothing that has another hash.
IncomingGroups::State IncomingGroups::finish(const Hash256& group, uint64_t bytes) {
  const bool has_passed = writer_ && writer_->passed(group) == bytes;
  if (!has_passed && writer_ && writer_->is_passing()) set_aside();
  try {
    use_writer([&](ShardStore::Writer& writer) {
      if (has_passed)
        writer.end();
      else
        add_file(writer, group, bytes);
    });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) throw;
    log_warning("group_refused reason=\"{}\" then=\"it is fetched again\"", error.message());
    remove_file(path_of(group));
    return State::kWrong;
  }
  has_mended_ |= store_->contains(group);
  finished_.push_back(group);
  // A file that is in the store makes room for the next one.
  if (!has_passed) use_writer([](ShardStore::Writer& writer) { writer.flush(); });
  remove_stored();
  return State::kWhole;
}

// Of a group that did not come in one go.
void IncomingGroups::add_file(ShardStore::Writer& writer, const Hash256& group, uint64_t bytes) {
  const auto file = PartFile::open(path_of(group), group);
  if (!file) fail(ErrorCode::kIo, "{}: it is gone", path_of(group));
  const auto content = [&](uint64_t offset, std::span<std::byte> out) { file->read(offset, out); };
  writer.add(group, bytes, {}, content);
}

// A group that was begun, and is not whole, goes into a file, and with it what is not acknowledged yet. What
// is whole of that is added again.
void IncomingGroups::set_aside() {
  std::vector<Hash256> whole = std::exchange(finished_, {});
  forget_writer();
  salvage();
  for (const Hash256& group : whole) {
    if (is_good(group)) continue;
    const auto file = PartFile::open(path_of(group), group);
    if (!file) fail(ErrorCode::kIo, "{}: it is gone", path_of(group));
    use_writer([&](ShardStore::Writer& writer) {
      add_file(writer, group, file->have());
      writer.flush();
    });
    finished_.push_back(group);
    remove_stored();
  }
}

// Where it fails, what is left stays for the next time. Tables give their room back as they are used.
uint64_t IncomingGroups::salvage(const std::set<Hash256>* wanted) {
  if (!may_salvage_ || writer_) return 0;
  std::set<Hash256> begun;
  uint64_t unwanted = 0;
  store_->salvage([&](const Hash256& group, uint64_t offset, std::span<const std::byte> bytes) {
    if (wanted && !wanted->count(group)) {
      unwanted += bytes.size();
      return;
    }
    // What came before had another hash. And where there was a file, no table has more of the group.
    const bool again = offset == 0 && begun.count(group) > 0;
    if (write_salvaged(group, offset, bytes, again)) begun.insert(group);
  });
  struct Chunk {
    Hash256 group;
    uint64_t offset;
    std::vector<std::byte> bytes;
    size_t slot;
  };
  std::vector<Chunk> last;
  ShardStore::salvage_chunks(chunks_path(), [&](const Hash256& group, uint64_t offset,
                                                std::span<const std::byte> bytes, size_t slot) {
    last.push_back({group, offset, {bytes.begin(), bytes.end()}, slot});
  });
  std::sort(last.begin(), last.end(), [](const Chunk& a, const Chunk& b) { return a.offset < b.offset; });
  for (const Chunk& chunk : last) {
    if (!wanted || wanted->count(chunk.group)) write_salvaged(chunk.group, chunk.offset, chunk.bytes, false);
    ChunkSlots::forget(chunks_path(), chunk.slot);
  }
  remove_file(chunks_path());
  may_salvage_ = false;
  return unwanted;
}

bool IncomingGroups::write_salvaged(const Hash256& group, uint64_t offset, std::span<const std::byte> bytes,
                                    bool again) const {
  if (is_good(group)) return false;
  PartFile file = PartFile::make(path_of(group), group);
  if (!again && file.have() != offset) return false;
  require_free(folder_, bytes.size());
  file.write(offset, bytes);
  file.note_have();
  return true;
}

void IncomingGroups::flush() {
  if (!writer_) return;
  if (writer_->is_passing()) set_aside();
  if (writer_) use_writer([](ShardStore::Writer& writer) { writer.flush(); });
  writer_.reset();
  remove_stored();
  remove_file(chunks_path());
}

// What the store did not take of that which it was given is salvaged, and added by the next have().
void IncomingGroups::forget_writer() {
  writer_.reset();
  may_salvage_ = true;
  remove_stored();
  finished_.clear();
}

// The files of groups that did not come in one go.
void IncomingGroups::remove_stored() {
  std::erase_if(finished_, [&](const Hash256& group) {
    if (!is_good(group)) return false;
    remove_file(path_of(group));
    return true;
  });
}

uint64_t IncomingGroups::remove_unwanted() {
  std::set<Hash256> wanted;
  for (const Hash256& record : store_->partial_models()) {
    wanted.insert(record);
    try {
      const ModelRecord model = store_->read_record(record);
      wanted.insert(model.hashes.begin(), model.hashes.end());
    } catch (const Error&) {
      return 0;  // nobody knows what it names
    }
  }
  const uint64_t unwanted = salvage(&wanted);
  const uint64_t before = bytes_in(folder_);
  remove_files([&](const std::string& name) {
    const auto group = group_of(name);
    return group && (!wanted.count(*group) || is_good(*group));
  });
  return unwanted + before - std::min(before, bytes_in(folder_));
}

uint64_t IncomingGroups::bytes_in(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (std::error_code gone; group_of(at->path().filename().string()))
      if (const uint64_t size = at->file_size(gone); !gone) bytes += size;
  return bytes;
}

void IncomingGroups::remove_files(const std::function<bool(const std::string& name)>& which) const {
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error))
    if (which(at->path().filename().string())) remove_file(at->path().string());
}

}  // namespace caravan
