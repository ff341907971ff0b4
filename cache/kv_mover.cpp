#include "cache/kv_mover.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"

namespace caravan {

namespace {

constexpr size_t kMostBlocksABatch = 16;
// Dead blocks that are left alone whatever lives beside them.
constexpr uint64_t kDeadBlocks = 64;

// Big-endian, so that the order of keys is that of serials.
std::string key_of(uint64_t serial, uint32_t layer) {
  std::string key(12, '\0');
  for (int i = 0; i < 8; ++i) key[i] = static_cast<char>(serial >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) key[8 + i] = static_cast<char>(layer >> (24 - 8 * i));
  return key;
}

// The place is part of it, so that a part in another's place is found, too.
uint64_t checksum(std::span<const std::byte> part, uint64_t serial, uint32_t layer) {
  return xxh3(part, serial * 0x9e3779b97f4a7c15u + layer);
}

}  // namespace

class KvMover::Reading {
 public:
  size_t left = 0;
  std::optional<Error> error;
};

KvMover::KvMover(BulkStore& store, const Clock& clock, KvCounters& counters, std::vector<uint64_t> part_bytes,
                 std::string name, uint32_t first_layer, uint32_t readers)
    : store_(store),
      clock_(clock),
      counters_(counters),
      part_bytes_(std::move(part_bytes)),
      name_(std::move(name)),
      first_layer_(first_layer) {
  threads_.emplace_back([this] { write_loop(); });
  for (uint32_t i = 0; i < readers; ++i) threads_.emplace_back([this] { read_loop(); });
}

KvMover::~KvMover() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
    reads_.clear();
    writes_.clear();
  }
  to_write_.notify_all();
  to_read_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void KvMover::write(uint64_t serial, const std::byte* block) {
  {
    const Lock lock(mutex_);
    writes_.push_back({serial, block});
    ++writes_under_way_;
  }
  to_write_.notify_one();
}

void KvMover::erase(uint64_t serial) {
  const Lock lock(mutex_);
  erased_.push_back(serial);
  // Heard with the next write, or once there are many: nothing waits for the space.
  if (erased_.size() >= kMostBlocksABatch) to_write_.notify_one();
}

std::vector<KvMover::Written> KvMover::take_written() {
  const Lock lock(mutex_);
  return std::exchange(written_, {});
}

void KvMover::wait_written() {
  Lock lock(mutex_);
  const auto there = [&] { return !written_.empty() || writes_under_way_ == 0; };
  if (there()) return;
  const Time start = clock_.now();
  done_.wait(lock, there);
  counters_.waited_ns.add(static_cast<uint64_t>((clock_.now() - start).count()));
}

KvMover::Ticket KvMover::read(std::span<const KvRead> parts) {
  auto ticket = std::make_shared<Reading>();
  {
    const Lock lock(mutex_);
    ticket->left = parts.size();
    for (const KvRead& part : parts) reads_.push_back({ticket, part});
  }
  to_read_.notify_all();
  return ticket;
}

std::optional<Error> KvMover::wait(const Ticket& ticket) {
  Lock lock(mutex_);
  if (ticket->left > 0) {
    const Time start = clock_.now();
    done_.wait(lock, [&] { return ticket->left == 0; });
    counters_.waited_ns.add(static_cast<uint64_t>((clock_.now() - start).count()));
  }
  return ticket->error;
}

void KvMover::write_loop() {
  for (;;) {
    Lock lock(mutex_);
    to_write_.wait(lock,
                   [&] { return stopping_ || !writes_.empty() || erased_.size() >= kMostBlocksABatch; });
    if (stopping_) return;
    std::vector<Write> batch;
    while (!writes_.empty() && batch.size() < kMostBlocksABatch) {
      batch.push_back(writes_.front());
      writes_.pop_front();
    }
    std::vector<uint64_t> dead;
    // Serials still waiting to be written cannot be dead: their blocks are told of first.
    dead.swap(erased_);
    lock.unlock();
    const std::optional<Error> error = batch.empty() ? std::nullopt : write_batch(batch);
    lock.lock();
    for (const Write& write : batch) written_.push_back({write.serial, error});
    writes_under_way_ -= batch.size();
    lock.unlock();
    done_.notify_all();
    bury(dead);
  }
}

std::optional<Error> KvMover::write_batch(std::span<const Write> writes) {
  try {
    uint64_t bytes = 0;
    std::vector<std::byte> value;
    const auto batch = store_.begin();
    for (const Write& write : writes) {
      const std::byte* part = write.block;
      for (uint32_t layer = 0; layer < part_bytes_.size(); ++layer) {
        const uint64_t size = part_bytes_[layer];
        value.assign(part, part + size);
        const uint64_t sum = checksum(value, write.serial, layer);
        value.resize(size + sizeof sum);
        std::memcpy(value.data() + size, &sum, sizeof sum);
        batch->add(key_of(write.serial, layer), value);
        part += size;
        bytes += value.size();
      }
    }
    batch->commit();
    counters_.bytes_written.add(bytes);
  } catch (const Error& error) {
    return Error(error.code(), "KV cannot be written: " + error.message());
  }
  batches_[writes.front().serial] = {writes.back().serial, {}};
  blocks_live_ += writes.size();
  return std::nullopt;
}

// A failure here costs space alone, which the next start gives back.
void KvMover::erase_range(uint64_t first, uint64_t last) {
  try {
    store_.erase_range(key_of(first, 0), key_of(last + 1, 0));
  } catch (const Error& error) {
    log_warning("kv_erase_failed reason=\"{}\"", error.message());
  }
}

void KvMover::bury(std::span<const uint64_t> serials) {
  for (const uint64_t serial : serials) {
    auto found = batches_.upper_bound(serial);
    CHECK((found != batches_.begin()));
    Batch& batch = (--found)->second;
    CHECK(serial <= batch.last);
    batch.dead.push_back(serial);
    --blocks_live_;
    ++blocks_dead_;
    if (batch.dead.size() <= batch.last - found->first) continue;
    erase_range(found->first, batch.last);
    blocks_dead_ -= batch.dead.size();
    batches_.erase(found);
  }
  if (blocks_dead_ > kDeadBlocks && blocks_dead_ > blocks_live_ / 2) compact();
}

// Batches are cut where their dead were.
void KvMover::compact() {
  std::map<uint64_t, Batch> kept;
  for (auto& [first, batch] : batches_) {
    std::sort(batch.dead.begin(), batch.dead.end());
    uint64_t start = first;
    for (size_t i = 0; i < batch.dead.size();) {
      const uint64_t from = batch.dead[i];
      uint64_t to = from;
      while (++i < batch.dead.size() && batch.dead[i] == to + 1) ++to;
      erase_range(from, to);
      if (from > start) kept[start] = {from - 1, {}};
      start = to + 1;
    }
    if (start <= batch.last) kept[start] = {batch.last, {}};
  }
  batches_ = std::move(kept);
  blocks_dead_ = 0;
}

void KvMover::read_loop() {
  for (;;) {
    Lock lock(mutex_);
    to_read_.wait(lock, [&] { return stopping_ || !reads_.empty(); });
    if (stopping_) return;
    const Part part = std::move(reads_.front());
    reads_.pop_front();
    // The rest of a reading that failed is of no use.
    const bool useless = part.ticket->error.has_value();
    lock.unlock();
    std::optional<Error> error;
    if (!useless) error = read_part(part.read);
    lock.lock();
    if (error && !part.ticket->error) part.ticket->error = std::move(error);
    const bool last = --part.ticket->left == 0;
    lock.unlock();
    if (last) done_.notify_all();
  }
}

std::optional<Error> KvMover::read_part(const KvRead& read) const {
  const uint64_t size = part_bytes_[read.layer];
  const uint32_t layer = first_layer_ + read.layer;
  std::optional<Error> error;
  const auto is = [&](ErrorCode code, const std::string& what) {
    error.emplace(code, fmt::format("{}: block {}, layer {}: {}", name_, read.serial, layer, what));
  };
  try {
    const bool found = store_.read(key_of(read.serial, read.layer), [&](std::span<const std::byte> value) {
      uint64_t sum = 0;
      if (value.size() != size + sizeof sum)
        return is(ErrorCode::kIo, fmt::format("{} of {} bytes came back", value.size(), size + sizeof sum));
      std::memcpy(&sum, value.data() + size, sizeof sum);
      if (checksum(value.first(size), read.serial, read.layer) != sum)
        return is(ErrorCode::kMalformed, "it is damaged on disk, its checksum differs");
      std::memcpy(read.to, value.data(), size);
      counters_.bytes_read.add(value.size());
    });
    if (!found) is(ErrorCode::kIo, "it is not there any more");
  } catch (const Error& thrown) {
    is(thrown.code(), thrown.message());
  }
  return error;
}

}  // namespace caravan
