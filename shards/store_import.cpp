#include "shards/store_import.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

constexpr uint64_t kSaveBytes = 1u << 30;  // hashed at most before the cache is written
constexpr size_t kBufferBytes = 1u << 20;
// Of a table's size: keys, filters and the index come on top of the values.
constexpr uint64_t kOverheadShare = 256;

std::string absolute_path(const std::string& path) {
  std::error_code error;
  const auto found = std::filesystem::weakly_canonical(path, error);
  return error ? path : found.string();
}

Hash256 hash_of_place(const WeightGroup& group) {
  Sha256 hash;
  for (const Tensor& tensor : group.tensors)
    hash.update(uint64_t{tensor.extent.file}).update(tensor.extent.offset).update(tensor.extent.length);
  return hash.finish();
}

class Import {
 public:
  Import(ShardStore& store, const Manifest& manifest, const ImportOptions& options)
      : store_(store), manifest_(manifest), options_(options) {
    record_.manifest = manifest;
    record_.manifest.source = nullptr;
    record_.manifest.recorded_fingerprint.reset();
    record_.manifest.path = absolute_path(manifest.path);
    if (!options.name.empty()) record_.manifest.name = options.name;
    const auto* files = dynamic_cast<const FileSource*>(manifest.source.get());
    if (!files) fail(ErrorCode::kInvalidArgument, "{}: only a model of files can be imported", manifest.path);
    for (uint32_t i = 0; i < files->file_count(); ++i)
      record_.files.push_back(stamp_of(absolute_path(files->path(i))));
    record_.fingerprint = manifest.fingerprint();
    record_.hashes.resize(manifest.groups.size());
    known_.resize(manifest.groups.size());
    load_hashes();
    find_shared();
  }

  ModelRecord only_hash() {
    take(false);
    return std::move(record_);
  }

  ImportResult run() {
    check_name();
    take(options_.copy);
    finish_record();
    store_.put_model(record_);
    for (ModelRecord& other : outdated_) {
      store_.erase_model(other);
      result_.changed = change_of(other.files);
      result_.earlier = std::move(other);
    }
    if (mends_) sweep();
    result_.record = std::move(record_);
    return std::move(result_);
  }

 private:
  // All of it: the damaged bytes are of no use to anybody. The model is there, whatever comes of it.
  void sweep() {
    try {
      store_.sweep(ShardStore::Sweep::kAll);
    } catch (const Error& error) {
      log_warning("damaged_bytes_not_removed reason=\"{}\"", error.message());
    }
  }

  // What is known of the files is kept, whatever happens.
  void take(bool with_bytes) {
    try {
      if (with_bytes)
        copy();
      else
        for (size_t i = 0; i < manifest_.groups.size(); ++i) hash(i);
      save_hashes();
    } catch (const Error&) {
      save_after_failure();
      throw;
    }
    require_unchanged(record_.files);
  }
  void check_name() {
    for (const ModelRecord& other : store_.models())
      if (other.name() != record_.name() || other.fingerprint == record_.fingerprint)
        continue;
      else if (is_outdated(other))
        outdated_.push_back(other);
      else
        fail(ErrorCode::kInvalidArgument,
             "another model ({}) has the name {}; give this one another with --name, or remove that one",
             other.manifest.path, other.name());
  }

  // Whether it speaks of this file as it was before somebody wrote to it, so that nobody can run it.
  bool is_outdated(const ModelRecord& other) const {
    return !other.copied && other.name() == record_.name() && other.manifest.path == record_.manifest.path &&
           !change_of(other.files).empty();
  }

  // How the files are not what they were; empty when they are.
  static std::string change_of(const std::vector<FileStamp>& files) {
    try {
      require_unchanged(files);
      return "";
    } catch (const Error& error) {
      return error.message();
    }
  }

  void check_cancelled() const {
    if (options_.cancelled && options_.cancelled())
      fail(ErrorCode::kCancelled, "{}: the import was interrupted; it can be resumed", manifest_.path);
  }

  // Hashing and copying are each half of the way of a byte that is copied.
  void advance(uint64_t bytes, bool whole) {
    halves_ += whole ? 2 * bytes : bytes;
    if (options_.advance) options_.advance(halves_ / 2);
    halves_ %= 2;
  }

  void load_hashes() {
    const auto cached = store_.hashes_of(record_.manifest.path);
    if (!cached || cached->files != record_.files) return;
    const std::map<Hash256, Hash256> found(cached->groups.begin(), cached->groups.end());
    for (size_t i = 0; i < manifest_.groups.size(); ++i) {
      const auto at = found.find(hash_of_place(manifest_.groups[i]));
      if (at == found.end()) continue;
      record_.hashes[i] = at->second;
      known_[i] = true;
    }
  }

  void save_hashes() {
    HashRecord cache;
    cache.files = record_.files;
    for (size_t i = 0; i < manifest_.groups.size(); ++i)
      if (known_[i]) cache.groups.emplace_back(hash_of_place(manifest_.groups[i]), record_.hashes[i]);
    if (unsaved_bytes_ > 0) store_.put_hashes(record_.manifest.path, cache);
    unsaved_bytes_ = 0;
  }

  // The import fails for another reason; the cache must not hide it.
  void save_after_failure() {
    try {
      save_hashes();
    } catch (const Error& error) {
      log_warning("{}", error.message());
    }
  }

  void hash(size_t i) {
    const WeightGroup& group = manifest_.groups[i];
    const uint64_t bytes = group.bytes().count;
    if (known_[i]) return advance(bytes, !options_.copy);  // hashed by an earlier import
    Sha256 hash;
    std::vector<std::byte> buffer(std::min<uint64_t>(kBufferBytes, bytes));
    for (uint64_t offset = 0; offset < bytes;) {
      check_cancelled();
      const auto part = std::span(buffer).first(std::min<uint64_t>(buffer.size(), bytes - offset));
      read_content(*manifest_.source, group, offset, part);
      hash.update(part);
      offset += part.size();
      advance(part.size(), !options_.copy);
    }
    record_.hashes[i] = hash.finish();
    known_[i] = true;
    result_.hashed_bytes += bytes;
    unsaved_bytes_ += bytes;
    if (unsaved_bytes_ >= kSaveBytes) save_hashes();
  }

  // Tensors that lie where an earlier group has one (a tied output matrix).
  void find_shared() {
    struct At {
      size_t group;
      uint64_t offset;
    };
    std::map<std::tuple<uint32_t, uint64_t, uint64_t>, At> earlier;
    shared_.resize(manifest_.groups.size());
    for (size_t i = 0; i < manifest_.groups.size(); ++i) {
      std::map<std::tuple<uint32_t, uint64_t, uint64_t>, At> own;
      uint64_t offset = 0;
      for (const Tensor& tensor : manifest_.groups[i].tensors) {
        const Extent& extent = tensor.extent;
        const std::tuple key(extent.file, extent.offset, extent.length);
        if (const auto found = earlier.find(key); found != earlier.end())
          shared_[i].push_back({offset, extent.length, found->second.group, found->second.offset});
        else
          own.emplace(key, At{i, offset});
        offset += extent.length;
      }
      if (shared_[i].empty()) earlier.merge(own);
    }
  }

  // What copying would add, by what is known of the hashes so far.
  uint64_t needed_bytes() const {
    std::set<Hash256> counted;
    uint64_t needed = 0;
    for (size_t i = 0; i < manifest_.groups.size(); ++i) {
      const Hash256& hash = record_.hashes[i];
      const bool there = store_.contains(hash) && !store_.is_damaged(hash);
      if (known_[i] && (there || !counted.insert(hash).second)) continue;
      needed += manifest_.groups[i].bytes().count;
      for (const Shared& piece : shared_[i]) needed -= piece.length;
    }
    return needed + needed / kOverheadShare;
  }

  bool fits(uint64_t needed) const {
    if (needed == 0) return true;  // whatever the store has by now
    return needed <= options_.free.value_or(UINT64_MAX) &&
           (!options_.limit || store_.bytes().count + needed <= *options_.limit);
  }

  void require_room() const {
    const uint64_t needed = needed_bytes();
    if (fits(needed)) return;
    if (needed > options_.free.value_or(UINT64_MAX))
      fail(ErrorCode::kOutOfMemory,
           "{}: {} would be copied, and the disk of {} has {} left for it. Free some of it, or name another "
           "folder with --state DIR; without --copy nothing is copied",
           manifest_.path, to_string(Bytes{needed}), store_.name(), to_string(Bytes{*options_.free}));
    fail(ErrorCode::kOutOfMemory,
         "{}: {} would be copied; {} has {} of the {} that --disk allows. Remove a model with caravan rm, or "
         "allow more",
         manifest_.path, to_string(Bytes{needed}), store_.name(), to_string(store_.bytes()),
         to_string(Bytes{*options_.limit}));
  }

  // A group is copied right after it was hashed, while the page cache has it; when room is short, all hashes
  // come first, because groups that are there already cost nothing.
  void copy() {
    if (!fits(needed_bytes())) {
      for (size_t i = 0; i < manifest_.groups.size(); ++i) hash(i);
      require_room();
      hashed_first_ = true;
    }
    ShardStore::Writer writer(store_);
    for (size_t i = 0; i < manifest_.groups.size(); ++i) {
      const WeightGroup& group = manifest_.groups[i];
      if (!hashed_first_) hash(i);
      if (writer.has(record_.hashes[i])) {
        advance(group.bytes().count, false);
        continue;
      }
      mends_ = mends_ || store_.is_damaged(record_.hashes[i]);
      add(writer, i);
    }
    writer.flush();
  }

  void add(ShardStore::Writer& writer, size_t i) {
    const WeightGroup& group = manifest_.groups[i];
    std::vector<SharedPiece> pieces;
    for (const Shared& piece : shared_[i])
      pieces.push_back({piece.offset, piece.length, record_.hashes[piece.group], piece.group_offset});
    const auto content = [&](uint64_t offset, std::span<std::byte> out) {
      check_cancelled();
      read_content(*manifest_.source, group, offset, out);
    };
    try {
      result_.copied_bytes += writer.add(record_.hashes[i], group.bytes().count, std::move(pieces), content,
                                         [&](uint64_t bytes) { advance(bytes, false); });
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kMalformed) throw;
      known_[i] = false;
      unsaved_bytes_ = std::max<uint64_t>(unsaved_bytes_, 1);
      fail(ErrorCode::kRefused, "{}: {} changed while it was imported ({})", manifest_.path,
           to_string(group.id), error.message());
    }
  }

  // A model of the same fingerprint with other weights is not written over.
  void finish_record() {
    record_.copied = options_.copy;
    for (ModelRecord& other : store_.models()) {
      if (other.fingerprint != record_.fingerprint) continue;
      if (other.hashes != record_.hashes && !is_outdated(other))
        fail(ErrorCode::kInvalidArgument,
             "{} has the fingerprint of {} and other weights; remove that one first", manifest_.path,
             other.name());
      if (other.name() == record_.name())
        go_on_from(std::move(other));
      else
        result_.others.push_back(std::move(other));
    }
  }

  // Copies stay copies, and files that somebody counts on are not exchanged for others.
  void go_on_from(ModelRecord earlier) {
    const bool copied = record_.copied || earlier.copied;
    result_.changed = change_of(earlier.files);
    if (result_.changed.empty()) record_ = earlier;
    record_.copied = copied;
    result_.earlier = std::move(earlier);
  }

  struct Shared {
    uint64_t offset;
    uint64_t length;
    size_t group;  // an earlier one
    uint64_t group_offset;
  };

  ShardStore& store_;
  const Manifest& manifest_;
  const ImportOptions& options_;
  ModelRecord record_;
  ImportResult result_;
  std::vector<ModelRecord> outdated_;  // of this name, and of another fingerprint
  std::vector<bool> known_;            // hashes that are there
  std::vector<std::vector<Shared>> shared_;
  uint64_t halves_ = 0;
  uint64_t unsaved_bytes_ = 0;
  bool hashed_first_ = false;
  bool mends_ = false;  // what the store has of some groups is damaged
};

}  // namespace

ImportResult import_model(ShardStore& store, const Manifest& manifest, const ImportOptions& options) {
  if (options.name.size() > limits::kMaxNameBytes || options.name.find('/') != std::string::npos)
    fail(ErrorCode::kInvalidArgument, "\"{}\" is no name: at most {} bytes, and no /", options.name,
         limits::kMaxNameBytes);
  return Import(store, manifest, options).run();
}

ModelRecord hash_model(ShardStore& store, const Manifest& manifest, const ImportOptions& options) {
  if (!dynamic_cast<const StoreSource*>(manifest.source.get()))
    return Import(store, manifest, options).only_hash();
  const Hash256 fingerprint = manifest.fingerprint();
  for (ModelRecord& record : store.models())
    if (record.copied && record.fingerprint == fingerprint) return std::move(record);
  fail(ErrorCode::kNotFound, "{}: it is not imported any more", manifest.name);
}

uint64_t content_bytes(const Manifest& manifest) {
  uint64_t sum = 0;
  for (const WeightGroup& group : manifest.groups) sum += group.bytes().count;
  return sum;
}

}  // namespace caravan
