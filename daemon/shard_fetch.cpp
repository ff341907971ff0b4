#include "daemon/shard_fetch.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"

namespace caravan {

namespace {

// On disk besides, while groups come: files of what is not whole or not acknowledged, and tables on their way
// in. At the least.
constexpr uint64_t kOnTheWayBytes = 192u << 20;
constexpr uint64_t kGroupsOnTheWay = 4;  // of the largest

uint64_t on_the_way_bytes(uint64_t largest_group) {
  return std::max(kOnTheWayBytes, kGroupsOnTheWay * largest_group);
}

// What a fetch takes of the disk at its largest.
uint64_t disk_bytes_to_fetch(uint64_t needed, uint64_t largest_group) {
  return needed + std::min(needed, on_the_way_bytes(largest_group));
}

// The most that such a disk can take.
uint64_t most_to_fetch(uint64_t available, uint64_t largest_group) {
  const uint64_t beside = on_the_way_bytes(largest_group);
  return std::max(available - std::min(available, beside), std::min(available / 2, beside));
}

// Of those that a peer may be asked to host: the embedding and the output stay with the head.
uint64_t largest_hosted(const Manifest& manifest) {
  uint64_t largest = 0;
  for (const WeightGroup& group : manifest.groups) {
    const uint32_t unit = unit_of(group.id, manifest.layer_count);
    if (unit > 0 && unit <= manifest.layer_count) largest = std::max(largest, group.bytes().count);
  }
  return largest;
}

ShardFetcherOptions fetcher_options(const ShardFetch::Options& options) {
  ShardFetcherOptions out;
  out.from = options.head;
  out.bytes_per_second = options.bytes_per_second;
  return out;
}

}  // namespace

ShardFetch::ShardFetch(EventLoop& loop, const Clock& clock, Link& link, std::shared_ptr<ShardStore> store,
                       Options options)
    : loop_(loop),
      clock_(clock),
      link_(link),
      store_(std::move(store)),
      options_(std::move(options)),
      fetcher_(fetcher_options(options_)),
      incoming_(store_, options_.folder) {}

ShardFetch::~ShardFetch() {
  if (timer_) loop_.cancel(*timer_);
}

bool ShardFetch::on(const LinkEvent& event) {
  fetcher_.on(event, clock_.now());
  settle();
  const auto* received = std::get_if<Received>(&event);
  return received && is_for_shard_fetcher(received->message);
}

// --- The manifest ---

void ShardFetch::fetch_manifest(Done done) {
  manifest_done_ = std::move(done);
  settle();
}

void ShardFetch::fetch_record() {
  const ManifestInfo& info = *fetcher_.manifest();
  // Everything else depends on it, and it is small: read before it is believed to be here.
  want({{info.record, info.record_bytes, "the manifest", 0}}, true, [this](const std::string& reason) {
    if (!reason.empty()) return std::exchange(manifest_done_, nullptr)(reason);
    take_record();
  });
}

void ShardFetch::take_record() {
  const ManifestInfo& info = *fetcher_.manifest();
  std::string reason;
  try {
    ModelRecord record = store_->read_record(info.record);
    if (record.fingerprint != info.model)
      fail(ErrorCode::kMalformed, "the head's manifest is of model {}, and it runs {}",
           short_string(record.fingerprint), short_string(info.model));
    store_->put_partial(info.record);
    thread_.post([this] { remove_unwanted(); });
    record_ = std::move(record);
  } catch (const Error& error) {
    reason = error.message();
  }
  std::exchange(manifest_done_, nullptr)(reason);
}

void ShardFetch::remove_unwanted() {
  try {
    incoming_.remove_unwanted();
  } catch (const Error& error) {
    log_warning("{}", error.message());  // only their space is lost
  }
}

// --- Groups ---

void ShardFetch::fetch(UnitSpan units, bool check, Done done) {
  std::vector<WantedShard> wanted;
  const auto& groups = record_->manifest.groups;
  for (size_t i = 0; i < groups.size(); ++i) {
    const uint32_t unit = unit_of(groups[i].id, record_->manifest.layer_count);
    if (unit >= units.first && unit < units.last)
      wanted.push_back({record_->hashes[i], groups[i].bytes().count, to_string(groups[i].id), 0});
  }
  want(std::move(wanted), check, std::move(done));
}

bool ShardFetch::has(UnitSpan units) const {
  const auto& groups = record_->manifest.groups;
  for (size_t i = 0; i < groups.size(); ++i) {
    const uint32_t unit = unit_of(groups[i].id, record_->manifest.layer_count);
    if (unit >= units.first && unit < units.last && !store_->contains(record_->hashes[i])) return false;
  }
  return true;
}

ShardFetch::Room ShardFetch::room() const {
  const std::set<Hash256> groups(record_->hashes.begin(), record_->hashes.end());
  uint64_t here = 0;
  for (const Hash256& group : groups) here += store_->group_bytes(group).value_or(0);
  uint64_t more = std::numeric_limits<uint64_t>::max() - here;
  if (options_.disk_limit)
    more = std::min(more, *options_.disk_limit - std::min(*options_.disk_limit, store_->bytes().count));
  std::error_code error;
  const auto space = std::filesystem::space(options_.folder, error);
  if (error) return {here + more, options_.disk_limit.has_value()};
  // What lies in files already takes no more room where it goes.
  const uint64_t free = most_to_fetch(space.available + IncomingGroups::bytes_in(options_.folder),
                                      largest_hosted(record_->manifest));
  return {here + std::min(more, free), options_.disk_limit && more <= free};
}

void ShardFetch::cancel() {
  ++wish_;
  done_ = nullptr;
  phase_ = Phase::kIdle;
  if (options_.progress) options_.progress(0, 0);
  fetcher_.want({}, clock_.now());
  settle();
}

void ShardFetch::want(std::vector<WantedShard> shards, bool check, Done done) {
  const uint64_t wish = ++wish_;
  done_ = std::move(done);
  phase_ = Phase::kLooking;
  thread_.post([this, wish, check, shards = std::move(shards)]() mutable {
    std::string reason;
    try {
      shards = look(std::move(shards), check);
    } catch (const Error& error) {
      reason = error.message();
    }
    loop_.post([this, wish, reason, shards = std::move(shards)]() mutable {
      if (wish != wish_) return;
      if (!reason.empty()) {
        log_warning("fetch_failed reason=\"{}\"", reason);
        return finish(reason);
      }
      phase_ = Phase::kFetching;
      fetcher_.want(std::move(shards), clock_.now());
      settle();
    });
  });
}

// What is here already, and whether there is room for the rest.
std::vector<WantedShard> ShardFetch::look(std::vector<WantedShard> shards, bool check) {
  uint64_t needed = 0, total = 0, largest = 0;
  for (WantedShard& shard : shards) {
    if (check) incoming_.check(shard.hash, shard.bytes);
    shard.have = incoming_.have(shard.hash, shard.bytes);
    needed += shard.bytes - shard.have;
    total += shard.bytes;
    if (shard.have < shard.bytes) largest = std::max(largest, shard.bytes);
  }
  log_info("to_fetch bytes={} of={}", needed, total);
  std::error_code error;
  const auto space = std::filesystem::space(options_.folder, error);
  const uint64_t most = disk_bytes_to_fetch(needed, largest);
  if (!error && most > space.available)
    fail(ErrorCode::kOutOfMemory,
         "{} of weights are to be fetched, {} are on their way meanwhile, and the disk of {} has {} left",
         to_string(Bytes{needed}), to_string(Bytes{most - needed}), store_->name(),
         to_string(Bytes{space.available}));
  if (options_.disk_limit && needed > 0 && store_->bytes().count + needed > *options_.disk_limit)
    fail(ErrorCode::kOutOfMemory, "{} of weights are to be fetched; {} has {} of the {} that --disk allows",
         to_string(Bytes{needed}), store_->name(), to_string(store_->bytes()),
         to_string(Bytes{*options_.disk_limit}));
  return shards;
}

ShardStored ShardFetch::store_now(const StoreShard& what) {
  ShardStored event{what.group, what.offset, false, false, ""};
  try {
    std::vector<std::span<const std::byte>> parts;
    for (const SharedBytes& part : what.parts) {
      parts.emplace_back(*part);
      event.end += part->size();
    }
    const auto state = incoming_.append(what.group, what.total, what.offset, parts);
    event.is_whole = state == IncomingGroups::State::kWhole;
    event.is_wrong = state == IncomingGroups::State::kWrong;
  } catch (const Error& error) {
    event.error = error.message();
  }
  return event;
}

void ShardFetch::perform(StoreShard what) {
  thread_.post([this, what = std::move(what)] {
    loop_.post([this, event = store_now(what)] {
      fetcher_.on(event, clock_.now());
      settle();
    });
  });
}

void ShardFetch::settle() {
  for (ShardFetcherAction& action : fetcher_.take_actions()) {
    if (auto* store = std::get_if<StoreShard>(&action)) {
      perform(std::move(*store));
    } else {
      auto& send = std::get<SendMessage>(action);
      // What the link does not take is sent again when nothing comes.
      if (!link_.send(send.to, std::move(send.message))) log_debug("fetch_not_sent");
    }
  }
  set_timer();
  if (manifest_done_ && !done_) {
    if (!fetcher_.error().empty()) return std::exchange(manifest_done_, nullptr)(fetcher_.error());
    if (fetcher_.manifest()) fetch_record();
    return;
  }
  if (phase_ != Phase::kFetching) return;
  if (!fetcher_.error().empty()) return finish(fetcher_.error());
  if (const FetchProgress now = fetcher_.progress(); options_.progress && now.total_bytes > 0)
    options_.progress(now.done_bytes, now.total_bytes);
  if (fetcher_.is_done()) flush();
}

void ShardFetch::flush() {
  phase_ = Phase::kFlushing;
  log_info("fetched received={}", fetcher_.progress().received_bytes);
  thread_.post([this, wish = wish_, has_record = record_.has_value()] {
    std::string reason;
    try {
      incoming_.flush();
      // The damaged bytes go, once it is known what the model needs.
      if (has_record && incoming_.take_mended()) store_->sweep();
    } catch (const Error& error) {
      reason = error.message();
    }
    loop_.post([this, wish, reason] {
      if (!reason.empty()) log_warning("fetch_failed reason=\"{}\"", reason);
      if (wish == wish_) finish(reason);
    });
  });
}

void ShardFetch::finish(const std::string& reason) {
  phase_ = Phase::kIdle;
  if (!reason.empty() && options_.progress) options_.progress(0, 0);
  if (const Done done = std::exchange(done_, nullptr)) done(reason);
}

void ShardFetch::set_timer() {
  const Time next = fetcher_.next_tick();
  if (timer_ && timer_at_ == next) return;
  if (timer_) loop_.cancel(*timer_);
  timer_.reset();
  timer_at_ = next;
  if (next == Time::max()) return;
  timer_ = loop_.after(std::max(Duration::zero(), next - clock_.now()), [this] {
    timer_.reset();
    fetcher_.tick(clock_.now());
    settle();
  });
}

}  // namespace caravan
