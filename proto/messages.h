#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/archive_room.h"
#include "base/codec_id.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/shared_bytes.h"
#include "base/unit_span.h"

// What peers say to each other, as plain structs: docs/PROTOCOL.md is the text to them. Who sent a message is
// known from the link's key and never written inside. Every string is at most limits::kMaxNameBytes long
// (reasons: kMaxReasonBytes); the decoder checks every count against base/limits.h before it allocates.
namespace caravan {

// Raised whenever a peer of the version before could misread a message.
inline constexpr uint32_t kProtocolVersion = 4;

// Encoded activation rows. The bytes travel in a frame of their own and are shared, never copied, between a
// queue, the wire and the journal. No rows: count 0 and no bytes.
struct Rows {
  CodecId codec = CodecId::kF32;
  uint32_t width = 0;  // values of a row
  uint32_t count = 0;
  SharedBytes bytes;

  size_t byte_count() const { return bytes ? bytes->size() : 0; }
};

// --- Joining: a peer and its head ---

// Peer to head, first on every connection.
struct Hello {
  uint32_t protocol = kProtocolVersion;
  std::string name;            // for people
  std::string build;           // version of the program
  std::string numerics_class;  // whatever can change a bit on this peer
  Hash256 model;               // fingerprint of the model it can read
  uint32_t layers = 0;         // of that model
  uint64_t incarnation = 0;    // random, new with every start of the process
  uint64_t memory_bytes = 0;   // offered for weights and state
  uint64_t layer_ns = 0;       // measured: one layer, one row; 0: not measured
  uint32_t threads = 0;
  std::vector<std::string> endpoints;  // where other peers reach it
  bool fetches = false;                // has no file of the model: its weights come from the head
  Hash256 weights;                     // of the bytes it computes with, or of what stands for them
};

// Head to peer: admitted. The peer sends heartbeats from now on.
struct Welcome {
  uint32_t protocol = kProtocolVersion;
  RingId ring;
  std::string name;  // of the head
  uint32_t heartbeat_ms = 0;
  uint32_t peer_timeout_ms = 0;
};

// Head to peer: not admitted; the head closes the connection.
struct Refuse {
  std::string reason;
};

// Either way; the other side answers with its own time echoed, which gives the round trip.
struct Heartbeat {
  uint64_t sent_ns = 0;  // sender's clock
  uint64_t echo_ns = 0;  // `sent_ns` of the heartbeat that this one answers, or 0
  uint64_t kv_blocks = 0, kv_blocks_free = 0;
  uint32_t open_sequences = 0;
  uint32_t queued_steps = 0;
  EpochId epoch;     // that the sender serves
  StepId last_step;  // of that epoch that the sender has finished: tells where a lost step stopped
  uint64_t fetched_bytes = 0, fetch_bytes = 0;  // of the weights that it fetches now, and of how many; or 0
};

// The sender leaves in order.
struct Goodbye {
  std::string reason;
};

// --- Forming a ring ---

struct RouteStage {
  PeerKey peer;
  std::string name;
  std::string numerics_class;
  std::vector<std::string> endpoints;
  UnitSpan span;
  Hash256 weights;  // as its hello said
};

// Head to every stage: the route of a new epoch. The stage of the receiver is route[stage]; what comes before
// stage 0 and after the last one is the head.
struct Assign {
  RingId ring;
  EpochId epoch;
  Hash256 model;
  uint32_t stage = 0;
  std::vector<RouteStage> route;
  CodecId codec = CodecId::kF32;  // of every edge
  uint8_t kv_type = 0;            // KvType of compute/backend.h
  uint32_t context = 0;           // positions of one sequence
  uint32_t max_sequences = 0;     // open at once
  uint32_t max_rows = 0;          // of one step
  Hash256 weights;                // the head's, of unit 0 and the output
};

// Between the two ends of an edge, both ways: what each believes the contract to be, computed from its own
// model, version and numerics class and the assignment. `matched`: the sender has compared the other's hash
// and found it equal; such a message is not answered.
struct Contract {
  RingId ring;
  EpochId epoch;
  uint32_t edge = 0;     // edge e lies before stage e
  bool to_head = false;  // which of the two at the receiver's address is meant: its head or its stage
  Hash256 hash;
  bool matched = false;
};

// What a stage expects to take for one sequence that runs alone, by what was measured of its machine. Nothing
// where nothing was measured.
struct StageForecast {
  std::vector<uint64_t> token_ns;   // of a generated token: [kForecastTokens], evenly from 0 to the context
  std::vector<uint64_t> prompt_ns;  // of a step of a prompt: [kForecastPrompts], of 1, 2, 4 ... rows
  bool known() const { return !token_ns.empty(); }
};

// Stage to head: weights are there and both neighbours agree.
struct Ready {
  RingId ring;
  EpochId epoch;
  uint64_t kv_blocks = 0;  // that this stage can hold for the ring
  StageForecast forecast = {};
  ArchiveRoom archive = {};  // that this stage has
};

// Head to every stage, once all are ready: what every one of them has room for. No stage archives more, as
// nobody could load that.
struct ArchiveLimit {
  RingId ring;
  EpochId epoch;
  ArchiveRoom room;
};

// Stage to head, at any time of an epoch: the stage cannot serve. `edge` e lies before stage e; a failure of
// the stage itself names the edge before it and says so.
struct NotReady {
  RingId ring;
  EpochId epoch;
  uint32_t edge = 0;
  std::string reason;
};

// Head to stage: drop everything of this epoch and older ones.
struct Release {
  RingId ring;
  EpochId epoch;
  std::string reason;
};

// --- Steps ---

enum class OperationKind : uint8_t { kOpen, kFork, kMark, kTruncate, kClose, kLoad };

struct SequenceOperation {
  OperationKind kind = OperationKind::kOpen;
  SequenceId sequence;
  uint64_t number = 0;  // the sequence's running number, shared with its row ranges; open, fork or load is 1
  SequenceId source;    // fork: where the first `positions` positions come from
  uint32_t positions = 0;  // fork, truncate: positions that stay; load: whole blocks that come from archives
};

// 1 to 16 rows of a matrix product, or more: the head sets it, a stage never derives it.
enum class KernelClass : uint8_t { kFew, kMany };

enum class AnswerKind : uint8_t {
  kNothing,
  kRow,         // the last stage's row
  kCandidates,  // the best tokens with log-sum-exp (where unit L+1 lies on a peer)
  kLogits,
};

// Consecutive rows of one sequence; its rows lie in Step::rows in the order of the ranges.
struct RowRange {
  SequenceId sequence;
  uint64_t number = 0;
  uint32_t first_position = 0;
  uint32_t count = 0;
  KernelClass kernel_class = KernelClass::kMany;
  AnswerKind answer = AnswerKind::kNothing;
  uint32_t answer_count = 0;  // how many of the last rows are answered; 0 exactly with kNothing
};

// Blocks that end within the range.
inline uint32_t completed_blocks(const RowRange& range) {
  return (range.first_position + range.count) / limits::kKvBlockPositions -
         range.first_position / limits::kKvBlockPositions;
}
// Blocks whose tags stand in Step::load_tags for the operation.
inline uint32_t loaded_blocks(const SequenceOperation& operation) {
  return operation.kind == OperationKind::kLoad ? operation.positions / limits::kKvBlockPositions : 0;
}

// What one stage did for one step.
struct StageCounters {
  uint32_t stage = 0;
  uint32_t rows = 0;
  uint64_t compute_ns = 0;
  uint64_t queue_ns = 0;  // from arrival to the start of compute
  uint64_t bytes_in = 0, bytes_out = 0;
};

// Travels the ring once. All operations come before all rows.
struct Step {
  RingId ring;
  EpochId epoch;
  StepId step;
  bool canary = false;  // sent before the ring is ready, to prove the way
  std::vector<SequenceOperation> operations;
  std::vector<RowRange> ranges;
  Rows rows;
  std::vector<StageCounters> counters;  // of the stages it has passed, in order
  // Sequences of its ranges that lost state at a stage it has passed: their rows are of no use.
  std::vector<SequenceId> lost = {};
  std::string lost_reason = {};  // of the first
  // Of the blocks that the ranges complete, in the ranges' order: a stage may archive them. Or none at all.
  std::vector<BlockTag> tags = {};
  std::vector<BlockTag> load_tags = {};  // of the blocks that load operations name, in the operations' order
};

// Head to first stage, stage to stage, and back to the head: how many leading blocks of a sequence does every
// stage have in its archive? A stage that has none of them answers the head at once, else the last one does.
// Stands outside the order of steps: it never waits for computing. May be lost; then nothing is loaded.
struct ArchiveProbe {
  RingId ring;
  EpochId epoch;
  uint64_t probe = 0;          // counted by the head
  bool to_head = false;        // the answer
  std::vector<BlockTag> tags;  // [blocks] of those still asked for; none in the answer
  uint32_t blocks = 0;         // leading ones that every stage passed so far has; at first those asked for
  uint64_t load_ns = 0;        // that the stages passed expect to need for reading them, together
};

// Last stage to head: every step is answered, one without answered rows with none.
struct Answer {
  RingId ring;
  EpochId epoch;
  StepId step;
  bool canary = false;
  Rows rows;  // the answered rows of all ranges, in order
  std::vector<StageCounters> counters;
  std::vector<SequenceId> lost = {};  // as the step's
  std::string lost_reason = {};
};

// Stage to head: the step cannot be done here (no memory, bytes that do not decode). The epoch is lost.
struct StepFailed {
  RingId ring;
  EpochId epoch;
  StepId step;
  uint32_t stage = 0;
  std::string reason;
};

// --- Weights, for peers without the model's file ---

// Peer to head: which model is this, and where does its manifest begin?
struct ManifestRequest {};

// Head to peer. The manifest is a record that is fetched like a group, by its hash.
struct ManifestInfo {
  Hash256 model;                               // fingerprint
  Hash256 record;                              // SHA-256 of the manifest's record
  uint64_t record_bytes = 0;                   // 0: the head still hashes the model
  uint64_t hashed_bytes = 0, total_bytes = 0;  // of the model, while it does
  std::string reason;                          // why there is none and will be none; else empty
};

// Peer to head: a range of the content with this hash.
struct ShardRequest {
  Hash256 group;
  uint64_t offset = 0;
  uint32_t length = 0;  // 1 to limits::kMaxShardRangeBytes
};

// Head to peer: a part of a range that was asked for. Such messages come in the order of their ranges and
// stand outside the order of all others.
struct ShardBytes {
  Hash256 group;
  uint64_t offset = 0;
  SharedBytes bytes;  // 1 to limits::kShardPartBytes, in a frame of their own

  size_t byte_count() const { return bytes ? bytes->size() : 0; }
};

// Head to peer: the range that begins there will not come.
struct ShardRefused {
  Hash256 group;
  uint64_t offset = 0;
  std::string reason;
};

// Head to a peer that fetches: have the weights of these units, for a ring that is to come.
struct Fetch {
  RingId ring;
  uint64_t plan = 0;  // counted by the head; a later one takes the place of an earlier one
  UnitSpan span;
};

// Peer to head: they are here; or why they will not be.
struct Fetched {
  RingId ring;
  uint64_t plan = 0;
  std::string reason;
};

using Message = std::variant<Hello, Welcome, Refuse, Heartbeat, Goodbye, Assign, Contract, Ready, NotReady,
                             Release, Step, Answer, StepFailed, ManifestRequest, ManifestInfo, ShardRequest,
                             ShardBytes, ShardRefused, Fetch, Fetched, ArchiveProbe, ArchiveLimit>;

// "step", for logs.
std::string_view name(const Message& message);
// Whether a process that has both a head and a stage hands the message to its head.
bool is_for_head(const Message& message);
// Whether it is asked of whoever has the weights, beside rings and their heads.
bool is_for_shard_server(const Message& message);
// Whether it answers such a question.
bool is_for_shard_fetcher(const Message& message);
// What travels in a frame of its own beside the header: rows, or a part of a group. Null without.
const SharedBytes& payload(const Message& message);
// Bytes that count against queues: the payload, the tags, and a flat amount for the rest of the header.
size_t queue_bytes(const Message& message);

}  // namespace caravan
