#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "daemon/block_tags.h"
#include "daemon/generation.h"
#include "daemon/head_runner.h"
#include "model/sampler.h"
#include "proto/messages.h"

namespace caravan {

// A generation in terms of tokens.
struct TokenRequest {
  std::vector<TokenId> prompt;         // at least one
  std::optional<uint32_t> max_tokens;  // nothing: until the context is full; 0: only the prompt runs
  SamplingOptions sampling;
  std::vector<TokenId> end_tokens;  // each ends the generation
  bool logprobs = false;
  uint32_t top_logprobs = 0;
  std::shared_ptr<const LogitsSink> prompt_logits;  // hears of every prompt position
  bool progress = false;                            // PromptProgress after each chunk of the prompt
};

// What happens to a request, in order. FinishReason and Error are last.
struct TokenEvent {
  TokenId token = 0;
  float logprob = 0;
  std::vector<Candidate> top;
};
// So many positions of the sequence have gone through every stage. After a preemption it starts anew.
struct PromptProgress {
  uint32_t positions = 0;
};
struct RequestEvent {
  RequestId request;
  std::variant<TokenEvent, PromptProgress, FinishReason, Error> what;
};

struct SchedulerOptions {
  uint32_t max_waiting = 1024;
  bool keep = false;  // sequences of ended requests, for prompts that begin alike
  // With one: blocks are tagged for the stages' archives, and prompts may be loaded from them.
  std::optional<BlockTagger> tagger = {};
};

// What came of archives, since the start.
struct ArchiveCounts {
  uint64_t hits = 0;              // questions to which all stages had more than the ring has in memory
  uint64_t misses = 0;            // to which they had not
  uint64_t loads = 0;             // sequences that began from archives
  uint64_t loaded_positions = 0;  // of them
  uint64_t dearer = 0;            // hits where computing was the cheaper
  uint64_t failed = 0;            // loads whose state could not be read after all
};

// What a ready ring offers.
struct RingCapacity {
  uint64_t kv_blocks = 0;  // of the stage that has the fewest
  uint32_t context = 0;
  uint32_t max_sequences = 0;
  uint32_t max_rows = 0;  // of one step
  bool archives = true;   // every stage has one
};

// The content of a step, and what its answered rows are for.
struct StepPlan {
  struct Answered {
    RequestId request;
    SequenceId sequence;  // of the time of planning: a row of an older one is stale
    uint32_t position = 0;
  };
  std::vector<SequenceOperation> operations;
  std::vector<RowRange> ranges;
  std::vector<BlockTag> tags, load_tags;  // as Step's
  std::vector<TokenId> tokens;            // one a row
  std::vector<Answered> answered;
  std::vector<OutputRow> asked;  // beside `answered`
  uint32_t prompt_rows = 0;
};

// Continuous batching: turns requests into steps and results into tokens. Counts the KV blocks of all stages
// exactly, because every stage does the operations in the order in which they are planned here. Blocks are
// taken as sequences grow; when none is left, the youngest sequence is preempted: closed on the stages and
// filled again from its tokens later. The oldest is never preempted, so that something always ends.
// Prompts are cut into chunks that take turns: a new request waits at most one chunk for each running one.
//
// Sequences of ended requests may be kept: a prompt that begins as one of them forks its whole blocks and
// goes on from there. Kept ones give way to whatever needs
// their blocks or their places, the one used longest ago first. A fork's blocks are counted as if it had them
// alone, so that stages never have fewer than counted.
//
// Where a prompt has whole blocks beyond what is kept, the stages' archives are asked before it begins, and
// whoever comes behind it does not wait for that. What is found is loaded if it costs less than computing.
class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options) : options_(options) {}

  // The ring is ready; sequences start from nothing. Also from one ring to the next, while nothing runs: what
  // waits goes on, unless its prompt does not fit any more.
  void open_ring(const RingCapacity& capacity);
  // Its state is gone: every request ends with `error`.
  void close_ring(const Error& error);

  // Throws kInvalidArgument (no tokens, or more than the ring can hold), kLimit (too many wait), kUnavailable
  // (no ring).
  RequestId submit(TokenRequest request);
  // No event follows. Unknown ids are ignored.
  void cancel(RequestId request);

  // The next step, if there is anything to do now. `window`: how many steps may be in flight, to which the
  // caller keeps; running sequences are spread over so many. `prompt_rows`: the most of prompts' in this
  // step.
  std::optional<StepPlan> plan(uint32_t window, uint32_t prompt_rows);
  // One result for each answered row. `error` not empty: the requests of the step's answered rows end with
  // it.
  void complete(const StepPlan& plan, std::vector<OutputResult> results, const std::string& error);
  // A stage lost state of the sequence: its request is filled again from its tokens, once, and once more if
  // that state came from archives; the next time it ends with `error`. The others go on.
  void lose(SequenceId sequence, const Error& error);

  // Which leading blocks of a waiting request do all stages have? Each question wants its answered(), before
  // which the request does not begin; `compute_ns` is what computing the positions would take, 0: not known.
  struct Question {
    RequestId request;
    std::vector<BlockTag> tags;
    double compute_ns = 0;
  };
  // The questions that are to be asked now; none without a tagger.
  std::vector<Question> take_questions();
  // `load_ns`: that reading them takes. Unknown ids are ignored.
  void answered(RequestId request, uint32_t blocks, uint64_t load_ns);
  // Nothing was asked, or no answer came.
  void unanswered(RequestId request);
  // What one prompt position takes the ring now.
  void tell_position_ns(double position_ns) { position_ns_ = position_ns; }
  std::vector<RequestEvent> take_events() { return std::exchange(events_, {}); }

  size_t running() const { return running_; }
  size_t waiting() const { return waiting_.size(); }
  uint64_t blocks_used() const { return blocks_used_; }
  bool idle() const { return requests_.empty() && closing_.empty(); }
  uint64_t preemptions() const { return preemptions_; }
  // Prompt positions that were not computed again.
  uint64_t reused_positions() const { return reused_positions_; }
  const ArchiveCounts& archive() const { return archive_; }
  uint64_t kept_blocks() const;
  size_t kept() const { return kept_.size(); }

 private:
  struct Request {
    RequestId id;
    TokenRequest asked;
    std::shared_ptr<const SamplingOptions> sampling;
    std::vector<TokenId> tokens;  // prompt and answer: the log from which a sequence is filled again
    uint32_t max_positions = 0;
    uint32_t logits_delivered = 0;  // prompt positions, to the sink
    bool lost = false;              // state at a stage, once
    bool unloadable = false;        // what archives had of it was lost on the way
    std::vector<BlockTag> tags;     // of its blocks so far

    // What archives have of it; asked anew each time it waits.
    enum class Asking : uint8_t { kNotYet, kAsked, kDone };
    Asking asking = Asking::kNotYet;
    uint32_t archived_positions = 0;
    uint64_t load_ns = 0;

    // Of its sequence while it runs.
    SequenceId sequence;
    bool running = false;
    bool opened = false;     // on the stages
    bool planned = false;    // has rows in the step under construction
    bool decoding = false;   // its whole prompt was put into steps
    uint32_t scheduled = 0;  // positions whose rows were put into steps
    uint64_t turn = 0;       // of its prompt: those of lower turns go first
    uint64_t next_number = 1;
    uint64_t blocks = 0;
    SequenceId source;              // kept; of its first `source_positions` positions, until it is opened
    uint32_t source_positions = 0;  // whole blocks; 0: it does not fork
    uint32_t load_positions = 0;    // whole blocks from archives; 0: it does not load
  };
  // A sequence that no request has any more. In order of use, the one used longest ago first.
  struct Kept {
    SequenceId sequence;
    uint64_t next_number = 1;
    uint64_t blocks = 0;
    std::vector<TokenId> tokens;  // of the positions that the stages have
    uint32_t pins = 0;            // requests that will fork it
  };
  struct Closing {
    SequenceId sequence;
    uint64_t number = 0;
    uint64_t blocks = 0;
  };

  void admit(StepPlan& plan);
  // A kept sequence that begins as the request does, and how many positions it can take from there.
  std::pair<Kept*, uint32_t> find_kept(const Request& request);
  // Where the request begins: from a kept sequence, from archives, or from nothing.
  void find_source(Request& request);
  // False when the step has no room for it.
  bool open(StepPlan& plan, Request& request);
  static uint32_t saved_positions(const Request& request, uint32_t kept);
  void leave_source(Request& request);
  void keep(Request& request);
  void forget_kept();
  // One kept sequence gives way; false when there is none that can.
  bool evict(StepPlan& plan);
  void plan_closes(StepPlan& plan);
  void plan_decodes(StepPlan& plan, uint32_t window);
  void plan_prompts(StepPlan& plan, uint32_t prompt_rows);
  void queue_prompt(const Request& request);
  void add_rows(StepPlan& plan, Request& request, uint32_t count);
  OutputRow output_row(const Request& request, uint32_t position, bool last) const;
  // Blocks for `positions`; preempts younger sequences. False when that was not enough.
  bool reserve(StepPlan& plan, Request& request, uint32_t positions);
  Request* youngest_to_preempt(const Request& asking);
  void stop_running(Request& request);
  void preempt(Request& request);
  void report_progress(const StepPlan& plan);
  void accept(Request& request, OutputResult result);
  void finish(Request& request, std::variant<FinishReason, Error> how);
  void remove(Request& request);
  Request* find(RequestId id);
  template <class What>
  void emit(RequestId request, What what) {
    RequestEvent& event = events_.emplace_back();
    event.request = request;
    event.what = std::move(what);
  }
  uint32_t positions() const;  // of one sequence
  bool uses_archives() const { return options_.tagger && capacity_ && capacity_->archives; }
  uint64_t blocks_free() const { return capacity_->kv_blocks - blocks_used_; }

  const SchedulerOptions options_;
  std::optional<RingCapacity> capacity_;
  // By id, which is the order of arrival. Owned here; the queues hold ids.
  std::map<RequestId, Request> requests_;
  std::deque<RequestId> waiting_;  // oldest first
  std::deque<RequestId> prompts_;  // running, rows of the prompt left; they take turns
  std::deque<RequestId> ready_;    // running, one token to put into a step
  std::vector<Closing> closing_;   // to be closed by the next step
  std::vector<Kept> kept_;
  std::vector<RequestEvent> events_;
  uint64_t blocks_used_ = 0;
  size_t running_ = 0, decoding_ = 0;
  uint64_t last_request_ = 0, last_sequence_ = 0, preemptions_ = 0;
  uint64_t prompt_steps_ = 0;  // that had rows of prompts
  double position_ns_ = 0;
  ArchiveCounts archive_;
  uint64_t reused_positions_ = 0;
};

}  // namespace caravan
