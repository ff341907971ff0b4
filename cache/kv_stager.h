#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "cache/kv_frames.h"
#include "compute/backend.h"

namespace caravan {

// Reads, during a step, what attention needs of blocks that are not in frames: the order of (layer, part of
// the step, softmax piece) is known for the whole step, so the reads run ahead of the use by as many pieces
// as there are slots. Where frames are to spare, blocks are read into those instead, some layers at a time
// and as far ahead as may be, and stay. The compute thread owns it.
class KvStager {
 public:
  static constexpr uint32_t kSlots = 4;
  static constexpr uint32_t kPieceBlocks = limits::kMixPiecePositions / limits::kKvBlockPositions;
  // Of the slots.
  static Bytes bytes(const std::vector<KvLayerShape>& layers, KvType type);

  KvStager(Device& device, KvFrames& frames);
  ~KvStager();
  KvStager(const KvStager&) = delete;
  KvStager& operator=(const KvStager&) = delete;

  // A part: rows of one sequence, `first_position` the least of them; its blocks stay as they are until the
  // step's end. No frame is taken between the last part and the end.
  void add_part(const std::vector<uint32_t>* blocks, uint32_t first_position, uint32_t count);
  void start();
  bool all_resident(size_t part) const { return parts_[part].missing.empty(); }
  // The first piece that the part's rows reach in this layer.
  uint32_t first_piece(size_t part, uint32_t layer) const;

  struct Reach {
    const KvBlock* blocks = nullptr;  // of the sequence; valid in the pieces, until the next call
    uint32_t last_piece = 0;
  };
  // From `piece` on, at least one and at most `most` pieces. `table` is the layer's block table of the part's
  // sequence. Calls go up by (layer, part, piece). Waits. Throws kIo or kMalformed when a block cannot be
  // read; the part is then of no use any more.
  Reach reach(size_t part, uint32_t layer, uint32_t piece, uint32_t most, const std::vector<KvBlock>& table);
  // Ends the step. Blocks that were read whole into frames are resident from now on.
  void finish();

 private:
  struct Missing {
    uint32_t place = 0;    // in the sequence
    bool to_stay = false;  // read into a frame
  };
  struct Part {
    const std::vector<uint32_t>* blocks = nullptr;
    uint32_t first_position = 0, last_position = 0;
    std::vector<Missing> missing;  // by place
    std::optional<Error> error;
  };
  struct Place {
    uint32_t layer = 0;
    size_t part = 0;
    uint32_t piece = 0;
    bool operator<(const Place& other) const {
      return std::tie(layer, part, piece) < std::tie(other.layer, other.part, other.piece);
    }
  };
  // A piece of a layer, of which something is or was to be read.
  struct Job {
    Place place;
    KvMover::Ticket ticket;  // null: an earlier layer's job reads it, too
    bool has_slot = false;
    std::vector<std::pair<uint32_t, std::byte*>> addresses;  // by place in the sequence
  };
  void find_missing(Part& part, bool& spare);
  // The next piece with something to read, as of the cursor.
  std::optional<Job> next_job();
  Job make_job(const Part& part, uint32_t first_needed);
  void read_ahead();
  std::optional<Error> wait(const Job& job);
  void drop_front();
  KvBlock as_block(std::byte* address, uint32_t layer) const;

  KvFrames& frames_;
  uint64_t slot_bytes_ = 0;
  DeviceBuffer slots_;
  uint64_t slots_taken_ = 0;  // ever
  size_t slots_in_use_ = 0;
  std::vector<Part> parts_;
  std::deque<Job> jobs_;
  // What was read last, or is being read next.
  uint32_t cursor_layer_ = 0;
  size_t cursor_part_ = 0, cursor_missing_ = 0;
  std::vector<KvBlock> table_;
  std::optional<std::pair<uint32_t, size_t>> table_of_;  // layer and part
};

}  // namespace caravan
