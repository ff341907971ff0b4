#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "compute/format.h"
#include "offload/measurements.h"

namespace caravan {

// The words between the planner (offload/planner.h), the pager that carries a plan out, and those who show
// it. Pages are known by their index in PlanInput::pages, in the order in which one pass of the stage loop
// uses them; the pages of one choice (a layer's experts) stand side by side, after the page that chooses.

enum class PageUse : uint8_t {
  kWhole,   // by every pass
  kRows,    // a row of it for each token (the embedding table)
  kChosen,  // by the rows that a router sends there (an expert)
};

// Products with one format's weights within a page.
struct PageWork {
  TensorType type{};
  uint64_t bytes = 0;         // of weights, read from memory when used
  double operations_row = 0;  // of one row of activations
};

// From this many rows on, a step asks for so many chosen pages that it says little about the next one: a
// scan.
inline constexpr uint32_t kScanRows = 32;

struct PlanPage {
  uint64_t bytes = 0;        // in its source
  uint64_t arena_bytes = 0;  // that it takes when it is read; at least `bytes` (alignment of direct reads)
  // That it takes when everything is mapped: `bytes`, or less where it shares extents with another page.
  uint64_t mapped_bytes = 0;
  PageUse use = PageUse::kWhole;
  uint64_t row_bytes = 0;           // kRows: read for one token
  uint32_t choice = 0;              // kChosen: which router's (the layer)
  double uses_a_token = 1;          // kChosen: the expected share of tokens that come here
  uint32_t calls = 1;               // of the back end, each with its own small cost
  double state_bytes_position = 0;  // KV that its unit keeps for a position, read again for every later token
  double state_operations_position = 0;  // done for a row with every position before it
  uint32_t state_window = 0;             // positions that a row looks back on; 0: all
  std::vector<PageWork> work;
};

// What a peer may use.
struct Budgets {
  uint64_t ram = 0;                       // for everything
  std::optional<uint64_t> kv_ram;         // upper limit within ram
  uint32_t headroom_divisor = 32;         // ram / divisor is never used; 0: none
  std::optional<double> kv_percent = {};  // of ram, instead of kv_ram: it grows with it
  uint64_t headroom() const { return headroom_divisor ? ram / headroom_divisor : 0; }
  // The least ram that leaves `bytes` beside the headroom.
  uint64_t ram_for(uint64_t bytes) const;
  // And that lets KV have `kv` bytes of them. UINT64_MAX: no ram does.
  uint64_t ram_for(uint64_t bytes, uint64_t kv) const;
  // UINT64_MAX: none.
  uint64_t kv_limit() const;
  static Budgets unlimited() { return {UINT64_MAX, {}, 0}; }
};

struct PlanInput {
  std::vector<PlanPage> pages;
  Measurements measurements;
  KernelRates attention;  // those of the measurements that fit how KV is kept
  Budgets budgets;
  uint32_t threads = 1;
  uint32_t context = 0;        // positions of one sequence
  uint32_t sequences = 1;      // that run at once
  uint32_t prompt_rows = 512;  // of one prompt step
  uint64_t scratch_bytes = 0;  // taken whatever the plan is
  uint64_t wire_bytes = 0;     // likewise
  // KV is kept in blocks: positions of one, and its bytes over all layers here.
  uint32_t block_positions = 32;
  uint64_t block_bytes = 0;
  uint64_t staging_bytes = 0;    // beside the blocks in RAM, when not all of them are there
  bool staging_always = false;   // also when they are
  bool may_spill = true;         // KV that RAM does not hold may lie on disk
  bool may_map = true;           // weights lie in files, not in the store
  double elsewhere_seconds = 0;  // of a pass that other peers take; pages may be read meanwhile
};

// KV blocks that are always in memory: one that fills, one that attention reads.
inline constexpr uint32_t kLeastKvBlocks = 2;

enum class Placement : uint8_t {
  kMapped,    // stays where the source maps it; counted in the budget
  kResident,  // read once into the arena and kept
  kStreamed,  // read into the arena ahead of each use, in order
  kOnDemand,  // read when it has been chosen, unless its choice's cache still holds it
  kByRow,     // rows are read from the source as tokens come, whatever fits: in no budget, and never kept
};
std::string_view name(Placement placement);

// Bytes of RAM by who takes them. Their sum with headroom is at most the budget. Each part's floor is what it
// cannot do without; the border between weights and KV moves while running, but never below a floor.
struct PlanShares {
  uint64_t weights = 0;  // mapped; or resident + window + caches
  uint64_t kv = 0;
  uint64_t scratch = 0;
  uint64_t wire = 0;
  uint64_t headroom = 0;
  uint64_t total() const { return weights + kv + scratch + wire + headroom; }
};

enum class Bound : uint8_t { kMemory, kDisk, kArithmetic };
std::string_view name(Bound bound);

// How a pass goes through on-demand pages: the number that is kept of each choice, the same for all, and the
// room that the others are read into.
struct ChosenRoom {
  uint32_t kept_pages = 0;
  uint64_t bytes = 0;
};

// One pass of the pages.
struct Prediction {
  uint32_t rows = 0;           // of the pass: sequences for decode, prompt_rows for a prompt
  uint32_t position = 0;       // of the rows, on average
  double seconds = 0;          // of the pass, elsewhere included
  double read_bytes = 0;       // from disk
  double read_seconds = 0;     // the disk busy
  double compute_seconds = 0;  // without waiting
  // The share of min(read_seconds, compute_seconds) that ran beside the other: where reading is the shorter,
  // for which no step waits.
  double hidden = 1;
  Bound bound{};
  double tokens_a_second() const { return seconds > 0 ? rows / seconds : 0; }
  double seconds_a_token() const { return rows > 0 ? seconds / rows : 0; }
};

// A step up in RAM and what decode would then be.
struct RamStep {
  uint64_t ram = 0;  // budget, headroom included
  double decode_tokens_a_second = 0;
};

struct Plan {
  std::vector<Placement> placements;  // of every page
  PlanShares shares;
  PlanShares floors;            // the least of each
  uint64_t resident_bytes = 0;  // arena_bytes of kResident pages; of kMapped ones mapped_bytes
  // Streaming: at most this many bytes of the arena hold kStreamed pages, the one in use included; and how
  // many streamed pages may be read ahead of the one in use. 0 when nothing is streamed.
  uint64_t window_bytes = 0;
  uint32_t prefetch_pages = 0;
  // Room for two kOnDemand pages, in use or being read, and for each choice's cache of them (the same for
  // all).
  uint64_t demand_bytes = 0;
  uint64_t cache_bytes_choice = 0;
  uint32_t cache_pages_choice = 0;
  ChosenRoom chosen_decode, chosen_scan;
  double expected_hit_rate = 1;  // of chosen pages, in decode
  uint64_t read_size_bytes = 0;  // of the reads that measured fastest, and their number at once
  uint32_t readers = 0;
  uint64_t kv_blocks = 0;            // in RAM
  uint64_t kv_spilled_bytes = 0;     // of the full context of all sequences, on disk
  Prediction decode;                 // every sequence at its full context
  Prediction decode_start;           // every sequence at its first block, with the border where it is then
  Prediction prompt;                 // the first step of a prompt
  std::string binds;                 // one sentence: what limits decode
  uint64_t least_ram = 0;            // with which any plan exists
  std::optional<RamStep> next_step;  // the least RAM with which decode is at least a twentieth faster
  std::optional<RamStep> all_fits;   // the least RAM with which nothing is read from disk; none when it is so
};

}  // namespace caravan
