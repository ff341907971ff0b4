#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace caravan {

// Which KV blocks lie in frames of RAM and which on disk, what is written next and which frame gives way: the
// state machine under KvCache. It moves nothing itself; one thread at a time.
//
// A block on disk has a serial, new with each writing. Steps visit all blocks of their sequences, in order
// and again and again, so a fixed part of a long sequence stays: who was used longest ago gives way first
// (idle sequences), and among those used by the same step the one that lies last in its sequence, which is
// the one that was filled last.
class KvResidency {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  // Of serials in the archive, where blocks stay when nobody here needs them any more.
  static constexpr uint64_t kArchived = uint64_t{1} << 63;
  // Of serials of copies from there. Those of each kind are given one after the other.
  static constexpr uint64_t kCopied = uint64_t{1} << 62;
  struct Write {
    uint64_t serial = 0;
    uint32_t block = 0;
    uint32_t frame = 0;
  };
  // From the archive to where blocks are spilled.
  struct Copy {
    uint64_t serial = 0, archived = 0;
  };

  explicit KvResidency(uint32_t frames);
  // Another number of frames, at least those in use; returns it.
  uint32_t set_frames(uint32_t frames);

  // A block comes into use: without content, without a frame.
  void add(uint32_t block);
  // Out of use. Its frame is free at once, or when its write is done. It has no pins.
  void drop(uint32_t block);

  void start_step() { ++step_; }
  // The step under way reads it, as the block `index` of its sequence.
  void use(uint32_t block, uint32_t index);

  // A frame for a block that has none: a free one, or that of a block on disk that gives way. kNone: there is
  // none now. With content on disk the block is then loading until loaded() or lost(). Pinned by the caller
  // before anything else takes a frame.
  uint32_t take_frame(uint32_t block);
  // The same, but only from blocks that no step has used for `idle_steps`.
  uint32_t take_idle_frame(uint32_t block, uint64_t idle_steps);
  // Blocks in frames that one of the last `steps` used.
  uint32_t used_lately(uint64_t steps) const;
  // Blocks on disk that no step has used for `idle_steps` give their frames up, down to so many in use, those
  // first that give way first.
  void give_up_idle(uint32_t frames, uint64_t idle_steps);
  void loaded(uint32_t block);
  // Gives the frame back, of a block that is loading or empty.
  void lost(uint32_t block);
  void pin(uint32_t block) { ++blocks_[block].pins; }
  void unpin(uint32_t block);

  // The content is about to change: what lies on disk is of no use any more. It has a frame and is not being
  // written.
  void change(uint32_t block);
  // A full block is immutable until it is changed again.
  void set_full(uint32_t block, bool full) { blocks_[block].full = full; }

  // The full block is to be archived; where it gives way before, that is its writing, too.
  void wish(uint32_t block);
  // It is in the archive already, under the serial that is returned; one without content has it from there.
  uint64_t adopt(uint32_t block);
  // Blocks to be archived, in the order of the wishes, so many at most, whatever else is being written. Each
  // has to be answered by written(); one that is refused is not wished for until wish_again().
  std::vector<Write> start_archiving(size_t most);

  // Blocks in frames that no step has used for `idle_steps` do without their copies in the archive: garbage.
  // Returns how many.
  size_t let_go(uint64_t idle_steps);
  // Blocks without frames that the archive alone has and that no step has used for `idle_steps`, so many at
  // most, ends of sequences first: they are to do without it, too. Each has to be answered by copied(), after
  // which what the archive has is garbage; until then, and if it failed, nothing changes.
  std::vector<Copy> start_copies(size_t most, uint64_t idle_steps);
  void copied(uint64_t serial, bool worked);
  // Blocks in frames that were refused, or were let go and have been used since, are wished for once more if
  // one of the last `steps` used them, in the places among the wishes that they had: what comes first in a
  // sequence comes first again.
  void wish_again(uint64_t steps);

  // What to write so that `wanted` frames are free or can be had without waiting, counting those being
  // written; so many at most. `partial`: also of blocks that are not full. Each has to be answered by
  // written().
  std::vector<Write> start_writes(uint32_t wanted, bool partial, size_t most = SIZE_MAX);
  // Of those that no step has used for `idle_steps`, so many at most: so that they can give their frames up.
  std::vector<Write> start_idle_writes(size_t most, uint64_t idle_steps);
  // Returns the block; kNone when it was dropped meanwhile.
  uint32_t written(uint64_t serial, bool worked);
  // Blocks that lie where blocks are spilled, or are on their way there.
  uint32_t spilled() const;
  // What lies on disk for nothing.
  std::vector<uint64_t> take_garbage() { return std::exchange(garbage_, {}); }

  bool in_use(uint32_t block) const { return block < blocks_.size() && blocks_[block].used; }
  // Its content can be read from its frame.
  bool resident(uint32_t block) const { return blocks_[block].frame != kNone && !blocks_[block].loading; }
  bool empty(uint32_t block) const { return !blocks_[block].content; }
  bool writing(uint32_t block) const { return blocks_[block].writing != 0; }
  uint32_t pins(uint32_t block) const { return blocks_[block].pins; }
  uint32_t frame(uint32_t block) const { return blocks_[block].frame; }
  // 0: not on disk.
  uint64_t serial(uint32_t block) const { return blocks_[block].stored; }
  uint32_t frames() const { return limit_; }
  uint32_t frames_free() const { return limit_ - frames_used(); }
  // Frames that no block has, of those that were used before.
  std::span<const uint32_t> frames_unused() const { return free_; }
  uint32_t writes_under_way() const { return static_cast<uint32_t>(writes_.size()); }
  // Raised whenever a block gains or loses a frame.
  uint64_t version() const { return version_; }

 private:
  struct Block {
    bool used = false, content = false, full = false, loading = false;
    uint32_t frame = kNone;
    uint32_t pins = 0;
    uint32_t index = 0;
    uint64_t stored = 0, writing = 0, copying = 0;  // serials
    uint64_t last_use = 0;                          // step
    uint64_t wish = 0;                              // its place among wishes_, now or before; 0: none
    bool wished = false;                            // it is there
    std::optional<uint64_t> let_go;                 // its last use, when it was
  };
  uint32_t frames_used() const { return static_cast<uint32_t>(owner_.size() - free_.size()); }
  bool may_give_way(const Block& block) const;
  bool gives_way_before(const Block& a, const Block& b) const;
  uint32_t find_victim() const;
  uint32_t give(uint32_t block, uint32_t frame);
  void free_frame(Block& block);
  void drop_wish(Block& block);
  void drop_copy(Block& block);
  static bool can_write(const Block& block);
  std::vector<Write> write_first(std::vector<uint32_t> dirty, size_t most);
  Write start_write(uint32_t block);

  uint32_t limit_;  // of frames
  std::vector<Block> blocks_;
  std::vector<uint32_t> owner_;  // block of each frame that was used so far, or kNone
  std::vector<uint32_t> free_;
  std::map<uint64_t, Write> writes_;     // under way; `block` is kNone when it was dropped meanwhile
  std::map<uint64_t, uint32_t> copies_;  // under way, as writes_
  std::vector<uint64_t> garbage_;
  std::map<uint64_t, uint32_t> wishes_;  // blocks to be archived
  uint64_t last_wish_ = 0;
  uint64_t last_serial_ = 0, last_archived_ = kArchived, last_copied_ = kCopied;
  uint64_t step_ = 1;
  uint64_t version_ = 1;
};

}  // namespace caravan
