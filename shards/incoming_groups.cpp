#include "shards/incoming_groups.h"

#include <fcntl.h>
#include <sys/stat.h>
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

namespace caravan {

namespace {

constexpr const char* kSuffix = ".part";

// A file for as long as it is used.
class File {
 public:
  File(std::string path, int flags) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), flags | O_CLOEXEC, 0600);
    if (descriptor_ < 0) fail_with(errno);
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void truncate(uint64_t bytes) {
    if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) fail_with(errno);
  }
  void write(uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail_with(errno);
      offset += static_cast<uint64_t>(count);
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
  }
  void read(uint64_t offset, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t count = ::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail_with(errno);
      if (count == 0) fail(ErrorCode::kIo, "{}: it became shorter while it was read", path_);
      offset += static_cast<uint64_t>(count);
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
  }

 private:
  [[noreturn]] void fail_with(int error) const {
    fail(ErrorCode::kIo, "{}: {}", path_, std::strerror(error));
  }
  const std::string path_;
  int descriptor_;
};

std::optional<uint64_t> size_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return static_cast<uint64_t>(status.st_size);
  if (errno != ENOENT) fail(ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  return std::nullopt;
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

// What the store has not acknowledged keeps its file, and is added again by the next have().
IncomingGroups::~IncomingGroups() = default;

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
  if (is_stored(group)) return bytes;
  const auto size = size_of(path_of(group));
  if (!size) return 0;
  if (*size < bytes) return *size;
  if (*size == bytes && finish(group, bytes) == State::kWhole) return bytes;
  remove_file(path_of(group));
  return 0;
}

IncomingGroups::State IncomingGroups::append(const Hash256& group, uint64_t bytes, uint64_t offset,
                                             std::span<const std::span<const std::byte>> parts) {
  {
    File file(path_of(group), O_WRONLY | O_CREAT);
    const uint64_t there = size_of(path_of(group)).value_or(0);
    if (there < offset) fail(ErrorCode::kIo, "{} has {} bytes, and had {}", path_of(group), there, offset);
    if (there > offset) file.truncate(offset);
    for (const auto& part : parts) {
      CHECK(part.size() <= bytes - offset);
      file.write(offset, part);
      offset += part.size();
      written_bytes_ += part.size();
    }
  }
  return offset < bytes ? State::kPart : finish(group, bytes);
}

// The store's writer hashes what it is given, and adds nothing that has another hash.
IncomingGroups::State IncomingGroups::finish(const Hash256& group, uint64_t bytes) {
  if (!writer_) writer_.emplace(*store_);
  const File file(path_of(group), O_RDONLY);
  const auto content = [&](uint64_t offset, std::span<std::byte> out) { file.read(offset, out); };
  try {
    if (damaged_.count(group))
      writer_->replace(group, bytes, content);
    else
      writer_->add(group, bytes, {}, content);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) {
      forget_writer();
      throw;
    }
    log_warning("group_refused reason=\"{}\" then=\"it is fetched again\"", error.message());
    remove_file(path_of(group));
    return State::kWrong;
  }
  finished_.push_back(group);
  remove_stored();
  return State::kWhole;
}

void IncomingGroups::flush() {
  if (!writer_) return;
  try {
    writer_->flush();
  } catch (const Error&) {
    forget_writer();
    throw;
  }
  writer_.reset();
  for (const Hash256& group : finished_) damaged_.erase(group);
  remove_stored();
}

// The store did not take what it was given last: of that there are the files, which the next have() adds.
void IncomingGroups::forget_writer() {
  writer_.reset();
  finished_.clear();
}

void IncomingGroups::remove_stored() {
  std::erase_if(finished_, [&](const Hash256& group) {
    if (!store_->contains(group) || damaged_.count(group)) return false;
    remove_file(path_of(group));
    return true;
  });
}

void IncomingGroups::keep_only(const std::set<Hash256>& wanted) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    Hash256 group;
    const bool is_ours = name.size() == 2 * group.size() + std::strlen(kSuffix) && name.ends_with(kSuffix) &&
                         from_hex(name.substr(0, 2 * group.size()), group.bytes.data(), group.size());
    if (is_ours && !wanted.count(group)) remove_file(entry.path().string());
  }
}

}  // namespace caravan
