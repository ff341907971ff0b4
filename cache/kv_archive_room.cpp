// What an archive has room for, and what makes room.
#include <algorithm>
#include <chrono>

#include "base/bytes.h"
#include "cache/kv_archive.h"

namespace caravan {

namespace {

// Of the bound; the rest is for blocks that are dead until all of their batch is.
constexpr uint64_t kLiveNumerator = 3, kLiveDenominator = 4;
constexpr uint64_t kBatchDenominator = 16;  // of the bound
// How long a batch waits for room that is being made: short, because a computation may wait for its frames.
constexpr Duration kPatience = std::chrono::milliseconds(100);

}  // namespace

uint64_t KvArchive::most_live() const {
  return options_.limit.count / kLiveDenominator * kLiveNumerator;
}

// Of a batch, and so also of what is on disk twice while one is written again without its dead.
uint64_t KvArchive::batch_room() const {
  return options_.limit.count / kBatchDenominator;
}

Bytes KvArchive::least(const KvArchiveShape& shape) {
  return Bytes{(shape.disk_bytes() + kLiveNumerator - 1) / kLiveNumerator * kLiveDenominator};
}

ArchiveRoom KvArchive::room(const KvArchiveShape& shape) const {
  const Lock lock(mutex_);
  const uint64_t bytes = shape.disk_bytes();
  const auto blocks = [&](uint64_t of) { return of == UINT64_MAX ? of : of / bytes; };
  return {own_room(shape), blocks(day_.left()), blocks(day_.limit())};
}

uint64_t KvArchive::own_room(const KvArchiveShape& shape) const {
  return std::min<uint64_t>(most_live() / shape.disk_bytes(), options_.most_blocks);
}

void KvArchive::keep_within(const KvArchiveShape& shape, const ArchiveRoom& room) {
  const uint64_t bytes = shape.disk_bytes();
  const auto bytes_of = [&](uint64_t blocks) {
    uint64_t product = 0;  // peers say what they like
    return checked_multiply(blocks, bytes, product) ? product : UINT64_MAX;
  };
  const Lock lock(mutex_);
  crowded_ = false;
  day_.bound(bytes_of(room.blocks_today), bytes_of(room.blocks_a_day));
  ring_.reset();
  if (room.blocks < own_room(shape)) ring_ = Ring{shape.lineage, room.blocks, room.blocks * bytes};
  // So that all stages give up the same: values then differ by a factor from stage to stage.
  std::optional<KvArchiveIndex::Ring> ring;
  if (ring_ && room.blocks > 0)
    ring = {shape.lineage, room.blocks, Bytes{ring_->bytes / kLiveNumerator * kLiveDenominator}};
  index_.set_ring(ring);
}

bool KvArchive::is_in_ring(const Lineage& lineage) const {
  return ring_ && ring_->lineage == lineage;
}

// Of the day's budget, before they are written.
void KvArchive::spend(Lock& lock, uint64_t bytes) {
  while (!day_.spend(bytes)) {
    const Unlocked unlocked(lock);
    write_meta();
  }
}

// How many of the blocks that are offered may be written: the first ones, so that a sequence is there without
// its end rather than not at all.
size_t KvArchive::may_write(Lock& lock, const KvArchiveShape& shape, size_t offered) {
  const uint64_t block_bytes = shape.disk_bytes();
  size_t count = offered;
  while (count > 0 && !day_.fits(count * block_bytes)) --count;
  if (options_.disk_has_room) {
    const Unlocked unlocked(lock);
    while (count > 0 && !options_.disk_has_room(Bytes{count * block_bytes})) --count;
  }
  return count > 0 ? make_room(lock, shape.lineage, block_bytes, count) : 0;
}

bool KvArchive::evict(std::optional<uint64_t> victim) {
  if (!victim) return false;
  index_.remove(*victim);
  dead_.push_back(*victim);
  counters_.evicted.add(1);
  return true;
}

// As far as that goes.
void KvArchive::evict_down_to(uint64_t bytes, size_t blocks) {
  while ((index_.bytes() > bytes || index_.size() > blocks) && evict(index_.victim())) {
  }
}

// For as many as there can be room for. What is evicted makes room for some of them.
size_t KvArchive::make_room(Lock& lock, const Lineage& lineage, uint64_t block_bytes, size_t offered) {
  const uint64_t most = most_live(), most_of_ring = is_in_ring(lineage) ? ring_->bytes : most;
  const size_t most_blocks = options_.most_blocks;
  if (block_bytes > std::min(most, most_of_ring)) return 0;
  uint64_t wanted = block_bytes * offered;
  while (is_in_ring(lineage) && index_.ring_bytes() > most_of_ring - std::min(most_of_ring, wanted) &&
         evict(index_.ring_victim())) {
  }
  const auto room = [](uint64_t limit, uint64_t used) { return limit - std::min(limit, used); };
  if (is_in_ring(lineage)) wanted = std::min(wanted, room(most_of_ring, index_.ring_bytes()));
  evict_down_to(most - std::min(most, wanted), most_blocks - std::min(most_blocks, wanted / block_bytes));
  if (has_dirt()) to_clean_.notify_all();
  const uint64_t used_by_ring = is_in_ring(lineage) ? index_.ring_bytes() : 0;
  const size_t count =
      std::min({offered, room(most, index_.bytes()) / block_bytes,
                room(most_of_ring, used_by_ring) / block_bytes, room(most_blocks, index_.size())});
  crowded_ = count < offered;
  if (count == 0) return 0;
  const auto on_disk = [&] {
    const uint64_t used = batches_.bytes_live() + batches_.bytes_dead() + erasing_bytes_;
    return room(options_.limit.count, used + batch_room()) / block_bytes;
  };
  cleaned_.wait_for(lock, kPatience, [&] { return on_disk() >= count || cannot_clean_; });
  return std::min(count, on_disk());
}

bool KvArchive::crowded() const {
  const Lock lock(mutex_);
  return crowded_;
}

bool KvArchive::mostly_in_use() const {
  const Lock lock(mutex_);
  const uint64_t most = ring_ ? std::min(most_live(), ring_->bytes) : most_live();
  return index_.bytes_in_use() > most / kLiveNumerator * kLiveDenominator / 2;
}

uint64_t KvArchive::rooms_made() const {
  const Lock lock(mutex_);
  return rooms_made_;
}

bool KvArchive::room_comes(uint64_t since) const {
  const Lock lock(mutex_);
  return rooms_made_ != since || !is_settled();
}

bool KvArchive::wait_for_room(uint64_t since, Duration most) {
  Lock lock(mutex_);
  cleaned_.wait_for(lock, most, [&] { return rooms_made_ != since || is_settled(); });
  return rooms_made_ != since;
}

}  // namespace caravan
