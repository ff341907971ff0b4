#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "daemon/compute_thread.h"
#include "daemon/event_loop.h"
#include "daemon/spare_buffers.h"
#include "peers/link.h"
#include "peers/shard_server.h"
#include "shards/manifest.h"
#include "shards/shard_store.h"

namespace caravan {

// Gives a head's weights to peers that have no file of the model: drives a ShardServer from the control
// thread, and hashes and reads on a thread of its own, so that no request waits for a disk. The hashes are
// computed when a peer first asks, and remembered in the store.
class ShardService {
 public:
  using Reopen = std::function<Manifest()>;
  // All outlive the service, and the loop what was given to the link. `reopen` opens the model anew: its
  // record has the tokenizer, which the manifest at hand has dropped. On the service's thread.
  ShardService(EventLoop& loop, const Clock& clock, std::shared_ptr<ShardStore> store,
               const Manifest& manifest, Reopen reopen, Link& link);
  // Breaks hashing off.
  ~ShardService();
  ShardService(const ShardService&) = delete;
  ShardService& operator=(const ShardService&) = delete;

  // Where memory for what is on its way to peers comes from. What there is bounds it, but never to less than
  // limits::kLeastShardBytesHeld.
  struct Memory {
    std::function<void(Bytes)> want;  // some while there are such peers, else none
    std::function<Bytes()> has;
  };
  void take_memory(Memory memory) { memory_ = std::move(memory); }
  // True when the event was meant for the service alone. Control thread.
  bool on(const LinkEvent& event);
  uint64_t refused() const { return server_.refused(); }

 private:
  // What the reading thread looks content up in; set before the server knows of it.
  struct Index {
    std::map<Hash256, size_t> groups;
    Hash256 record;
    std::string record_bytes;
  };
  // What the threads of a link may still hold knows by it whether there is a service to tell.
  struct Life {
    std::atomic<bool> is_over{false};
  };
  void settle();
  // A range in pieces, which the link may hold for longer than the service lives.
  struct Part {
    std::shared_ptr<const void> range;
    std::shared_ptr<SpareBuffers::Buffer> bytes;  // goes first
  };
  // The server is told of the range when nobody holds this any more.
  std::shared_ptr<const void> until_gone(const ReadShard& what);
  // On the thread.
  void hash_now();
  ShardRead read_now(const ReadShard& what);
  void read_content_of(const Hash256& group, uint64_t offset, std::span<std::byte> out) const;

  EventLoop& loop_;
  const Clock& clock_;
  const std::shared_ptr<ShardStore> store_;
  const Manifest& manifest_;
  const Reopen reopen_;
  Link& link_;
  std::optional<Memory> memory_;  // none: the most that it may be
  Bytes wanted_;
  ShardServer server_;
  Index index_;           // of the thread
  SpareBuffers buffers_;  // parts of ranges
  const std::shared_ptr<Life> life_ = std::make_shared<Life>();
  ComputeThread thread_;  // last: joined before what it uses goes
};

}  // namespace caravan
