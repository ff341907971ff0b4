#include "cache/kv_archive.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <utility>

#include "base/caught_error.h"
#include "base/check.h"
#include "base/log.h"

namespace caravan {

namespace {

constexpr std::string_view kMetaKey = "meta";
constexpr std::string_view kVersion = "caravan kv archive 3";
constexpr std::string_view kOlder[] = {"caravan kv archive 1", "caravan kv archive 2"};
// Off after a failure, twice as long after each further one.
constexpr Duration kFirstOff = std::chrono::seconds(10), kLongestOff = std::chrono::minutes(10);
// More serials than a process can have had on their way to disk when it died.
constexpr uint64_t kSerialsOfOneDeath = 1024;
// From so many bytes on, reading was measured.
constexpr uint64_t kMeasuredBytes = 1u << 20;

uint64_t serial_of(std::string_view key) {
  uint64_t serial = 0;
  for (const char byte : key.substr(1)) serial = serial << 8 | static_cast<uint8_t>(byte);
  return serial;
}

}  // namespace

KvArchive::KvArchive(std::shared_ptr<BulkStore> values, std::shared_ptr<KeyValue> records, const Clock& clock,
                     KvArchiveOptions options)
    : values_(std::move(values)),
      records_(std::move(records)),
      clock_(clock),
      options_(std::move(options)),
      index_(options_.limit),
      day_(clock_, options_.day, options_.limit) {
  CHECK(options_.limit.count > 0u);
  open_meta();
  open();
  house_ = std::thread([this] { keep_house(); });
}

KvArchive::~KvArchive() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
  }
  to_clean_.notify_all();
  house_.join();
  try {
    day_.settle();
    write_meta();
  } catch (const std::exception&) {
    // The day then counts more than was written.
  }
}

// --- Opening ---

void KvArchive::open_meta() {
  const std::optional<std::string> meta = records_->get(kMetaKey);
  if (!meta) return write_meta();
  unsigned long long bytes = 0;
  long long day = 0;
  double clock = 0, ns_per_byte = 0;
  if (std::any_of(std::begin(kOlder), std::end(kOlder),
                  [&](std::string_view older) { return meta->rfind(std::string(older) + "\n", 0) == 0; }))
    fail(ErrorCode::kMalformed, "{} is of an older version", options_.name);
  if (meta->rfind(std::string(kVersion) + "\n", 0) != 0)
    fail(ErrorCode::kUnsupported, "{} is of another version; nothing was changed", options_.name);
  if (std::sscanf(meta->c_str() + kVersion.size(), "%lf %lld %llu %lf", &clock, &day, &bytes, &ns_per_byte) !=
          4 ||
      !std::isfinite(clock) || clock < 0)
    fail(ErrorCode::kMalformed, "{} is damaged: its first record makes no sense", options_.name);
  index_.set_clock(clock);
  day_.set({day, bytes});
  rate_.ns_per_byte = std::clamp(ns_per_byte, 1e-3, 1e6);
}

void KvArchive::write_meta() {
  const std::lock_guard writing(meta_mutex_);
  std::string meta(kVersion);
  KvDayBudget::Record day;
  {
    const Lock lock(mutex_);
    day = day_.record();
    meta += fmt::format("\n{} {} {} {}", index_.clock(), day.day, day.bytes, rate_.ns_per_byte);
  }
  records_->put(kMetaKey, meta);
  const Lock lock(mutex_);
  day_.recorded(day);
}

// What is on disk and in no record was never acknowledged, or was being erased.
void KvArchive::open() {
  std::vector<std::string> damaged;
  uint64_t next = 0;
  // A disk that refuses costs space; the blocks beside the gap are as good as they were.
  const auto erase = [&](const std::string& from, const std::string& to) {
    try {
      values_->erase_range(from, to);
      return true;
    } catch (const Error& error) {
      log_warning("kv_archive_gap_not_erased reason=\"{}\"", error.message());
      return false;
    }
  };
  const auto erase_gap = [&](uint64_t first, uint64_t end) {
    if (first < end) erase(kv_key(first, 0), kv_key(end, 0));
  };
  std::vector<std::pair<uint64_t, ArchivedBatch>> found;
  records_->scan(std::string(1, kArchivedPrefix), [&](std::string_view key, std::string_view value) {
    const uint64_t first = serial_of(key);
    auto batch = key.size() == 9 ? decode_archived(first, value) : std::nullopt;
    if (batch && first >= next && !batch->blocks.empty()) {
      next = batch->last + 1;
      found.emplace_back(first, std::move(*batch));
    } else {
      damaged.emplace_back(key);
    }
    return true;
  });
  for (const std::string& key : damaged) {
    log_warning("kv_archive_record_damaged archive=\"{}\"", options_.name);
    records_->erase(key);
    counters_.quarantined.add(1);
  }
  next = 0;
  for (auto& [first, batch] : found) {
    erase_gap(next, first);
    next = batch.last + 1;
    batches_.add(first, batch.last, batch.blocks.front().bytes);
    record_ends_[first] = batch.last;
    std::vector<uint64_t> dead;
    uint64_t serial = first;
    for (const ArchivedBlock& block : batch.blocks) {
      for (; serial < block.serial; ++serial) dead.push_back(serial);
      serial = block.serial + 1;
      add(block);
    }
    for (; serial <= batch.last; ++serial) dead.push_back(serial);
    batches_.bury(dead);
  }
  // The bound may be a smaller one. What a process that died had given up may be alive again, and has room.
  // What counts as dead may have been erased already.
  const uint64_t counted = batches_.bytes_live() + batches_.bytes_dead();
  const bool fits = std::min(counted, values_->bytes().count) <= options_.limit.count;
  evict_down_to(fits ? options_.limit.count : most_live(), options_.most_blocks);
  const bool clean = erase(kv_key(next, 0), std::string(16, '\xff'));
  // What may still lie behind the last record keeps its serials.
  next_serial_ = std::max<uint64_t>(1, next) + (clean ? 0 : kSerialsOfOneDeath);
}

// --- Looking up ---

bool KvArchive::is_off() const {
  return failures_in_row_ > 0 && clock_.now() < off_until_;
}

KvArchive::Found KvArchive::find(const Lineage& lineage, uint32_t first_layer, uint32_t layers,
                                 std::span<const BlockTag> tags) const {
  Found found;
  if (layers == 0) return {static_cast<uint32_t>(tags.size()), 0};
  const Lock lock(mutex_);
  if (is_off()) return found;
  uint64_t bytes = 0;
  for (const BlockTag& tag : tags) {
    const std::vector<uint64_t> serials = index_.cover(tag, lineage, first_layer, layers);
    if (serials.empty()) break;
    for (const uint64_t serial : serials) bytes += index_.find(serial)->bytes;
    ++found.blocks;
  }
  found.load_ns = static_cast<uint64_t>(static_cast<double>(bytes) * rate_.ns_per_byte);
  return found;
}

KvArchive::Handle KvArchive::make_handle(const BlockTag& tag, std::vector<uint64_t> serials) {
  std::vector<ArchivedBlock> pieces;
  for (const uint64_t serial : serials) {
    const ArchivedBlock* block = index_.find(serial);
    if (block) pieces.push_back(*block);  // else in quarantine already; reading it tells
  }
  const auto handle = std::make_shared<const Block>(*this, tag, std::move(pieces));
  for (const ArchivedBlock& piece : handle->pieces_) index_.pin(piece.serial);
  return handle;
}

KvArchive::Handle KvArchive::adopt(const KvArchiveShape& shape, const BlockTag& tag) {
  const Lock lock(mutex_);
  if (is_off()) return nullptr;
  const std::vector<uint64_t> serials = index_.cover(tag, shape.lineage, shape.first_layer, shape.layers());
  if (serials.empty()) return nullptr;
  for (const uint64_t serial : serials) {
    index_.use(serial);
    used_records_.insert(std::prev(record_ends_.upper_bound(serial))->first);
  }
  counters_.blocks_adopted.add(1);
  return make_handle(tag, serials);
}

void KvArchive::unpin(const Block& block) {
  const Lock lock(mutex_);
  for (const ArchivedBlock& piece : block.pieces_) index_.unpin(piece.serial);
}

// --- Reading ---

std::optional<Error> KvArchive::read(const Block& block, uint32_t first_layer,
                                     std::span<const uint64_t> part_bytes, std::byte* to, bool timed) {
  const auto failure = [&](uint32_t layer, const Error& why) {
    return Error(why.code(), fmt::format("{}: block {}, layer {}: {}", options_.name,
                                         short_string(block.tag()), layer, why.message()));
  };
  uint32_t layer = first_layer;
  while (!part_bytes.empty()) {
    const auto piece = std::find_if(
        block.pieces_.begin(), block.pieces_.end(),
        [&](const ArchivedBlock& one) { return layer >= one.first_layer && layer < one.end_layer(); });
    if (piece == block.pieces_.end()) return failure(layer, {ErrorCode::kIo, "it is not there any more"});
    const auto parts = part_bytes.first(std::min<size_t>(part_bytes.size(), piece->end_layer() - layer));
    const auto failed =
        timed ? read_timed(piece->serial, layer, parts, to) : read_part(piece->serial, layer, parts, to);
    if (failed) {
      if (failed->why.code() != ErrorCode::kOutOfMemory) quarantine(piece->serial);
      return failure(failed->layer, failed->why);
    }
    for (const uint64_t bytes : parts) to += bytes;
    layer += static_cast<uint32_t>(parts.size());
    part_bytes = part_bytes.subspan(parts.size());
  }
  return std::nullopt;
}

std::optional<KvReadFailure> KvArchive::read_part(uint64_t serial, uint32_t first_layer,
                                                  std::span<const uint64_t> part_bytes, std::byte* to) {
  auto failed = read_kv(*values_, serial, first_layer, part_bytes, to);
  if (!failed)
    counters_.bytes_read.add(
        std::accumulate(part_bytes.begin(), part_bytes.end(), part_bytes.size() * kKvSealBytes));
  return failed;
}

std::optional<KvReadFailure> KvArchive::read_timed(uint64_t serial, uint32_t first_layer,
                                                   std::span<const uint64_t> part_bytes, std::byte* to) {
  {
    const Lock lock(mutex_);
    if (rate_.active++ == 0) rate_.since = clock_.now();
  }
  auto failed = read_part(serial, first_layer, part_bytes, to);
  const Lock lock(mutex_);
  if (!failed) rate_.bytes += std::accumulate(part_bytes.begin(), part_bytes.end(), uint64_t{0});
  if (--rate_.active > 0) return failed;
  rate_.busy_ns += static_cast<uint64_t>((clock_.now() - rate_.since).count());
  if (rate_.bytes >= kMeasuredBytes) {
    const double measured = static_cast<double>(rate_.busy_ns) / static_cast<double>(rate_.bytes);
    rate_.ns_per_byte = std::clamp((rate_.ns_per_byte + measured) / 2, 1e-3, 1e6);
    rate_.busy_ns = rate_.bytes = 0;
  }
  return failed;
}

void KvArchive::quarantine(uint64_t serial) {
  std::optional<ArchivedBlock> block;
  {
    const Lock lock(mutex_);
    block = index_.remove(serial);
    if (!block) return;
    dead_.push_back(serial);
    counters_.quarantined.add(1);
  }
  to_clean_.notify_all();
  log_warning("kv_archive_block_quarantined archive=\"{}\" block={} layers={}-{}", options_.name,
              short_string(block->tag), block->first_layer, block->first_layer + block->layers - 1);
}

// --- Writing ---

void KvArchive::failed(const Error& error) {
  Lock lock(mutex_);
  counters_.failures.add(1);
  const auto longer = kFirstOff * (1ull << std::min(failures_in_row_, 16u));
  const Duration off = std::min<Duration>(longer, kLongestOff);
  off_until_ = clock_.now() + off;
  const bool first = failures_in_row_++ == 0;
  lock.unlock();
  const std::string line = fmt::format("kv_archive_off archive=\"{}\" for_s={:.0f} reason=\"{}\"",
                                       options_.name, seconds(off), error.message());
  first ? log_warning("{}", line) : log_info("{}", line);
}

void KvArchive::worked() {
  uint32_t failures = 0;
  {
    const Lock lock(mutex_);
    failures = std::exchange(failures_in_row_, 0);
  }
  if (failures > 0) log_warning("kv_archive_on archive=\"{}\"", options_.name);
}

std::vector<KvArchive::Handle> KvArchive::write(const KvArchiveShape& shape, std::span<const Write> writes) {
  const std::lock_guard writing(write_mutex_);
  const size_t most = std::max<uint64_t>(1, batch_room() / shape.disk_bytes());
  std::vector<Handle> handles(writes.size());
  for (size_t at = 0; at < writes.size(); at += most) {
    const size_t count = std::min(most, writes.size() - at);
    write_batch(shape, writes.subspan(at, count), std::span(handles).subspan(at, count));
  }
  for (size_t i = 0; i < writes.size(); ++i)
    if (!handles[i] && !writes[i].refused) counters_.refused.add(1);
  return handles;
}

void KvArchive::write_batch(const KvArchiveShape& shape, std::span<const Write> writes,
                            std::span<Handle> handles) {
  std::vector<Handle> before;  // what the new blocks continue stays meanwhile
  std::vector<size_t> chosen;
  uint64_t kept_bytes = 0;  // spent, and not given to the store
  try {
    for (size_t i = 0; i < writes.size(); ++i)
      if (writes[i].computed) handles[i] = prove(shape, writes[i].tag);
    chosen = choose(shape, writes, handles, before);
    if (chosen.empty()) return;
    {
      Lock lock(mutex_);
      const size_t count = may_write(lock, shape, chosen.size());
      chosen.resize(count);
      if (chosen.empty()) return;
      spend(lock, shape.disk_bytes() * count);
      kept_bytes = shape.disk_bytes() * count;
    }
    const uint64_t first = next_serial_;
    next_serial_ += chosen.size();
    store(shape, writes, chosen, first, kept_bytes);
    {
      const Lock lock(mutex_);
      for (size_t i = 0; i < chosen.size(); ++i)
        handles[chosen[i]] = make_handle(writes[chosen[i]].tag, {first + i});
    }
    worked();
  } catch (const std::exception&) {
    {
      const Lock lock(mutex_);
      day_.correct(kept_bytes, 0);
    }
    failed(caught_error());
  }
}

// What is here, once all of it was read, in the background. What is damaged goes into quarantine, so that the
// block is written anew. Throws without memory to read.
KvArchive::Handle KvArchive::prove(const KvArchiveShape& shape, const BlockTag& tag) {
  std::vector<std::byte> part;
  while (Handle block = adopt(shape, tag)) {
    std::optional<Error> error;
    for (uint32_t layer = 0; layer < shape.layers() && !error; ++layer) {
      part.resize(shape.part_bytes[layer]);
      const auto bytes = std::span(shape.part_bytes).subspan(layer, 1);
      error = block->read_aside(shape.first_layer + layer, bytes, part.data());
    }
    if (!error) return block;
    if (error->code() == ErrorCode::kOutOfMemory) throw Error(*error);
  }
  return nullptr;
}

// Those that are to be written; the others have a handle, or are refused.
std::vector<size_t> KvArchive::choose(const KvArchiveShape& shape, std::span<const Write> writes,
                                      std::span<Handle> handles, std::vector<Handle>& before) {
  std::vector<size_t> chosen;
  std::set<BlockTag> together;
  before.reserve(writes.size());  // a handle that found no room would go under the lock, which it takes
  const Lock lock(mutex_);
  const auto cover = [&](const BlockTag& tag) {
    return index_.cover(tag, shape.lineage, shape.first_layer, shape.layers());
  };
  for (size_t i = 0; i < writes.size(); ++i) {
    const Write& write = writes[i];
    if (handles[i]) continue;
    const auto serials = cover(write.tag);
    if (!serials.empty() && !write.computed) {
      handles[i] = make_handle(write.tag, serials);
      continue;
    }
    // Tags come from afar: no block may be its own successor.
    const auto parts = index_.within(write.tag, shape.lineage, 0, UINT32_MAX / 2);
    const bool strange = write.tag == BlockTag{} || write.tag == write.previous ||
                         std::any_of(parts.begin(), parts.end(), [&](uint64_t serial) {
                           return index_.find(serial)->previous != write.previous;
                         });
    const bool continues = write.previous == BlockTag{} || together.count(write.previous) > 0;
    const auto earlier = continues ? std::vector<uint64_t>() : cover(write.previous);
    // What is here and was computed could not be read, because it is off.
    if (is_off() || !serials.empty() || strange || (!continues && earlier.empty())) continue;
    if (!earlier.empty()) before.push_back(make_handle(write.previous, earlier));
    if (together.insert(write.tag).second) chosen.push_back(i);
  }
  return chosen;
}

void KvArchive::store(const KvArchiveShape& shape, std::span<const Write> writes,
                      std::span<const size_t> chosen, uint64_t first, uint64_t& kept_bytes) {
  std::vector<std::byte> value;
  const auto batch = values_->begin();
  for (size_t i = 0; i < chosen.size(); ++i) {
    const std::byte* part = writes[chosen[i]].block;
    for (uint32_t layer = 0; layer < shape.layers(); ++layer) {
      seal_kv({part, shape.part_bytes[layer]}, first + i, shape.first_layer + layer, value);
      kept_bytes -= value.size();
      batch->add(kv_key(first + i, shape.first_layer + layer), value);
      part += shape.part_bytes[layer];
    }
  }
  const uint64_t last = first + chosen.size() - 1, bytes = shape.disk_bytes();
  std::vector<ArchivedBlock> blocks;
  {
    const Lock lock(mutex_);
    for (size_t i = 0; i < chosen.size(); ++i) {
      const Write& write = writes[chosen[i]];
      ArchivedBlock block{first + i,         write.tag,      write.previous, shape.lineage,
                          shape.first_layer, shape.layers(), bytes};
      block.last_use = index_.clock();
      block.ring_blocks = is_in_ring(shape.lineage) ? ring_->blocks : 0;
      blocks.push_back(block);
    }
    index_.set_runs(blocks);
  }
  batch->commit();
  try {
    records_->put(archived_key(first), encode_archived(last, blocks));
  } catch (const std::exception&) {
    const Lock lock(mutex_);
    orphans_.push_back({first, last});
    throw;
  }
  counters_.bytes_written.add(bytes * chosen.size());
  counters_.blocks_written.add(chosen.size());
  const Lock lock(mutex_);
  batches_.add(first, last, bytes);
  record_ends_[first] = last;
  for (const ArchivedBlock& block : blocks) {
    add(block);
    index_.age(block);  // what is refused is offered again, and must not age others each time
  }
}

// Takes the place of what held no more than it does: of another cut, or given up but still on record when the
// process died.
void KvArchive::add(const ArchivedBlock& block) {
  const auto older = index_.within(block.tag, block.lineage, block.first_layer, block.layers);
  index_.add(block);
  for (const uint64_t serial : older) {
    index_.remove(serial);
    dead_.push_back(serial);
  }
  if (!older.empty()) to_clean_.notify_all();
}

KvArchive::Status KvArchive::status() const {
  const Lock lock(mutex_);
  return {batches_.bytes_live() + batches_.bytes_dead() + erasing_bytes_, index_.size(), is_off()};
}

}  // namespace caravan
