// What the archive's own thread does: records of what changed, and erasing what is dead.
#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "base/caught_error.h"
#include "base/log.h"
#include "cache/kv_archive.h"

namespace caravan {

namespace {

// How often counts of uses go to disk by themselves, and after what time a store that refused is asked again.
constexpr Duration kUsesInterval = std::chrono::seconds(30), kRefusedInterval = std::chrono::seconds(10);
// Of the bound: when so much is dead in batches whose rest lives, it is cut out.
constexpr uint64_t kDeadShare = 8;

}  // namespace

// Whether so much is dead in batches whose rest lives that it is cut out, and the day's budget has the rest,
// which is written again for that.
bool KvArchive::may_cut_out() const {
  return batches_.bytes_dead() > options_.limit.count / kDeadShare && day_.fits(batches_.bytes_beside_dead());
}

bool KvArchive::has_dirt() const {
  return !dead_.empty() || !orphans_.empty() || may_cut_out();
}

void KvArchive::keep_house() {
  Lock lock(mutex_);
  Time uses_written = clock_.now();
  for (;;) {
    to_clean_.wait_for(lock, kUsesInterval, [&] { return stopping_ || has_dirt(); });
    const bool last = stopping_;
    const bool uses = last || clock_.now() - uses_written >= kUsesInterval;
    if (!uses && !has_dirt()) continue;
    if (uses) uses_written = clock_.now();
    cleaning_ = true;
    bool done = false;
    try {
      done = clean_up(lock);
    } catch (const std::exception&) {
      // What was not put back costs space alone, which the next start gives back.
      not_kept(lock, caught_error());
    }
    if (std::exchange(erasing_bytes_, 0) > 0) ++rooms_made_;
    cannot_clean_ = !done;
    cleaning_ = false;
    cleaned_.notify_all();
    if (last) return;
    // A store that refuses is asked again after a while.
    if (!done) to_clean_.wait_for(lock, kRefusedInterval, [&] { return stopping_; });
  }
}

void KvArchive::not_kept(Lock& lock, const Error& error) {
  const Unlocked unlocked(lock);
  log_warning("kv_archive_record_not_written archive=\"{}\" reason=\"{}\"", options_.name, error.message());
}

// Records first: what they name is there.
bool KvArchive::clean_up(Lock& lock) {
  std::vector<uint64_t> dead = std::exchange(dead_, {});
  std::set<uint64_t> touched = std::exchange(used_records_, {});
  try {
    for (const uint64_t serial : dead) {
      const auto record = record_ends_.upper_bound(serial);
      if (record != record_ends_.begin()) touched.insert(std::prev(record)->first);
    }
    write_records(lock, touched);
  } catch (const std::exception&) {
    dead.insert(dead.end(), dead_.begin(), dead_.end());
    dead_ = std::move(dead);
    used_records_.merge(touched);
    not_kept(lock, caught_error());
    return false;
  }
  std::vector<KvBatches::Range> ranges = std::exchange(orphans_, {});
  const auto take = [&](const std::vector<KvBatches::Range>& more) {
    ranges.insert(ranges.end(), more.begin(), more.end());
  };
  const auto on_disk = [&] { return batches_.bytes_live() + batches_.bytes_dead(); };
  const uint64_t buried_from = on_disk();
  take(batches_.bury(dead));
  erasing_bytes_ += buried_from - on_disk();
  bool done = true;
  uint64_t planned = 0;
  try {
    if (may_cut_out()) {
      const uint64_t again = batches_.bytes_beside_dead();
      spend(lock, again);
      planned = again;
      const uint64_t cut_from = on_disk();
      take(batches_.compact());
      erasing_bytes_ += cut_from - on_disk();
    }
  } catch (const std::exception&) {
    done = false;
    not_kept(lock, caught_error());
  }
  Erased erased;
  {
    const Unlocked unlocked(lock);
    erased = erase(ranges);
  }
  day_.correct(planned, erased.rewritten);
  if (erased.stuck.empty()) return done;
  for (const uint64_t batch : erased.stuck) give_up(batch);
  return clean_up(lock) && done;
}

// A batch of which a part cannot be cut out, because its table is damaged, goes whole, which needs no
// reading: else it would be met again and again, and what is dead of it would stay.
void KvArchive::give_up(uint64_t batch) {
  const auto end = record_ends_.find(batch);
  if (end == record_ends_.end()) return;
  for (const ArchivedBlock& block : index_.range(batch, end->second)) {
    index_.remove(block.serial);
    dead_.push_back(block.serial);
    counters_.quarantined.add(1);
  }
}

void KvArchive::write_records(Lock& lock, const std::set<uint64_t>& touched) {
  for (const uint64_t first : touched) {
    const auto end = record_ends_.find(first);
    if (end == record_ends_.end()) continue;
    const uint64_t last = end->second;
    const std::vector<ArchivedBlock> blocks = index_.range(first, last);
    {
      const Unlocked unlocked(lock);
      if (blocks.empty())
        records_->erase(archived_key(first));
      else
        records_->put(archived_key(first), encode_archived(last, blocks));
    }
    if (blocks.empty()) record_ends_.erase(first);
  }
}

// A failure here costs space alone, which the next start gives back, where a batch goes whole.
KvArchive::Erased KvArchive::erase(std::span<const KvBatches::Range> ranges) {
  Erased erased;
  const uint64_t before = values_->rewritten().count;
  for (const std::vector<BulkStore::Range>& keys : KvBatches::keys_of(ranges)) {
    try {
      values_->erase_ranges(keys);
    } catch (const std::exception&) {
      const Error error = caught_error();
      erased.stuck.push_back(ranges.front().batch);
      log_warning("kv_archive_erase_failed archive=\"{}\" reason=\"{}\"", options_.name, error.message());
    }
    ranges = ranges.subspan(keys.size());
  }
  erased.rewritten = values_->rewritten().count - before;
  counters_.bytes_written.add(erased.rewritten);
  return erased;
}

void KvArchive::settle() {
  Lock lock(mutex_);
  to_clean_.notify_all();
  cleaned_.wait(lock, [&] { return is_settled(); });
}

}  // namespace caravan
