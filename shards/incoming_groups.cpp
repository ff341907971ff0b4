#include "shards/incoming_groups.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "shards/part_file.h"

namespace caravan {

namespace {

constexpr const char* kSuffix = ".part";
constexpr const char* kSpareSuffix = ".spare";

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
  remove_files([](const std::string& name) { return name.ends_with(kSpareSuffix); });
}

// What the store has not acknowledged keeps its file, and is added again by the next have().
IncomingGroups::~IncomingGroups() {
  forget_writer();
  remove_files([](const std::string& name) { return name.ends_with(kSpareSuffix); });
}

std::string IncomingGroups::path_of(const Hash256& group) const {
  return folder_ + "/" + to_string(group) + kSuffix;
}

bool IncomingGroups::is_stored(const Hash256& group) const {
  if (std::find(finished_.begin(), finished_.end(), group) != finished_.end()) return true;
  return store_->contains(group) && !damaged_.count(group);
}

void IncomingGroups::check(const Hash256& group, uint64_t bytes) {
  if (!store_->contains(group) || damaged_.count(group)) return;
  std::vector<std::byte> buffer(std::min<uint64_t>(limits::kShardChunkBytes, bytes));
  try {
    for (uint64_t offset = 0; offset < bytes; offset += buffer.size())
      store_->read(group, offset, std::span(buffer).first(std::min<uint64_t>(buffer.size(), bytes - offset)));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed && error.code() != ErrorCode::kNotFound) throw;
    log_warning("group_damaged reason=\"{}\" then=\"it is fetched again\"", error.message());
    damaged_.insert(group);
  }
}

uint64_t IncomingGroups::have(const Hash256& group, uint64_t bytes) {
  if (is_stored(group)) {
    // A process that was killed may have left the file of what it had stored.
    if (store_->contains(group) && !damaged_.count(group)) remove_file(path_of(group));
    return bytes;
  }
  uint64_t have = 0;
  if (const auto file = PartFile::open(path_of(group), group)) have = file->have();
  if (have > 0 && have < bytes) return have;
  if (have == bytes && finish(group, bytes) == State::kWhole) return bytes;
  remove_file(path_of(group));
  return 0;
}

IncomingGroups::State IncomingGroups::append(const Hash256& group, uint64_t bytes, uint64_t offset,
                                             std::span<const std::span<const std::byte>> parts) {
  if (offset == 0) begin(group, bytes);
  {
    PartFile file = PartFile::make(path_of(group), group);
    if (file.have() < offset)
      fail(ErrorCode::kIo, "{} has {} bytes, and had {}", path_of(group), file.have(), offset);
    for (const auto& part : parts) {
      CHECK(part.size() <= bytes - offset);
      file.write(offset, part);
      pass(group, offset, part);
      offset += part.size();
      written_bytes_ += part.size();
    }
    file.note_have();
  }
  return offset < bytes ? State::kPart : finish(group, bytes);
}

// After an error but a wrong hash the writer is of no more use.
void IncomingGroups::use_writer(const std::function<void(ShardStore::Writer&)>& what) {
  try {
    if (!writer_) writer_.emplace(*store_);
    what(*writer_);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) forget_writer();
    throw;
  }
}

void IncomingGroups::begin(const Hash256& group, uint64_t bytes) {
  take_spare(group);
  use_writer([&](ShardStore::Writer& writer) { writer.begin(group, bytes); });
}

void IncomingGroups::pass(const Hash256& group, uint64_t offset, std::span<const std::byte> bytes) {
  if (!writer_ || writer_->passed(group) != offset) return;
  use_writer([&](ShardStore::Writer& writer) { writer.append(bytes); });
}

// The file of a group that is stored becomes the next one's.
void IncomingGroups::take_spare(const Hash256& group) {
  if (spares_.empty()) return;
  const std::string spare = std::move(spares_.back());
  spares_.pop_back();
  std::error_code ignored;  // then it is a new file
  std::filesystem::rename(spare, path_of(group), ignored);
}

// The store's writer hashes what it is given, and adds nothing that has another hash.
IncomingGroups::State IncomingGroups::finish(const Hash256& group, uint64_t bytes) {
  const bool has_passed = writer_ && writer_->passed(group) == bytes;
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
  finished_.push_back(group);
  remove_stored();
  return State::kWhole;
}

// Of a group that did not come in one go.
void IncomingGroups::add_file(ShardStore::Writer& writer, const Hash256& group, uint64_t bytes) {
  const auto file = PartFile::open(path_of(group), group);
  if (!file) fail(ErrorCode::kIo, "{}: it is gone", path_of(group));
  const auto content = [&](uint64_t offset, std::span<std::byte> out) { file->read(offset, out); };
  if (damaged_.count(group))
    writer.replace(group, bytes, content);
  else
    writer.add(group, bytes, {}, content);
}

void IncomingGroups::flush() {
  if (!writer_) return;
  use_writer([](ShardStore::Writer& writer) { writer.flush(); });
  writer_.reset();
  for (const Hash256& group : finished_) damaged_.erase(group);
  remove_stored();
  for (const std::string& spare : std::exchange(spares_, {})) remove_file(spare);
}

// What the store did not take of that which it was given has files, which the next have() adds.
void IncomingGroups::forget_writer() {
  writer_.reset();
  remove_stored();
  finished_.clear();
}

void IncomingGroups::remove_stored() {
  std::erase_if(finished_, [&](const Hash256& group) {
    if (!store_->contains(group) || damaged_.count(group)) return false;
    const std::string spare = path_of(group) + kSpareSuffix;
    if (::rename(path_of(group).c_str(), spare.c_str()) == 0) spares_.push_back(spare);
    return true;
  });
}

void IncomingGroups::keep_only(const std::set<Hash256>& wanted) {
  remove_files([&](const std::string& name) {
    Hash256 group;
    const bool is_ours = name.size() == 2 * group.size() + std::strlen(kSuffix) && name.ends_with(kSuffix) &&
                         from_hex(name.substr(0, 2 * group.size()), group.bytes.data(), group.size());
    return is_ours && !wanted.count(group);
  });
}

void IncomingGroups::remove_files(const std::function<bool(const std::string& name)>& which) const {
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error))
    if (which(at->path().filename().string())) remove_file(at->path().string());
}

}  // namespace caravan
