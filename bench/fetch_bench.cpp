#include "bench/fetch_bench.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "base/error.h"
#include "bench/cpu_seconds.h"
#include "daemon/event_loop.h"
#include "daemon/model_library.h"
#include "daemon/shard_fetch.h"
#include "daemon/shard_service.h"
#include "peers/zmq_link.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"

namespace caravan {

namespace {

constexpr Duration kPatience = std::chrono::seconds(300);

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
        service_(std::make_unique<ShardService>(loop_, clock, memory_shards(), manifest, *link_)),
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
  PeerEnd(HeadEnd& head, std::shared_ptr<ShardStore> store, const std::string& folder, const Clock& clock,
          Random& random)
      : keys_(make_key_pair(random)), link_(make_link(keys_, clock, random, [this](LinkEvent event) {
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
  void fetch_all() {
    await([this](ShardFetch::Done done) {
      fetch_->fetch({0, fetch_->record().manifest.layer_count + 2}, false, std::move(done));
    });
  }
  uint64_t received_bytes() const { return fetch_->progress().received_bytes; }

 private:
  void await(const std::function<void(ShardFetch::Done)>& begin) {
    std::optional<std::string> end;
    loop_.post([&] { begin([&](const std::string& reason) { end = reason; }); });
    loop_.run_until([&] { return end.has_value(); }, kPatience);
    if (!end) fail(ErrorCode::kTimeout, "fetch bench: it does not end");
    if (!end->empty()) fail(ErrorCode::kUnavailable, "fetch bench: {}", *end);
  }
  const KeyPair keys_;
  EventLoop loop_;
  std::unique_ptr<ZmqLink> link_;
  std::unique_ptr<ShardFetch> fetch_;
};

template <class Get>
double median_of(const std::vector<FetchRound>& rounds, Get get) {
  std::vector<double> values;
  for (const FetchRound& round : rounds) values.push_back(get(round));
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

FetchRound FetchBenchResult::median() const {
  return {median_of(rounds, [](const FetchRound& round) { return round.bytes_s; }),
          median_of(rounds, [](const FetchRound& round) { return round.cpu_s_per_gb; })};
}

FetchBenchResult run_fetch_bench(const std::string& model, const std::string& folder,
                                 const FetchBenchOptions& options, const Clock& clock, Random& random) {
  const Manifest manifest = read_manifest(model);
  FetchBenchResult result;
  HeadEnd head(manifest, clock, random);
  for (uint32_t round = 0; round < options.rounds; ++round) {
    const std::string state = folder + "/round-" + std::to_string(round);
    std::filesystem::create_directories(state);
    {
      PeerEnd peer(head, options.in_memory ? memory_shards() : open_shards(state), state, clock, random);
      const Time asked = clock.now();
      peer.fetch_manifest();
      const double waited = seconds(clock.now() - asked);
      const uint64_t before = peer.received_bytes();
      const double cpu = cpu_seconds();
      const Time begun = clock.now();
      peer.fetch_all();
      const auto bytes = static_cast<double>(peer.received_bytes() - before);
      result.bytes = peer.received_bytes() - before;
      if (round == 0) result.hash_bytes_s = bytes / waited;
      result.rounds.push_back({bytes / seconds(clock.now() - begun), (cpu_seconds() - cpu) / (bytes * 1e-9)});
    }
    std::filesystem::remove_all(state);
  }
  return result;
}

}  // namespace caravan
