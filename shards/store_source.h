#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/source.h"
#include "shards/shard_store.h"
#include "shards/store_record.h"

namespace caravan {

// The files that a record speaks of, as they are now. Throws kNotFound, kIo naming the file.
FileStamp stamp_of(const std::string& path);
// Throws kNotFound or kRefused naming the first file that is gone or not as it was, and how.
void require_unchanged(const std::vector<FileStamp>& files);

// A part of a group's content (its tensors one after the other) from where the tensors lie.
void read_content(const Source& source, const WeightGroup& group, uint64_t offset, std::span<std::byte> out);

// A group as it lies in the files of a model.
struct GroupInFiles {
  std::shared_ptr<const Source> files;
  WeightGroup group;
  std::string path() const;  // of its first tensor
  void read(uint64_t offset, std::span<std::byte> out) const { read_content(*files, group, offset, out); }
};
// Where a group's content is to be had beside the store: in the files of whatever models it knows that have
// it, of those that are as they were when they were imported. None when the records cannot be read.
std::vector<GroupInFiles> find_in_files(const ShardStore& store, const Hash256& group, uint64_t bytes);

// A model's groups in the store: group i of the record is file i, its tensors one after the other. Every
// chunk that a read touches is checked. A group that is damaged, missing or not to be read is read from the
// original files instead, while these are as they were, or from those of another model that has it: from the
// first place that has the right hash, with one warning. Otherwise read throws what ShardStore::read does.
// Any thread.
class StoreSource final : public Source {
 public:
  // `elsewhere`: the original files, or null.
  StoreSource(std::shared_ptr<const ShardStore> store, const ModelRecord& record,
              std::shared_ptr<const Source> elsewhere);
  std::string describe() const override;
  uint32_t file_count() const override { return static_cast<uint32_t>(groups_.size()); }
  uint64_t file_bytes(uint32_t file) const override;
  void read(uint32_t file, uint64_t offset, std::span<std::byte> out) const override;
  std::span<const std::byte> mapped(Extent) const override { return {}; }

 private:
  class CheckedGroup;
  // Null when there is no place.
  std::shared_ptr<const CheckedGroup> find_elsewhere(uint32_t file, const Error& damage) const;

  const std::shared_ptr<const ShardStore> store_;
  const std::string model_;
  const std::vector<WeightGroup> groups_;  // with extents in `elsewhere_`
  const std::vector<Hash256> hashes_;
  const std::shared_ptr<const Source> elsewhere_;
  const bool fetched_;        // from a head: there never were files
  mutable std::mutex mutex_;  // found_: movers read at the same time
  mutable std::map<uint32_t, std::shared_ptr<const CheckedGroup>> found_;  // of damaged groups, told of
};

// The manifest of an imported model: over its files while these are as they were, or over the store when the
// groups were copied. Throws kRefused or kNotFound naming the file that changed or is gone.
Manifest open_record(std::shared_ptr<const ShardStore> store, const ModelRecord& record);

}  // namespace caravan
