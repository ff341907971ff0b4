#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

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
  // All outlive the service. `reopen` opens the model anew: its record has the tokenizer, which the manifest
  // at hand has dropped. On the service's thread.
  ShardService(EventLoop& loop, const Clock& clock, std::shared_ptr<ShardStore> store,
               const Manifest& manifest, Reopen reopen, Link& link);
  // Breaks hashing off.
  ~ShardService();
  ShardService(const ShardService&) = delete;
  ShardService& operator=(const ShardService&) = delete;

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
  void settle();
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
  ShardServer server_;
  Index index_;           // of the thread
  SpareBuffers buffers_;  // parts of ranges
  std::atomic<bool> is_ending_{false};
  ComputeThread thread_;  // last: joined before what it uses goes
};

}  // namespace caravan
