#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/budget.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "cache/kv_frames.h"
#include "cache/kv_shape.h"
#include "cache/kv_stager.h"
#include "compute/backend.h"
#include "compute/device.h"

namespace caravan {

// The KV blocks of a stage's sequences. A block holds kKvBlockPositions positions of every layer of the
// stage; full blocks are shared by forks. Blocks lie in frames of RAM; with a store to spill to there may be
// fewer frames than blocks, the others lie on disk, and steps bring back what they need. With an archive,
// full blocks whose tags are known are written there in the background, and sequences can begin with what it
// has. Bytes are reserved when the cache is built and allocated as they are used. The compute thread owns it.
//
// A step over sequences that are in use: begin_step; add_rows for each run of rows; start_reading; the
// layers, with reach() for the parts that are not whole in RAM; end_step. Every other call ends an unfinished
// step, of which nothing is archived. With shared frames the border to their other user moves in calls that
// need a frame, and in begin_step.
class KvCache {
 public:
  // The least number of frames: one that fills, one that is being written or read.
  static constexpr uint32_t kLeastFrames = 2;

  // `blocks`: how many may be in use. Throws kOutOfMemory when the budget has no room for them, or for the
  // spill's frames and staging_bytes. Where frames are shared, for the least of them; more are reserved when
  // they are needed.
  KvCache(Device& device, Budget& budget, std::vector<KvLayerShape> layers, KvType type, uint32_t blocks,
          const std::optional<KvSpill>& spill = std::nullopt,
          const std::optional<KvSharing>& sharing = std::nullopt);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  static Bytes block_bytes(const std::vector<KvLayerShape>& layers, KvType type);
  // What a cache that spills takes beside its frames: four softmax pieces of the largest layer.
  static Bytes staging_bytes(const std::vector<KvLayerShape>& layers, KvType type);

  // Throws kInvalidArgument for an id that is open already, kLimit over limits::kMaxSequences.
  void open(SequenceId sequence);
  // Opens a sequence with the first `positions`, whole blocks, as they are in the archive; a tag for each.
  // They are read as steps reach them. What the archive lacks spoils the sequence. Throws as open() and
  // extend(); kInvalidArgument when the tags do not fit.
  void load(SequenceId sequence, uint32_t positions, std::span<const BlockTag> tags);
  // `to` starts with the first `positions` positions of `from`; its partial block is copied. Throws kIo when
  // the disk refuses; `to` is then not open.
  void fork(SequenceId from, SequenceId to, uint32_t positions);
  // Makes room for positions up to `positions` (exclusive). Throws kOutOfMemory when no block is free.
  void extend(SequenceId sequence, uint32_t positions);
  // The tags of the blocks that rows of `count` positions from `first` complete, in order, or none: they are
  // not archived then. Before those rows are run.
  void tag(SequenceId sequence, uint32_t first, uint32_t count, std::span<const BlockTag> tags);
  // Keeps the first `positions`. Throws kIo as fork; the sequence is then cut to its last whole block.
  void truncate(SequenceId sequence, uint32_t positions);
  void close(SequenceId sequence);
  bool is_open(SequenceId sequence) const { return sequences_.count(sequence) != 0; }
  uint32_t positions(SequenceId sequence) const;

  // The block table of a layer (index within the stage), for RowState; null where a block is not in a frame.
  // Valid until a sequence changes or a step begins or ends.
  const KvBlock* blocks(SequenceId sequence, uint32_t layer);
  uint32_t block_count() const { return block_limit_; }
  uint32_t blocks_free() const { return block_limit_ - blocks_used_; }
  size_t sequence_count() const { return sequences_.size(); }
  bool spills() const { return frames_.spills(); }
  uint32_t frame_count() const { return frames_.count(); }

  void begin_step();
  // How many of the rows, for which extend made room, the step can take: their blocks are in frames then. 0:
  // none any more in this step; the first always has some. Throws kIo or kMalformed as KvFrames::hold, or
  // what spoil() was told; the step goes on without these rows.
  uint32_t add_rows(SequenceId sequence, uint32_t first_position, uint32_t count);
  // No rows are added from now on.
  void start_reading();
  // Parts are the calls of add_rows that took rows, in order.
  bool all_resident(size_t part) const { return !stager_ || stager_->all_resident(part); }
  uint32_t first_piece(size_t part, uint32_t layer) const { return stager_->first_piece(part, layer); }
  // As KvStager::reach.
  KvStager::Reach reach(size_t part, uint32_t layer, uint32_t piece, uint32_t most);
  void end_step() { finish_step(true); }
  // How many blocks of these layers the archive takes, and how many it is to take: KvArchive::keep_within.
  ArchiveRoom archive_room() const { return frames_.archive_room(); }
  Bytes least_archive() const { return frames_.least_archive(); }
  void keep_archive_within(const ArchiveRoom& room) { frames_.keep_archive_within(room); }
  // Between steps: full blocks go on to the archive. False: none waits, for the time being.
  bool archive_on() { return !in_step_ && frames_.archive_on(); }
  // For a process that ends: full blocks whose archiving is under way or waits get there, or are refused, in
  // so much time. Beyond it the disk is waited for only where it has taken a batch.
  void finish_archiving(Duration most);
  // The sequence lost state: rows of it are refused with this error until it is closed.
  void spoil(SequenceId sequence, const Error& error);

 private:
  struct Sequence {
    std::vector<uint32_t> blocks;
    std::vector<BlockTag> tags;                  // of the first blocks, zeros where there is none
    std::vector<std::vector<KvBlock>> by_layer;  // [layer][block], as of `version`
    uint64_t version = 0;                        // of the frames
    uint32_t positions = 0;
    std::optional<Error> error;
  };
  struct Held {
    uint32_t block = 0;
    bool full = false;  // when the step is over
    const Sequence* sequence = nullptr;
    uint32_t place = 0;
  };
  void finish_step(bool complete);
  void archive(const Held& held);
  Sequence& find(SequenceId sequence);
  const Sequence& find(SequenceId sequence) const;
  uint32_t take_block();
  void drop_block(uint32_t index);
  void append(Sequence& sequence, uint32_t block);
  void drop_last(Sequence& sequence);
  void append_to_table(Sequence& sequence, uint32_t block) const;
  void refresh(Sequence& sequence) const;
  // A block of its own with the content of another; throws as KvFrames::hold.
  uint32_t copy_block(uint32_t from);
  // A cut inside a block that a fork shares: what is written next must not reach the other sequence.
  void make_last_block_own(Sequence& sequence);

  Device& device_;
  const std::vector<KvLayerShape> layers_;
  const KvType type_;
  const uint32_t block_limit_;
  KvFrames frames_;
  Reservation staging_;
  std::unique_ptr<KvStager> stager_;  // when there is a store or an archive
  std::vector<uint32_t> users_;       // of each block
  std::vector<uint32_t> free_;
  uint32_t blocks_used_ = 0;
  std::map<SequenceId, Sequence> sequences_;
  bool in_step_ = false;
  std::vector<Held> held_;        // by the step, to be written
  std::vector<Sequence*> parts_;  // of the step
};

}  // namespace caravan
