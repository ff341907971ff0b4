#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "peers/link.h"
#include "peers/stage_host.h"
#include "proto/messages.h"

namespace caravan {

// Content that is wanted, and how much of its beginning is on this machine already.
struct WantedShard {
  Hash256 hash;
  uint64_t bytes = 0;
  std::string name;  // for messages
  uint64_t have = 0;
};

// What the fetcher asks of its driver, beside SendMessage: keep these bytes, which follow on what it was told
// to keep before. ShardStored follows.
struct StoreShard {
  Hash256 group;
  uint64_t total = 0;  // of the whole content
  uint64_t offset = 0;
  std::vector<SharedBytes> parts;
};
using ShardFetcherAction = std::variant<SendMessage, StoreShard>;

struct ShardStored {
  Hash256 group;
  uint64_t end = 0;       // so many bytes of the content are kept
  bool is_whole = false;  // and have the right hash
  bool is_wrong = false;  // they were all there and had another hash: nothing is kept any more
  std::string error;      // they could not be kept; else empty
};

struct ShardFetcherOptions {
  PeerKey from;                                  // the head
  uint64_t bytes_per_second = 0;                 // 0: no limit
  Duration patience = std::chrono::seconds(10);  // without anything, before it asks again
  Duration longest_patience = std::chrono::seconds(60);
  uint32_t most_silences = 5;  // in a row, before it gives up
  Duration manifest_poll = std::chrono::milliseconds(500);
};

struct FetchProgress {
  uint64_t done_bytes = 0, total_bytes = 0;  // of what is wanted now and was not here before
  uint64_t received_bytes = 0;               // ever, over the link
  double bytes_per_second = 0;               // lately
};

// Fetches content by hash from a head: several ranges under way at a time, over a window that follows the
// measured rate, no faster than a limit; goes on where it was when the link was lost. A state machine without
// clock, socket, file or thread: events go in with their time, actions come out.
class ShardFetcher {
 public:
  explicit ShardFetcher(ShardFetcherOptions options) : options_(std::move(options)) {}

  void on(const LinkEvent& event, Time now);  // of any peer; only the head's count
  void on(const ShardStored& event, Time now);
  void tick(Time now);
  Time next_tick() const;
  std::vector<ShardFetcherAction> take_actions() { return std::exchange(actions_, {}); }

  // Takes the place of what was wanted before; content that was on its way and still is wanted goes on from
  // where it is. Errors are forgotten.
  void want(std::vector<WantedShard> shards, Time now);
  bool is_done() const { return wanted() && done_ == jobs_.size(); }
  // Why it gave up, naming content and reason; empty while it has not.
  const std::string& error() const { return error_; }
  FetchProgress progress() const;

  // What the head said of its model, once it has said all; kept when the link is lost.
  const std::optional<ManifestInfo>& manifest() const { return manifest_; }
  // How far the head's hashing is, while there is no manifest.
  const ManifestInfo& hashing() const { return hashing_; }
  // Parts that nobody waited for (late, twice, never asked for): dropped.
  uint64_t ignored_parts() const { return ignored_; }

 private:
  // Asked for and not yet whole.
  struct Range {
    uint64_t offset = 0;
    uint32_t length = 0;
    uint32_t got = 0;
    std::vector<SharedBytes> parts;
  };
  struct Job {
    WantedShard shard;
    uint64_t stored = 0;  // kept by the driver
    uint64_t given = 0;   // to the driver
    uint64_t asked = 0;
    std::deque<Range> ranges;  // from `given` to `asked`, without holes
    uint32_t wrong = 0;        // times that the hash was another
    bool is_whole = false;
  };

  bool wanted() const { return is_wanting_; }
  bool may_ask() const { return is_up_ && is_current_ && error_.empty(); }
  void handle(const ManifestInfo& info, Time now);
  void handle(const ShardBytes& part, Time now);
  void handle(const ShardRefused& refused);
  void ask_manifest(Time now);
  void ask_again(Time now);
  void pump(Time now);
  bool ask_next(Time now);
  void request(const Job& job, const Range& range);
  void give(Job& job, Range& range);
  void forget_ranges(Job& job);
  void refill(Time now);
  Duration patience() const;
  void measure(uint64_t bytes, Time now);
  uint64_t window() const;
  bool has_room(uint32_t bytes) const;
  uint32_t range_bytes() const;
  void give_up(std::string reason);
  Job* find(const Hash256& group);

  const ShardFetcherOptions options_;
  std::vector<ShardFetcherAction> actions_;
  bool is_up_ = false;
  bool is_current_ = false;  // the head of this connection has told its manifest
  std::optional<ManifestInfo> manifest_;
  ManifestInfo hashing_;
  Time next_poll_{};

  bool is_wanting_ = false;
  std::vector<Job> jobs_;
  std::map<Hash256, size_t> index_;
  size_t next_ = 0;  // jobs before it are asked for to their ends
  size_t done_ = 0;
  std::string error_;
  uint64_t outstanding_ = 0;  // asked for and not yet kept
  uint64_t unanswered_ = 0;   // asked for and not yet here
  uint64_t unwanted_ = 0;     // asked for once, and on its way though nobody wants it any more
  Time heard_{};              // a part that was asked for came, or the first was asked for
  uint32_t silences_ = 0;
  double tokens_ = 0;
  Time refilled_{};

  uint64_t received_ = 0, ignored_ = 0;
  Time measured_{};
  uint64_t measuring_bytes_ = 0;
  double rate_ = 0;
};

}  // namespace caravan
