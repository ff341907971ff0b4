#include "bench/fetch_bench.h"

#include <filesystem>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/cpu_seconds.h"
#include "bench/median.h"
#include "daemon/event_loop.h"
#include "daemon/model_library.h"
#include "daemon/shard_fetch.h"
#include "daemon/shard_service.h"
#include "peers/zmq_link.h"
#include "shards/store_import.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"

namespace caravan {

namespace {

constexpr Duration kPatience = std::chrono::seconds(300);
constexpr uint64_t kFetchBytes = 1'000'000'000;
constexpr Duration kLook = std::chrono::milliseconds(100);

// Where a head without a state folder keeps the hashes of its file.
std::shared_ptr<ShardStore> memory_shards() {
  return std::make_shared<ShardStore>(std::make_shared<MemoryStore>(), std::make_shared<MemoryBulk>(),
                                      ShardStoreOptions{});
}

std::unique_ptr<ZmqLink> make_link(const KeyPair& keys, const Clock& clock, Random& random,
                                   std::function<void(LinkEvent)> event) {
  ZmqLinkOptions options;
  options.keys = keys;
  options.listen = {"tcp://127.0.0.1:0"};
  ZmqLinkCallbacks callbacks;
  callbacks.event = std::move(event);
  return std::make_unique<ZmqLink>(std::move(options), clock, random, std::move(callbacks));
}

// The head's end, on a thread of its own.
class HeadEnd {
 public:
  HeadEnd(const Manifest& manifest, const Clock& clock, Random& random)
      : keys_(make_key_pair(random)),
        link_(make_link(keys_, clock, random,
                        [this](LinkEvent event) {
                          loop_.post([this, event = std::move(event)] { service_->on(event); });
                        })),
        service_(std::make_unique<ShardService>(
            loop_, clock, memory_shards(), manifest, [&manifest] { return manifest; }, *link_)),
        thread_([this] { loop_.run(); }) {}
  ~HeadEnd() {
    loop_.stop();
    thread_.join();
    service_.reset();
  }
  ZmqLink& link() { return *link_; }
  const PeerKey& key() const { return keys_.public_key; }

 private:
  const KeyPair keys_;
  EventLoop loop_;
  std::unique_ptr<ZmqLink> link_;
  std::unique_ptr<ShardService> service_;
  std::thread thread_;
};

// The peer's end, on the caller's thread.
class PeerEnd {
 public:
  PeerEnd(const PagesBenchOptions& bench, HeadEnd& head, std::shared_ptr<ShardStore> store,
          const std::string& folder, const Clock& clock, Random& random)
      : bench_(bench),
        clock_(clock),
        keys_(make_key_pair(random)),
        link_(make_link(keys_, clock, random, [this](LinkEvent event) {
          loop_.post([this, event = std::move(event)] { fetch_->on(event); });
        })) {
    ShardFetch::Options options;
    options.head = head.key();
    options.folder = folder + "/fetch";
    fetch_ = std::make_unique<ShardFetch>(loop_, clock, *link_, std::move(store), std::move(options));
    head.link().allow(keys_.public_key);
    link_->connect(head.key(), head.link().endpoints());
  }
  ~PeerEnd() { link_.reset(); }
  void fetch_manifest() {
    await([this](ShardFetch::Done done) { fetch_->fetch_manifest(std::move(done)); });
  }
  const ModelRecord& record() const { return fetch_->record(); }
  void fetch(UnitSpan units) {
    await([&](ShardFetch::Done done) { fetch_->fetch(units, false, std::move(done)); });
  }
  uint64_t received_bytes() const { return fetch_->progress().received_bytes; }

 private:
  void await(const std::function<void(ShardFetch::Done)>& begin) {
    std::optional<std::string> end;
    loop_.post([&] { begin([&](const std::string& reason) { end = reason; }); });
    const Time deadline = clock_.now() + kPatience;
    while (!loop_.run_until([&] { return end.has_value(); }, kLook)) {
      bench_.check();
      if (clock_.now() > deadline) fail(ErrorCode::kTimeout, "fetching over the loopback does not end");
    }
    if (!end->empty()) fail(ErrorCode::kUnavailable, "fetching over the loopback: {}", *end);
  }
  const PagesBenchOptions& bench_;
  const Clock& clock_;
  const KeyPair keys_;
  EventLoop loop_;
  std::unique_ptr<ZmqLink> link_;
  std::unique_ptr<ShardFetch> fetch_;
};

// The first units that have so many bytes; all when they have fewer.
UnitSpan units_of(const ModelRecord& record, uint64_t bytes) {
  UnitSpan units{0, 0};
  const uint32_t count = record.manifest.layer_count + 2;
  for (uint64_t sum = 0; units.last < count && sum < bytes; ++units.last)
    for (const WeightGroup& group : record.manifest.groups)
      if (unit_of(group.id, record.manifest.layer_count) == units.last) sum += group.bytes().count;
  return units;
}

}  // namespace

FetchBench run_fetch_bench(const PagesBenchOptions& options, const Manifest& model, const std::string& folder,
                           const Clock& clock, Random& random) {
  FetchBench result;
  std::vector<double> rate, processor;
  HeadEnd head(model, clock, random);
  for (uint32_t i = 1; i <= options.repeats; ++i) {
    options.step(fmt::format("groups fetched over the loopback, {} of {}", i, options.repeats));
    const std::string state = folder + "/round";
    std::filesystem::create_directories(state);
    {
      PeerEnd peer(options, head, open_shards(state), state, clock, random);
      const Time asked = clock.now();
      peer.fetch_manifest();
      // Nobody asked before the first.
      if (i == 1) result.hash_rate = static_cast<double>(content_bytes(model)) / seconds(clock.now() - asked);
      const uint64_t before = peer.received_bytes();
      const double cpu = cpu_seconds();
      const Time begun = clock.now();
      peer.fetch(units_of(peer.record(), kFetchBytes));
      result.bytes = peer.received_bytes() - before;
      const auto bytes = static_cast<double>(result.bytes);
      rate.push_back(bytes / seconds(clock.now() - begun));
      processor.push_back((cpu_seconds() - cpu) / (bytes / 1e9));
    }
    std::filesystem::remove_all(state);
  }
  result.rate = median(rate);
  result.processor_seconds_gb = median(processor);
  return result;
}

}  // namespace caravan
