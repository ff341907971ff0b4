#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/unit_span.h"
#include "daemon/compute_thread.h"
#include "daemon/engine.h"
#include "daemon/event_loop.h"
#include "peers/link.h"
#include "peers/shard_fetcher.h"
#include "shards/incoming_groups.h"
#include "shards/store_record.h"

namespace caravan {

// The weights of a peer that has no file of the model: its manifest and the groups of the units it is to
// host, fetched from the head into its store. Drives a ShardFetcher from the control thread, and hashes and
// writes on a thread of its own.
class ShardFetch {
 public:
  struct Options {
    PeerKey head;
    uint64_t bytes_per_second = 0;  // 0: no limit
    std::string folder;             // of content that is not whole yet
    std::optional<uint64_t> disk_limit;
    LoadProgress progress;  // of what is fetched now; 0 of 0 when it is given up; may be empty
  };
  // With what went wrong; empty when everything is here.
  using Done = std::function<void(const std::string& reason)>;

  // All outlive it. Throws kIo naming the folder.
  ShardFetch(EventLoop& loop, const Clock& clock, Link& link, std::shared_ptr<ShardStore> store,
             Options options);
  ~ShardFetch();
  ShardFetch(const ShardFetch&) = delete;
  ShardFetch& operator=(const ShardFetch&) = delete;

  // True when the event was meant for fetching alone.
  bool on(const LinkEvent& event);
  // Called once. record() is there when it has no reason.
  void fetch_manifest(Done done);
  const ModelRecord& record() const { return *record_; }
  // Makes what the units need be here; only the last call's `done` is called. `check`: also look at what is
  // in the store already, because something in it was found damaged.
  void fetch(UnitSpan units, bool check, Done done);
  // Nothing is wanted any more, and the last `done` is not called. What came so far stays.
  void cancel();
  // Whether a span's groups are here.
  bool has(UnitSpan units) const;
  // Bytes of the model's groups that can lie here: those that do, and what the disk and its budget leave.
  struct Room {
    uint64_t bytes = 0;
    bool is_limit = false;  // disk_limit is what bounds it
  };
  Room room() const;
  FetchProgress progress() const { return fetcher_.progress(); }
  bool is_fetching() const { return done_ != nullptr; }
  // While the head hashes its model: how far it is.
  const ManifestInfo& head_hashing() const { return fetcher_.hashing(); }

 private:
  void want(std::vector<WantedShard> shards, bool check, Done done);
  void fetch_record();
  void take_record();
  void settle();
  void perform(StoreShard what);
  void set_timer();
  void flush();
  void finish(const std::string& reason);
  // On the thread.
  void remove_unwanted();
  std::vector<WantedShard> look(std::vector<WantedShard> shards, bool check);
  ShardStored store_now(const StoreShard& what);

  EventLoop& loop_;
  const Clock& clock_;
  Link& link_;
  const std::shared_ptr<ShardStore> store_;
  const Options options_;
  ShardFetcher fetcher_;
  std::optional<ModelRecord> record_;
  Done manifest_done_;  // while the manifest is being fetched
  Done done_;           // of what is wanted now
  enum class Phase : uint8_t { kIdle, kLooking, kFetching, kFlushing };
  Phase phase_ = Phase::kIdle;
  uint64_t wish_ = 0;  // counts the calls of want()
  std::optional<TimerId> timer_;
  Time timer_at_ = Time::max();
  IncomingGroups incoming_;  // of the thread
  ComputeThread thread_;     // last: joined before what it uses goes
};

}  // namespace caravan
