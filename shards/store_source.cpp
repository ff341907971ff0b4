#include "shards/store_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "shards/weights_id.h"

namespace caravan {

namespace {

std::shared_ptr<const Source> open_files(const ModelRecord& record) {
  std::vector<std::string> paths;
  for (const FileStamp& file : record.files) paths.push_back(file.path);
  return std::make_shared<FileSource>(std::move(paths));
}

// Tensors of group i lie one after the other in file i; one that lies where another did stays with it.
void lay_out_by_group(std::vector<WeightGroup>& groups) {
  std::map<std::tuple<uint32_t, uint64_t, uint64_t>, Extent> moved;
  for (size_t i = 0; i < groups.size(); ++i) {
    uint64_t offset = 0;
    for (Tensor& tensor : groups[i].tensors) {
      Extent& extent = tensor.extent;
      const Extent now{static_cast<uint32_t>(i), offset, extent.length};
      offset += extent.length;
      extent = moved.emplace(std::tuple(extent.file, extent.offset, extent.length), now).first->second;
    }
  }
}

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0)
    fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}", path, std::strerror(errno));
  return {path, static_cast<uint64_t>(status.st_size),
          int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

void require_unchanged(const std::vector<FileStamp>& files) {
  for (const FileStamp& file : files) {
    const FileStamp now = stamp_of(file.path);
    if (now.bytes != file.bytes)
      fail(ErrorCode::kRefused, "{} has {} bytes, and had {} when it was imported; import it again",
           file.path, now.bytes, file.bytes);
    if (now.modified_ns != file.modified_ns)
      fail(ErrorCode::kRefused, "{} was written to after it was imported; import it again", file.path);
  }
}

void read_content(const Source& source, const WeightGroup& group, uint64_t offset, std::span<std::byte> out) {
  for (const Tensor& tensor : group.tensors) {
    if (out.empty()) return;
    const Extent& extent = tensor.extent;
    if (offset >= extent.length) {
      offset -= extent.length;
      continue;
    }
    const auto count = std::min<uint64_t>(out.size(), extent.length - offset);
    source.read(extent.file, extent.offset + offset, out.first(count));
    out = out.subspan(count);
    offset = 0;
  }
  CHECK(out.empty());
}

std::string GroupInFiles::path() const {
  return files->file_path(group.tensors.front().extent.file).value_or(files->describe());
}

std::vector<GroupInFiles> find_in_files(const ShardStore& store, const Hash256& group, uint64_t bytes) {
  std::vector<ModelRecord> records;
  try {
    records = store.models();
  } catch (const Error&) {  // whoever looks has a better one to tell
  }
  std::vector<GroupInFiles> found;
  for (const ModelRecord& record : records) {
    const auto at = std::find(record.hashes.begin(), record.hashes.end(), group);
    if (at == record.hashes.end() || record.files.empty()) continue;
    const WeightGroup& there = record.manifest.groups[static_cast<size_t>(at - record.hashes.begin())];
    if (there.bytes().count != bytes) continue;
    try {
      require_unchanged(record.files);
      found.push_back({open_files(record), there});
    } catch (const Error&) {  // no place to read it from
    }
  }
  return found;
}

// A group in files, and sums of its chunks from when all of it had the right hash: files may be written to.
class StoreSource::CheckedGroup {
 public:
  // Reads all of it. Null when that cannot be, or is another content.
  static std::shared_ptr<const CheckedGroup> look_at(GroupInFiles place, const Hash256& hash) {
    auto group = std::make_shared<CheckedGroup>();
    group->place_ = std::move(place);
    Sha256 found;
    try {
      for (uint64_t chunk = 0; chunk * limits::kShardChunkBytes < group->bytes(); ++chunk) {
        const std::vector<std::byte> content = group->read_chunk(chunk);
        found.update(content);
        group->sums_.push_back(xxh3(content));
      }
    } catch (const Error&) {
      return nullptr;
    }
    return found.finish() == hash ? group : nullptr;
  }
  // Throws kMalformed naming the file when the bytes are others now, and what reading throws.
  void read(uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const uint64_t chunk = offset / limits::kShardChunkBytes, skip = offset % limits::kShardChunkBytes;
      const std::vector<std::byte> content = read_chunk(chunk);
      if (xxh3(content) != sums_[chunk])
        fail(ErrorCode::kMalformed, "{} was written to while it stood in for damaged bytes", place_.path());
      const auto part = std::span(content).subspan(skip, std::min(content.size() - skip, out.size()));
      std::memcpy(out.data(), part.data(), part.size());
      out = out.subspan(part.size());
      offset += part.size();
    }
  }
  std::string path() const { return place_.path(); }

 private:
  uint64_t bytes() const { return place_.group.bytes().count; }
  std::vector<std::byte> read_chunk(uint64_t chunk) const {
    const uint64_t offset = chunk * limits::kShardChunkBytes;
    std::vector<std::byte> content(std::min<uint64_t>(limits::kShardChunkBytes, bytes() - offset));
    place_.read(offset, content);
    return content;
  }
  GroupInFiles place_;
  std::vector<uint64_t> sums_;
};

StoreSource::StoreSource(std::shared_ptr<const ShardStore> store, const ModelRecord& record,
                         std::shared_ptr<const Source> elsewhere)
    : store_(std::move(store)),
      model_(record.name()),
      groups_(record.manifest.groups),
      hashes_(record.hashes),
      elsewhere_(std::move(elsewhere)),
      fetched_(record.files.empty() || record.files.front().path.empty()) {
  CHECK(groups_.size() == hashes_.size());
}

std::string StoreSource::describe() const {
  return fmt::format("{} in {}", model_, store_->name());
}

uint64_t StoreSource::file_bytes(uint32_t file) const {
  CHECK(file < groups_.size());
  return groups_[file].bytes().count;
}

void StoreSource::read(uint32_t file, uint64_t offset, std::span<std::byte> out) const {
  const uint64_t bytes = file_bytes(file);
  if (offset > bytes || out.size() > bytes - offset)
    fail(ErrorCode::kMalformed, "{}: {}: bytes {}+{} lie past its end at {}", describe(),
         to_string(groups_[file].id), offset, out.size(), bytes);
  try {
    store_->read(hashes_[file], offset, out);
  } catch (const Error& error) {
    const bool damaged = error.code() == ErrorCode::kMalformed || error.code() == ErrorCode::kNotFound ||
                         error.code() == ErrorCode::kIo;
    const auto elsewhere = damaged ? find_elsewhere(file, error) : nullptr;
    if (!elsewhere)
      fail(error.code(), "{} of {}: {}{}", to_string(groups_[file].id), model_, error.message(),
           !damaged   ? ""
           : fetched_ ? "; it is fetched again when this process makes its stage anew"
                      : "; import the model again from a good file, under any name, and caravan verify "
                        "mends it");
    try {
      elsewhere->read(offset, out);
    } catch (const Error&) {
      const std::lock_guard lock(mutex_);
      found_.erase(file);  // the next read looks for another place
      throw;
    }
  }
}

// Told once, and hashed once: it is read again for each pass.
std::shared_ptr<const StoreSource::CheckedGroup> StoreSource::find_elsewhere(uint32_t file,
                                                                             const Error& damage) const {
  const std::lock_guard lock(mutex_);
  if (const auto known = found_.find(file); known != found_.end()) return known->second;
  std::vector<GroupInFiles> places = find_in_files(*store_, hashes_[file], groups_[file].bytes().count);
  if (elsewhere_) places.insert(places.begin(), {elsewhere_, groups_[file]});
  std::shared_ptr<const CheckedGroup> found;
  for (size_t i = 0; i < places.size() && !found; ++i)
    found = CheckedGroup::look_at(std::move(places[i]), hashes_[file]);
  if (!found) return nullptr;
  found_.emplace(file, found);
  log_warning(
      "group_damaged group={} model={} reason=\"{}\" then=\"what is damaged is read from {} instead, each "
      "time; caravan verify mends it\"",
      to_string(groups_[file].id), model_, damage.message(), found->path());
  return found;
}

Manifest open_record(std::shared_ptr<const ShardStore> store, const ModelRecord& record) {
  std::shared_ptr<const Source> files;
  try {
    require_unchanged(record.files);
    files = open_files(record);
  } catch (const Error&) {
    if (!record.copied) throw;  // else the store has it all
  }
  Manifest manifest = record.manifest;
  manifest.content = weights_id_of(record.hashes);
  manifest.recorded_fingerprint = record.fingerprint;
  if (!record.copied) {
    manifest.source = std::move(files);
    return manifest;
  }
  manifest.source = std::make_shared<StoreSource>(std::move(store), record, std::move(files));
  lay_out_by_group(manifest.groups);
  return manifest;
}

}  // namespace caravan
