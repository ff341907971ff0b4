#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bulk_store.h"
#include "base/hash.h"
#include "base/key_value.h"
#include "base/limits.h"
#include "shards/chunk_slots.h"
#include "shards/store_record.h"

namespace caravan {

// A run of a group's content that the store holds already, as part of another group (tied matrices).
struct SharedPiece {
  uint64_t offset = 0;  // in the group
  uint64_t length = 0;
  Hash256 other;
  uint64_t other_offset = 0;
};

struct ShardStoreOptions {
  std::string name = "the shard store";  // for messages
  bool writable = true;
  uint64_t table_bytes = 64u << 20;  // a segment is closed when it has so many
};

// Weight groups by the SHA-256 of their content, and the records of the models that use them. A group's
// content is its tensors' bytes in the manifest's order. It lies in chunks of limits::kShardChunkBytes, each
// with an XXH3 that is looked at on every read; several groups are written as one table (a segment), which is
// acknowledged as a whole. What a crash left half done is removed when the store is opened for writing.
// Any thread may read; one thread at a time writes (the lock guards the index, which both use).
class ShardStore {
 public:
  // Column families of a state folder's store (store/rocks_store.h).
  static constexpr const char* kRecordsFamily = "shards";
  static constexpr const char* kBulkFamily = "bulk.shards";

  // Throws kMalformed for a damaged record of a segment.
  ShardStore(std::shared_ptr<KeyValue> records, std::shared_ptr<BulkStore> bulk, ShardStoreOptions options);
  ShardStore(const ShardStore&) = delete;
  ShardStore& operator=(const ShardStore&) = delete;

  const std::string& name() const { return options_.name; }
  bool contains(const Hash256& group) const { return group_bytes(group).has_value(); }
  std::optional<uint64_t> group_bytes(const Hash256& group) const;
  // Fills `out` from the group's content. Throws kNotFound (naming the group), kMalformed naming store, group
  // and chunk when a chunk's checksum is wrong or it is missing, kIo; what `out` then holds is not defined.
  void read(const Hash256& group, uint64_t offset, std::span<std::byte> out) const;
  // Whether somebody found it to be damaged, who could not mend it: whoever has its content writes it again.
  bool is_damaged(const Hash256& group) const;
  void note_damage(const Hash256& group, bool damaged);
  // Bytes of all segments on disk.
  Bytes bytes() const { return bulk_->bytes(); }
  // Of them those that none of the groups `used` needs, as far as it is known without reading.
  uint64_t unused_bytes(std::span<const Hash256> used) const;

  // Reads a part of a group's content, from wherever it comes.
  using Content = std::function<void(uint64_t offset, std::span<std::byte> out)>;
  class Writer;
  // Chunks, with the right checksums, of what writers that keep had begun and never acknowledged: each
  // group's in their order, as far as no earlier call has used them. What was used is gone. Throws kIo, and
  // what `use` throws. The thread that writes.
  using UseSalvaged =
      std::function<void(const Hash256& group, uint64_t offset, std::span<const std::byte> bytes)>;
  void salvage(const UseSalvaged& use);
  // Of such a writer that was killed: the last chunks that it put together, in its file. Some are in tables.
  using UseChunk = std::function<void(const Hash256& group, uint64_t offset, std::span<const std::byte> bytes,
                                      size_t slot)>;
  static void salvage_chunks(const std::string& path, const UseChunk& use);

  // Models, sorted by name.
  std::vector<ModelRecord> models() const;
  // By name, or by eight or more digits of the fingerprint. Throws kInvalidArgument naming them when several
  // names fit.
  std::optional<ModelRecord> find_model(std::string_view name_or_fingerprint) const;
  // Replaces the record of the same fingerprint and name: the same content may be known by several names,
  // each with files of its own. Throws kLimit, kIo.
  void put_model(const ModelRecord& record);
  void erase_model(const ModelRecord& record);
  enum class Sweep {
    kWorthwhile,  // what little of a segment is dead stays: the rest need not be written again
    kAll,
  };
  // Removes groups that no copied model uses, and gives their space back. Returns how many bytes that was.
  uint64_t sweep(Sweep how = Sweep::kWorthwhile);

  // Models of which the store holds some groups, fetched from a head: their records are content like groups,
  // and these are the hashes. What they name is not swept.
  std::vector<Hash256> partial_models() const;
  void put_partial(const Hash256& record);
  void erase_partial(const Hash256& record);
  // Throws as read; kMalformed, kLimit for content that is no record.
  ModelRecord read_record(const Hash256& record) const;

  std::optional<HashRecord> hashes_of(std::string_view path) const;
  void put_hashes(std::string_view path, const HashRecord& record);
  void erase_hashes(std::string_view path);

 private:
  struct Place {
    uint64_t segment = 0;
    uint32_t ordinal = 0;  // in the segment
    uint64_t bytes = 0;
    std::vector<SharedPiece> shared;  // by offset; what lies between them is the group's own
    uint64_t own_bytes() const;
  };
  struct Segment {
    uint64_t own_bytes = 0;  // of all groups that were written into it
    std::vector<std::pair<Hash256, Place>> groups;
  };

  void load();
  Segment read_segment(uint64_t number, std::string_view bytes) const;
  std::string encode_segment(const Segment& segment) const;
  std::optional<Place> find(const Hash256& group) const;
  void read_own(const Hash256& group, const Place& place, uint64_t offset, std::span<std::byte> out) const;
  void read_at(const Hash256& group, const Place& place, uint64_t offset, std::span<std::byte> out) const;
  void read_chunk(const Hash256& group, const Place& place, uint32_t chunk, uint64_t skip,
                  std::span<std::byte> out) const;
  std::vector<Hash256> with_shared(std::span<const Hash256> groups) const;
  std::vector<Hash256> live_groups() const;
  std::string key_of(const ModelRecord& record) const;
  void rewrite(uint64_t number, const std::vector<Hash256>& groups);
  void erase_segment(uint64_t number);
  void acknowledge(uint64_t number, Segment segment);

  const std::shared_ptr<KeyValue> records_;
  const std::shared_ptr<BulkStore> bulk_;
  const ShardStoreOptions options_;
  // index_, damaged_ and segments_: read by movers while an import adds to them.
  mutable std::shared_mutex mutex_;
  std::map<Hash256, Place> index_;
  std::set<Hash256> damaged_;
  std::map<uint64_t, Segment> segments_;
  uint64_t next_segment_ = 0;
};

// Adds groups; what was added is acknowledged by flush(), or by itself some time after a table is full: its
// way to the disk is waited for on a thread of its own, while the next one is written. One thread. Destroyed
// without flush(), it leaves nothing of the last table, or keeps it: whether it was given up or the process
// killed, each byte that was appended can be salvaged, but of groups that do not fill a block of a table.
// What a full table met on its way is thrown by the next call that fills one, or by flush(); none of its
// groups is then there.
class ShardStore::Writer {
 public:
  // `keep_in`: a file for the chunks that no table has taken to the disk yet; empty: it does not keep.
  explicit Writer(ShardStore& store, const std::string& keep_in = "");
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Reads the content once, front to back, and writes it but for what `shared` (ascending, not overlapping)
  // covers and the store can read elsewhere; nothing when it has() the group. Returns the bytes written.
  // `advance` gets bytes as they are read. Throws kMalformed when the content does not have that hash (the
  // group is then not added; others are not touched), kIo, and what `content` throws.
  uint64_t add(const Hash256& group, uint64_t bytes, std::vector<SharedPiece> shared, const Content& content,
               const std::function<void(uint64_t bytes)>& advance = nullptr);
  // The same for a group whose stored bytes are damaged: the next flush puts these in their place.
  void replace(const Hash256& group, uint64_t bytes, const Content& content);
  // The same for content that comes by and by: all its bytes in their order, then end(), which throws
  // kMalformed. Any other group, and flush(), give up one that was begun.
  void begin(const Hash256& group, uint64_t bytes);
  void append(std::span<const std::byte> bytes);
  uint64_t end();
  // How many bytes of it were appended, if it was begun and neither ended nor given up.
  std::optional<uint64_t> passed(const Hash256& group) const;
  bool is_passing() const { return adding_ != nullptr; }
  // Whether the group is there, undamaged as far as is known, or will be with the next flush.
  bool has(const Hash256& group) const;
  void flush();

 private:
  friend class ShardStore;
  class Adding;
  // A full table on its way to the disk.
  struct Commit {
    std::unique_ptr<BulkStore::Batch> batch;
    uint64_t number = 0;
    Segment segment;
    std::future<void> done;
  };
  void begin_segment();
  void begin_commit();
  void end_commit();
  // In what is not acknowledged yet.
  const Place* find_pending(const Hash256& group) const;
  bool holds(const SharedPiece& piece) const;
  // Whether or not the group is there. Returns its own bytes.
  uint64_t write(const Hash256& group, uint64_t bytes, std::vector<SharedPiece> shared,
                 const Content& content, const std::function<void(uint64_t bytes)>& advance);
  void start(const Hash256& group, uint64_t bytes, std::vector<SharedPiece> shared);
  void give_up();

  ShardStore& store_;
  const BulkStore::Uncommitted then_;
  ChunkSlots slots_;
  std::unique_ptr<BulkStore::Batch> batch_;
  uint64_t number_ = 0;
  uint32_t next_ordinal_ = 0;
  Segment segment_;
  std::unique_ptr<Adding> adding_;  // into the batch
  std::unique_ptr<Commit> commit_;
};

}  // namespace caravan
