#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/budget.h"
#include "base/bulk_store.h"
#include "base/clock.h"
#include "base/error.h"
#include "cache/kv_archive.h"
#include "cache/kv_border.h"
#include "cache/kv_mover.h"
#include "cache/kv_residency.h"
#include "cache/kv_shape.h"
#include "compute/device.h"

namespace caravan {

// Where blocks go that RAM does not hold, and where full ones are kept beyond their sequences.
struct KvSpill {
  BulkStore* store = nullptr;  // empty; of this cache alone; null: there are as many frames as blocks
  const Clock* clock = nullptr;
  KvCounters* counters = nullptr;  // outlives the cache, as all of it
  std::string name;                // of the store, for errors
  uint32_t frames = 0;             // blocks in RAM
  uint32_t first_layer = 0;        // of the model
  uint32_t readers = 4;
  KvArchive* archive = nullptr;
  Lineage lineage = {};  // of what is archived and loaded
  // The store may have so many; fewer than all: there are as many frames as blocks.
  uint32_t store_blocks = UINT32_MAX;
};

// Frames that are only there while they are needed: others use their memory meanwhile.
struct KvSharing {
  KvNeighbour* neighbour = nullptr;  // outlives the cache
  uint32_t least = 0;                // frames that are always there
};

// The memory of KV blocks: a frame for each, or fewer frames and a store behind them, or an archive, between
// which KvResidency decides and KvMover moves. The compute thread owns it. Frames lie in memory that the
// movers can write. Bytes are reserved for all frames that there are, and allocated as they are first used.
class KvFrames {
 public:
  // Layers of a block that lie together are read together up to so many bytes: a read of 64 KiB costs the
  // processor as much by itself as by its bytes.
  static constexpr uint64_t kMostRunBytes = 256u << 10;

  // Throws kOutOfMemory when the budget has no room for the frames that are there at first.
  KvFrames(Device& device, Budget& budget, std::vector<KvLayerShape> layers, KvType type, uint32_t blocks,
           const std::optional<KvSpill>& spill, const std::optional<KvSharing>& sharing);

  bool spills() const { return store_; }
  uint32_t count() const { return residency_.frames(); }
  // That there may be.
  uint32_t most() const { return border_ ? border_->most() : count(); }
  // More frames, where there may be more and the neighbour makes room. While no lease is held.
  bool grow();

  // A block comes into use, or out of use. Without a store and an archive it has a frame at once.
  void add(uint32_t block);
  void drop(uint32_t block);
  // Brings the block into a frame, from disk if need be, and pins it there. Waits. Throws kIo or kMalformed
  // when it cannot be read, or no frame becomes free because the store cannot be written; kOutOfMemory when
  // every frame is pinned.
  void hold(uint32_t block);
  // The same for a block whose content is about to change.
  void hold_to_change(uint32_t block);
  // So many blocks will be held that have no frame yet: what has to be written for that is written together.
  void expect(uint32_t blocks);
  void release(uint32_t block) { residency_.unpin(block); }
  void set_full(uint32_t block, bool full) { residency_.set_full(block, full); }
  // A full block that was computed is to be in the archive, under this tag; does nothing without one.
  void archive(uint32_t block, const KvTag& tag);
  // As KvArchive's; none and nothing without one.
  ArchiveRoom archive_room() const { return archive_ ? archive_->room(shape_) : ArchiveRoom{}; }
  // The least bound of an archive that has room for a block.
  Bytes least_archive() const { return KvArchive::least(shape_); }
  void keep_archive_within(const ArchiveRoom& room) {
    if (archive_) archive_->keep_within(shape_, room);
  }
  // Its content is in the archive; false: it is not.
  bool adopt(uint32_t block, const KvTag& tag);

  // While no lease is held. `blocks`: in use.
  void start_step(uint32_t blocks);
  void use(uint32_t block, uint32_t place) { residency_.use(block, place); }
  // For a block that the step reads from disk: a frame that is to spare, pinned, to be filled part by part,
  // and then filled or given up.
  bool take_spare(uint32_t block);
  void fill_done(uint32_t block, bool worked);
  // Takes note of what was written, and writes on: for the archive, and so that frames can be had without
  // waiting.
  void write_behind();
  // Between steps: goes on writing for the archive. False: there is nothing to write, for the time being, nor
  // is room being made for what was refused.
  bool archive_on();
  // Waits until what is on its way to the archive, or is to be, is there or was refused; for so long at most.
  void finish_archiving(Duration most);

  // Null when the block is not in a frame. `part`: the layer's keys and then its values.
  std::byte* address(uint32_t block) const;
  std::byte* part(uint32_t block, uint32_t layer) const;
  // Also while it is being filled.
  std::byte* part_in_frame(uint32_t block, uint32_t layer) const;
  bool resident(uint32_t block) const { return residency_.resident(block); }
  bool has_frame(uint32_t block) const { return residency_.frame(block) != KvResidency::kNone; }
  uint64_t serial(uint32_t block) const { return residency_.serial(block); }
  // Raised whenever an address changed that was there before.
  uint64_t version() const { return mover_ ? residency_.version() : 0; }

  const std::vector<KvLayerShape>& layers() const { return layers_; }
  KvType type() const { return type_; }
  uint64_t part_bytes(uint32_t layer) const { return part_bytes_[layer]; }
  // Of a block that comes into a frame, so many layers are read together, from this one on; 0: it comes with
  // one before it.
  uint32_t run_layers(uint32_t layer) const { return run_layers_[layer]; }
  uint64_t block_bytes() const { return block_bytes_; }
  KvMover& mover() { return *mover_; }

 private:
  void set_tag(uint32_t block, const KvTag& tag);
  void shrink(uint32_t frames);
  void take_frame(uint32_t block);
  void allocate(uint32_t block);
  // Blocks that the store may take.
  size_t store_room() const;
  void start_writes(uint32_t wanted, bool partial);
  void move(const std::vector<KvResidency::Write>& writes);
  void note_written();
  void erase_garbage();
  void start_archiving();
  void leave_archive(uint64_t crowded_steps);
  void copy_idle();

  Device& device_;
  Budget& budget_;
  const std::vector<KvLayerShape> layers_;
  const KvType type_;
  std::vector<uint64_t> part_bytes_, part_offsets_;
  std::vector<uint32_t> run_layers_;
  uint64_t block_bytes_ = 0;
  const uint32_t store_blocks_;
  const bool store_;
  KvArchive* const archive_;
  KvArchiveShape shape_;
  std::optional<KvBorder> border_;  // when frames are shared
  KvNeighbour* neighbour_ = nullptr;
  KvResidency residency_;
  Reservation reservation_;  // of the frames
  std::vector<KvTag> tags_;  // of blocks that are archived, or to be
  std::vector<DeviceBuffer> frames_;
  std::optional<Error> write_error_;  // of the last writing, unless it worked
  uint32_t ahead_ = 0;                // frames that are kept clean
  uint32_t giving_back_ = 0;          // frames that are to be clean, to be given back
  size_t archiving_ = 0;              // writes under way to the archive
  size_t copying_ = 0;                // copies under way from there
  uint64_t copy_at_ = 0;              // not before this one of steps_
  // Since what was refused was offered last: more was refused; something was taken, or made room.
  bool refused_ = false, room_changed_ = false;
  uint64_t rooms_made_ = 0;  // by the archive, as was noted last
  uint64_t steps_ = 0;
  const Clock* clock_ = nullptr;    // with a mover
  std::unique_ptr<KvMover> mover_;  // last: its threads end before what they touch
};

}  // namespace caravan
