#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "model/sampler.h"

namespace caravan {

enum class FinishReason : uint8_t { kStop, kLength };

struct GenerationOptions {
  SamplingOptions sampling;
  uint32_t max_tokens = 0;        // 0: until the context is full
  std::vector<std::string> stop;  // at most limits::kMaxStopStrings
  bool logprobs = false;          // of every generated token
  uint32_t top_logprobs = 0;      // alternatives beside it, at most 20
  bool prompt_only = false;       // generate nothing
  bool ignore_end = false;        // go on past the end token
  bool progress = false;          // events that tell how far the prompt is
};

struct GeneratedToken {
  TokenId id = 0;
  std::string bytes;  // the token's own bytes, perhaps part of a UTF-8 character
  float logprob = 0;  // when asked for
  std::vector<Candidate> top;
  double milliseconds = 0;  // since the token before (the first: since the request was accepted)
};

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
};

// What a running generation says, in order. `text` is valid UTF-8 with stop strings taken out and may be
// empty for a while when a character or a possible stop string is held back. Exactly one last event has
// `finish` or `error`.
struct GenerationEvent {
  std::string text;
  uint32_t prompt_done = 0;  // where asked for: positions of the prompt that are through; 0 in other events
  std::vector<GeneratedToken> tokens;
  std::optional<FinishReason> finish;
  std::optional<Error> error;
  Usage usage;
};

struct StageStatus {
  std::string peer;  // name
  std::string key;   // short hexadecimal of the public key; empty for this process
  std::string address;
  uint32_t first_unit = 0, last_unit = 0;  // [first, last)
  std::string state;                       // "ready", "joining", "lost", or the reason why the edge fails
  double round_trip_ms = 0;
  double layer_ms = 0;  // measured time of one layer for one row
  uint64_t kv_blocks = 0, kv_blocks_free = 0;
  uint64_t bytes_in = 0, bytes_out = 0;
  bool measured = false;  // whether the times above were measured yet
};

inline constexpr const char* kInTheRing = "in the ring";
// A process that joined, whether it has layers or not.
struct PeerStatus {
  std::string name, key, address;  // as of a stage
  std::string state;               // kInTheRing, "waiting", or with why: "waiting: ", "left out: "
  uint64_t offered_bytes = 0;      // for weights and state, those that it streams or spills as well
  double layer_ms = 0;             // as it measured itself
  double round_trip_ms = 0;
};

// The KV archive of a process.
struct ArchiveStatus {
  bool on = false;
  bool off_for_now = false;  // after a failure of its disk
  uint64_t limit_bytes = 0;
  uint64_t bytes = 0, blocks = 0;  // on disk
  // Of this process:
  uint64_t bytes_written = 0, bytes_read = 0;
  uint64_t blocks_evicted = 0;      // they made room
  uint64_t blocks_refused = 0;      // no room, no budget, or off
  uint64_t blocks_quarantined = 0;  // could not be read
  uint64_t failures = 0;            // that switched it off for a while
};

// The memory of a process under its budget, and the weights that it does not hold.
struct MemoryStatus {
  uint64_t limit_bytes = 0;  // of all of it
  uint64_t weights_bytes = 0, state_bytes = 0, scratch_bytes = 0, wire_bytes = 0;
  uint64_t weights_read_bytes = 0;  // streamed, since the start
  double weights_wait_seconds = 0;  // in which computing waited for them
};

struct ServiceStatus {
  bool ready = false;
  std::string not_ready_reason;  // names the failing edge
  std::string model;             // the API's id
  std::string family, fingerprint, codec, ring;
  uint64_t epoch = 0;
  bool exact = true;     // every cut is lossless and every peer of one numerics class
  uint32_t context = 0;  // positions of one sequence
  uint32_t requests_running = 0, requests_waiting = 0;
  uint64_t prompt_tokens = 0, generated_tokens = 0;  // since the start
  uint64_t reused_tokens = 0;                        // of prompts, beside those: not computed again
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;  // over the last minute
  // Of one sequence alone: the last that was measured of this ring, and what its stages expected at the same
  // place. 0: not measured yet, or no forecast.
  double token_ms = 0, expected_token_ms = 0;                // of a generated token
  double prompt_token_ms = 0, expected_prompt_token_ms = 0;  // of each token of a prompt
  // Of a token's time, what it was on its way between processes: as measured, and part of what is expected
  // (but not of a prompt's).
  double links_ms = 0;
  std::string no_forecast_of;  // peers that expect nothing of their stages, so that nothing is of the ring
  uint64_t wire_bytes = 0;
  // Of the layers in this process: KV that went to disk and came back, and the time that computing waited.
  uint64_t kv_bytes_written = 0, kv_bytes_read = 0;
  double kv_wait_seconds = 0;
  MemoryStatus memory;       // of this process
  ArchiveStatus kv_archive;  // of this process
  // What came of asking the stages' archives for prompts.
  bool archive = false;         // whether they are asked at all
  uint64_t archive_tokens = 0;  // of KV that every one of them has room for
  std::string archive_least;    // the peer that has the least
  uint64_t archive_hits = 0, archive_misses = 0, archive_timeouts = 0;
  uint64_t archive_loads = 0, archive_loaded_tokens = 0;
  uint64_t archive_dearer = 0;  // hits that were computed all the same, because that was the cheaper
  uint64_t archive_failed = 0;  // loads whose state could not be read after all
  int64_t started_unix = 0;
  std::vector<StageStatus> stages;
  std::vector<PeerStatus> peers;  // in order of joining
};

// Text generation as the API and the command line see it. One thread (the control thread); callbacks come on
// it, never from inside start(). Throws kInvalidArgument for a prompt that is empty, too long or holds
// foreign ids, kUnavailable when the ring is not ready, kLimit when too many requests wait.
class GenerationService {
 public:
  using Callback = std::function<void(const GenerationEvent&)>;
  virtual ~GenerationService() = default;
  virtual RequestId start(std::vector<TokenId> prompt, GenerationOptions options, Callback callback) = 0;
  // No event comes after this returns. Unknown or ended ids are ignored.
  virtual void cancel(RequestId request) = 0;
  virtual ServiceStatus status() const = 0;
};

}  // namespace caravan
