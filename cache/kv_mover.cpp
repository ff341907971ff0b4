#include "cache/kv_mover.h"

#include <numeric>
#include <string>
#include <utility>

#include "base/caught_error.h"
#include "base/check.h"
#include "base/log.h"
#include "cache/kv_value.h"

namespace caravan {

namespace {

constexpr size_t kMostBlocksABatch = 16;
// A computation that needs a frame waits for the end of one batch of copies at most: a short one.
constexpr size_t kMostCopiesABatch = 4;
// Dead blocks that are left alone whatever lives beside them.
constexpr uint64_t kDeadBlocks = 4;

}  // namespace

class KvMover::Reading {
 public:
  size_t left = 0;
  std::optional<Error> error;
};

KvMover::KvMover(BulkStore* store, KvArchive* archive, KvArchiveShape shape, const Clock& clock,
                 KvCounters& counters, std::string name, uint32_t readers)
    : store_(store),
      archive_(archive),
      shape_(std::move(shape)),
      clock_(clock),
      counters_(counters),
      name_(std::move(name)) {
  try {
    if (store_) threads_.emplace_back([this] { write_loop(); });
    if (archive_) threads_.emplace_back([this] { archive_loop(); });
    for (uint32_t i = 0; i < readers; ++i) threads_.emplace_back([this] { read_loop(); });
  } catch (...) {
    end();
    throw;
  }
}

KvMover::~KvMover() {
  end();
}

void KvMover::end() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
    reads_.clear();
    writes_.clear();
    copies_.clear();
    archive_writes_.clear();
  }
  to_write_.notify_all();
  to_archive_.notify_all();
  to_read_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// With room for its answer.
void KvMover::queue(std::deque<Write>& queue, Write write) {
  written_.reserve(written_.size() + writes_under_way_ + 1);
  queue.push_back(std::move(write));
  ++writes_under_way_;
}

void KvMover::write(uint64_t serial, const std::byte* block) {
  {
    const Lock lock(mutex_);
    queue(writes_, {serial, block});
  }
  to_write_.notify_one();
}

void KvMover::archive(uint64_t serial, const KvTag& tag, const std::byte* block) {
  {
    const Lock lock(mutex_);
    archived_.emplace(serial, nullptr);
    queue(archive_writes_, {serial, block, tag});
  }
  to_archive_.notify_one();
}

void KvMover::copy(uint64_t serial, uint64_t archived) {
  {
    const Lock lock(mutex_);
    queue(copies_, {serial, nullptr, {}, archived_.at(archived)});
  }
  to_write_.notify_one();
}

void KvMover::adopt(uint64_t serial, KvArchive::Handle block) {
  const Lock lock(mutex_);
  archived_.emplace(serial, std::move(block));
}

void KvMover::erase(uint64_t serial) {
  KvArchive::Handle dropped;  // goes after the lock
  const Lock lock(mutex_);
  if (is_archived(serial)) {
    const auto found = archived_.find(serial);
    if (found == archived_.end()) return;
    dropped = std::move(found->second);
    archived_.erase(found);
    return;
  }
  erased_.push_back(serial);
  // Heard with the next write, or once there are many: nothing waits for the space.
  if (erased_.size() >= kMostBlocksABatch) to_write_.notify_one();
}

std::vector<KvMover::Written> KvMover::take_written() {
  std::vector<Written> taken;
  const Lock lock(mutex_);
  if (written_.empty()) return taken;
  taken.reserve(writes_under_way_);
  taken.swap(written_);
  return taken;
}

void KvMover::wait_written() {
  Lock lock(mutex_);
  const auto there = [&] { return !written_.empty() || writes_under_way_ == 0; };
  if (there()) return;
  const Time start = clock_.now();
  done_.wait(lock, there);
  counters_.waited_ns.add(static_cast<uint64_t>((clock_.now() - start).count()));
}

bool KvMover::wait_written(Duration most) {
  Lock lock(mutex_);
  return done_.wait_for(lock, most, [&] { return !written_.empty() || writes_under_way_ == 0; });
}

KvMover::Ticket KvMover::read(std::span<const KvRead> parts) {
  auto ticket = std::make_shared<Reading>();
  {
    const Lock lock(mutex_);
    ticket->left = parts.size();
    for (const KvRead& part : parts)
      reads_.push_back({ticket, part, is_archived(part.serial) ? archived_.at(part.serial) : nullptr});
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

void KvMover::take_batch(std::deque<Write>& queue, std::vector<Write>& batch, size_t most) {
  batch.clear();
  while (!queue.empty() && batch.size() < most) {
    batch.push_back(std::move(queue.front()));
    queue.pop_front();
  }
}

void KvMover::write_loop() {
  std::vector<Write> batch;
  batch.reserve(kMostBlocksABatch);
  for (;;) {
    Lock lock(mutex_);
    to_write_.wait(lock, [&] {
      return stopping_ || !writes_.empty() || !copies_.empty() || erased_.size() >= kMostBlocksABatch;
    });
    if (stopping_) return;
    take_batch(writes_, batch, kMostBlocksABatch);
    if (batch.empty()) take_batch(copies_, batch, kMostCopiesABatch);
    std::vector<uint64_t> dead;
    // Serials still waiting to be written cannot be dead: their blocks are told of first.
    dead.swap(erased_);
    lock.unlock();
    const std::optional<Error> error = batch.empty() ? std::nullopt : write_batch(batch);
    for (Write& write : batch) write.archived.reset();  // who is told finds its place in the archive free
    lock.lock();
    for (const Write& write : batch) written_.push_back({write.serial, false, error});
    writes_under_way_ -= batch.size();
    lock.unlock();
    done_.notify_all();
    bury(dead);
  }
}

void KvMover::archive_loop() {
  std::vector<Write> batch;
  batch.reserve(kMostBlocksABatch);
  for (;;) {
    Lock lock(mutex_);
    to_archive_.wait(lock, [&] { return stopping_ || !archive_writes_.empty(); });
    if (stopping_) return;
    take_batch(archive_writes_, batch, kMostBlocksABatch);
    lock.unlock();
    std::vector<KvArchive::Handle> handles = archive_batch(batch);
    lock.lock();
    for (size_t i = 0; i < batch.size(); ++i) {
      const bool refused = handles.empty() || !handles[i];
      written_.push_back({batch[i].serial, refused, std::nullopt});
      const auto archived = archived_.find(batch[i].serial);
      if (refused)
        archived_.erase(archived);
      else
        archived->second = std::move(handles[i]);
    }
    writes_under_way_ -= batch.size();
    lock.unlock();
    done_.notify_all();
  }
}

// Empty: there was no memory for handles.
std::vector<KvArchive::Handle> KvMover::archive_batch(std::span<const Write> batch) const {
  try {
    std::vector<KvArchive::Write> writes;
    for (const Write& write : batch) {
      const KvTag& tag = write.tag;
      writes.push_back({tag.tag, tag.previous, write.block, tag.computed, tag.refused});
    }
    return archive_->write(shape_, writes);
  } catch (const std::exception&) {
    return {};
  }
}

std::optional<Error> KvMover::write_batch(std::span<const Write> writes) {
  uint64_t bytes = 0;
  try {
    std::vector<std::byte> value, copied;
    const auto batch = store_->begin();
    for (const Write& write : writes) {
      const std::byte* block = write.block;
      for (uint32_t layer = 0; layer < shape_.layers(); ++layer) {
        std::span<const std::byte> part(block, shape_.part_bytes[layer]);
        if (write.archived) {
          if (!read_archived(write, layer, copied)) break;
          part = copied;
        } else {
          block += part.size();
        }
        seal_kv(part, write.serial, layer, value);
        batch->add(kv_key(write.serial, layer), value);
        bytes += value.size();
      }
    }
    batch->commit();
    counters_.bytes_written.add(bytes);
    batches_.add(writes.front().serial, writes.back().serial, bytes / writes.size());
  } catch (const std::exception&) {
    const Error error = caught_error();
    return Error(error.code(), "KV cannot be written: " + error.message());
  }
  return std::nullopt;
}

// False when it is lost: its sequence then is, when it reads the copy, as it would have been without. Throws
// when there is no memory for it.
bool KvMover::read_archived(const Write& write, uint32_t layer, std::vector<std::byte>& to) const {
  const auto bytes = std::span(shape_.part_bytes).subspan(layer, 1);
  to.resize(bytes.front());
  const std::optional<Error> error = write.archived->read_aside(shape_.first_layer + layer, bytes, to.data());
  if (error && error->code() == ErrorCode::kOutOfMemory) throw Error(*error);
  return !error;
}

// What fails costs space alone, which the next start gives back.
void KvMover::bury(std::span<const uint64_t> serials) {
  const auto or_warn = [](const auto& erase) {
    try {
      erase();
    } catch (const std::exception&) {
      log_warning("kv_erase_failed reason=\"{}\"", caught_error().message());
    }
  };
  or_warn([&] {
    std::vector<KvBatches::Range> ranges = batches_.bury(serials);
    if (batches_.blocks_dead() > kDeadBlocks && batches_.blocks_dead() > batches_.blocks_live() / 2)
      for (const KvBatches::Range& range : batches_.compact()) ranges.push_back(range);
    for (const std::vector<BulkStore::Range>& keys : KvBatches::keys_of(ranges))
      or_warn([&] { store_->erase_ranges(keys); });
  });
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
    try {
      if (!useless) error = read_part(part);
    } catch (const std::exception&) {
      error = caught_error();
    }
    lock.lock();
    if (error && !part.ticket->error) part.ticket->error = std::move(error);
    const bool last = --part.ticket->left == 0;
    lock.unlock();
    if (last) done_.notify_all();
  }
}

std::optional<Error> KvMover::read_part(const Part& part) const {
  const KvRead& read = part.read;
  const auto bytes = std::span(shape_.part_bytes).subspan(read.first_layer, read.layers);
  if (part.archived) return part.archived->read(shape_.first_layer + read.first_layer, bytes, read.to);
  if (const auto failed = read_kv(*store_, read.serial, read.first_layer, bytes, read.to))
    return Error(failed->why.code(), fmt::format("{}: block {}, layer {}: {}", name_, read.serial,
                                                 shape_.first_layer + failed->layer, failed->why.message()));
  counters_.bytes_read.add(std::accumulate(bytes.begin(), bytes.end(), bytes.size() * kKvSealBytes));
  return std::nullopt;
}

}  // namespace caravan
