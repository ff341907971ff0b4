#include "shards/shard_store.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/copy.h"
#include "base/error.h"
#include "base/log.h"
#include "shards/store_chunk.h"
#include "shards/store_codec.h"

namespace caravan {

namespace {

// A chunk as it comes in parts: summed, and what is wanted of it copied, before the rest is there.
class ChunkReader {
 public:
  ChunkReader(uint64_t seed, uint64_t bytes, uint64_t skip, std::span<std::byte> out)
      : sum_(seed), bytes_(bytes), skip_(skip), out_(out) {}

  // As BulkStore::UsePart. What is wrong so far; empty when all of it is here and right.
  const char* take(uint64_t at, uint64_t of, std::span<const std::byte> part) {
    if (of != bytes_ + kChunkHeaderBytes) return "it has another size";
    if (at == 0) sum_.begin_again();
    if (at < kChunkHeaderBytes) {
      const auto count = std::min<uint64_t>(kChunkHeaderBytes - at, part.size());
      std::memcpy(header_.data() + at, part.data(), count);
      part = part.subspan(count);
      at += count;
    }
    const uint64_t first = at - kChunkHeaderBytes, last = first + part.size();
    sum_.update(part);
    const uint64_t from = std::max(first, skip_), until = std::min<uint64_t>(last, skip_ + out_.size());
    if (from < until) copy_past_caches(part.subspan(from - first, until - from), out_.subspan(from - skip_));
    if (last < bytes_) return "it ends before";
    return std::bit_cast<uint64_t>(header_) == sum_.sum() ? "" : "its checksum is wrong";
  }

 private:
  Xxh3 sum_;
  const uint64_t bytes_, skip_;
  const std::span<std::byte> out_;
  std::array<std::byte, kChunkHeaderBytes> header_{};
};

constexpr std::string_view kSegmentKind = "caravan segment 1";
constexpr std::string_view kModelPrefix = "model/";
constexpr std::string_view kHashPrefix = "hashes/";
constexpr std::string_view kPartialPrefix = "partial/";
constexpr std::string_view kDamagedPrefix = "damaged/";
constexpr std::string_view kNextKey = "next-segment";
// Less than this share of a segment is not worth writing the rest of it again.
constexpr uint64_t kDeadShare = 8;
constexpr size_t kLeastFingerprintDigits = 8;

std::optional<Hash256> hash_in(std::string_view key, std::string_view prefix) {
  Hash256 hash;
  if (!from_hex(key.substr(prefix.size()), hash.bytes.data(), hash.size())) return std::nullopt;
  return hash;
}

}  // namespace

uint64_t ShardStore::Place::own_bytes() const {
  uint64_t own = bytes;
  for (const SharedPiece& piece : shared) own -= piece.length;
  return own;
}

ShardStore::ShardStore(std::shared_ptr<KeyValue> records, std::shared_ptr<BulkStore> bulk,
                       ShardStoreOptions options)
    : records_(std::move(records)), bulk_(std::move(bulk)), options_(std::move(options)) {
  load();
}

void ShardStore::load() {
  std::vector<uint64_t> unfinished;
  records_->scan(kSegmentPrefix, [&](std::string_view key, std::string_view value) {
    const auto number = parse_big_endian(key.substr(kSegmentPrefix.size()));
    if (!number) fail(ErrorCode::kMalformed, "{}: a segment has no number", name());
    next_segment_ = std::max(next_segment_, *number + 1);
    if (value == kUnfinishedSegment)
      unfinished.push_back(*number);
    else
      segments_[*number] = read_segment(*number, value);
    return true;
  });
  if (const auto next = records_->get(kNextKey))
    if (const auto number = parse_big_endian(*next)) next_segment_ = std::max(next_segment_, *number);
  // Of a group that stands in two segments the later place counts: it was moved or mended.
  for (const auto& [number, segment] : segments_)
    for (const auto& [group, place] : segment.groups) index_[group] = place;
  records_->scan(kDamagedPrefix, [&](std::string_view key, std::string_view) {
    if (const auto group = hash_in(key, kDamagedPrefix)) damaged_.insert(*group);
    return true;
  });
  if (!options_.writable) return;
  for (const uint64_t number : unfinished) erase_segment(number);
  for (const Hash256& group : std::set(damaged_))
    if (!index_.count(group)) note_damage(group, false);
}

std::string ShardStore::encode_segment(const Segment& segment) const {
  RecordWriter out(kSegmentKind);
  out.number(segment.own_bytes);
  out.number(uint64_t{segment.groups.size()});
  for (const auto& [group, place] : segment.groups) {
    out.hash(group);
    out.number(place.ordinal);
    out.number(place.bytes);
    out.number(uint64_t{place.shared.size()});
    for (const SharedPiece& piece : place.shared) {
      out.number(piece.offset);
      out.number(piece.length);
      out.hash(piece.other);
      out.number(piece.other_offset);
    }
  }
  return out.finish();
}

ShardStore::Segment ShardStore::read_segment(uint64_t number, std::string_view bytes) const {
  RecordReader in(bytes, kSegmentKind, fmt::format("{}, segment {}", name(), number));
  Segment segment;
  segment.own_bytes = in.number<uint64_t>();
  const uint64_t count = in.count(limits::kMaxTensors, 52);
  for (uint64_t i = 0; i < count; ++i) {
    const Hash256 group = in.hash();
    Place place;
    place.segment = number;
    place.ordinal = in.number<uint32_t>();
    place.bytes = in.number<uint64_t>();
    if (place.bytes > limits::kMaxGroupBytes) in.refuse("a group is too large");
    place.shared.resize(in.count(limits::kMaxTensors, 56));
    uint64_t at = 0;
    for (SharedPiece& piece : place.shared) {
      piece.offset = in.number<uint64_t>();
      piece.length = in.number<uint64_t>();
      piece.other = in.hash();
      piece.other_offset = in.number<uint64_t>();
      if (piece.offset < at || piece.offset > place.bytes || piece.length > place.bytes - piece.offset)
        in.refuse("a shared piece lies outside its group");
      at = piece.offset + piece.length;
    }
    segment.groups.emplace_back(group, std::move(place));
  }
  in.end();
  return segment;
}

void ShardStore::salvage(const UseSalvaged& use) {
  Hash256 group;
  bulk_->salvage([&](std::string_view notes, std::string_view key, std::span<const std::byte> value) {
    const auto place = parse_chunk_key(key);
    if (!place || value.size() <= kChunkHeaderBytes) return;
    const size_t note = size_t{place->ordinal} * group.size();
    if (note + group.size() > notes.size()) return;
    std::memcpy(group.bytes.data(), notes.data() + note, group.size());
    const auto bytes = value.subspan(kChunkHeaderBytes);
    uint64_t sum = 0;
    std::memcpy(&sum, value.data(), sizeof sum);
    if (sum != chunk_sum(group, place->chunk, bytes)) return;
    use(group, uint64_t{place->chunk} * limits::kShardChunkBytes, bytes);
  });
}

void ShardStore::salvage_chunks(const std::string& path, const UseChunk& use) {
  ChunkSlots::read(
      path, [&](const Hash256& group, uint32_t chunk, std::span<const std::byte> value, size_t slot) {
        if (value.size() > kChunkHeaderBytes)
          use(group, uint64_t{chunk} * limits::kShardChunkBytes, value.subspan(kChunkHeaderBytes), slot);
      });
}

std::optional<ShardStore::Place> ShardStore::find(const Hash256& group) const {
  std::shared_lock lock(mutex_);
  const auto found = index_.find(group);
  if (found == index_.end()) return std::nullopt;
  return found->second;
}

std::optional<uint64_t> ShardStore::group_bytes(const Hash256& group) const {
  std::shared_lock lock(mutex_);
  const auto found = index_.find(group);
  if (found == index_.end()) return std::nullopt;
  for (const SharedPiece& piece : found->second.shared)
    if (!index_.count(piece.other)) return std::nullopt;
  return found->second.bytes;
}

bool ShardStore::is_damaged(const Hash256& group) const {
  std::shared_lock lock(mutex_);
  return damaged_.count(group) > 0;
}

void ShardStore::note_damage(const Hash256& group, bool damaged) {
  if (damaged == is_damaged(group)) return;
  const std::string key = std::string(kDamagedPrefix) + to_string(group);
  if (damaged)
    records_->put(key, "");
  else
    records_->erase(key);
  std::unique_lock lock(mutex_);
  if (damaged)
    damaged_.insert(group);
  else
    damaged_.erase(group);
}

uint64_t ShardStore::unused_bytes(std::span<const Hash256> used) const {
  const std::vector<Hash256> live = with_shared(used);
  std::shared_lock lock(mutex_);
  uint64_t sum = 0;
  for (const auto& [number, segment] : segments_) {
    sum += segment.own_bytes;
    for (const auto& [group, place] : segment.groups)
      if (std::binary_search(live.begin(), live.end(), group) && index_.at(group).segment == number)
        sum -= std::min(sum, place.own_bytes());
  }
  return sum;
}

void ShardStore::read(const Hash256& group, uint64_t offset, std::span<std::byte> out) const {
  for (int tries = 0;; ++tries) {
    const auto place = find(group);
    if (!place) fail(ErrorCode::kNotFound, "{}: group {} is not there", name(), to_string(group));
    if (offset > place->bytes || out.size() > place->bytes - offset)
      fail(ErrorCode::kMalformed, "{}: group {}: bytes {}+{} lie past its end at {}", name(),
           to_string(group), offset, out.size(), place->bytes);
    try {
      return read_at(group, *place, offset, out);
    } catch (const Error&) {
      // A sweep may have moved it between the look and the read.
      const auto now = find(group);
      if (tries > 0 || !now || now->segment == place->segment) throw;
    }
  }
}

// The content from `offset`, own and shared pieces in turn.
void ShardStore::read_at(const Hash256& group, const Place& place, uint64_t offset,
                         std::span<std::byte> out) const {
  uint64_t skipped = 0;  // bytes of shared pieces before `offset`
  for (const SharedPiece& piece : place.shared) {
    if (out.empty()) return;
    if (offset < piece.offset) {
      const auto own = std::min<uint64_t>(out.size(), piece.offset - offset);
      read_own(group, place, offset - skipped, out.first(own));
      out = out.subspan(own);
      offset += own;
    }
    if (!out.empty() && offset < piece.offset + piece.length) {
      const auto count = std::min<uint64_t>(out.size(), piece.offset + piece.length - offset);
      const auto other = find(piece.other);
      if (!other || !other->shared.empty())
        fail(ErrorCode::kNotFound, "{}: group {} needs group {}, which is not there", name(),
             to_string(group), to_string(piece.other));
      read_own(piece.other, *other, piece.other_offset + (offset - piece.offset), out.first(count));
      out = out.subspan(count);
      offset += count;
    }
    skipped += piece.length;
  }
  if (!out.empty()) read_own(group, place, offset - skipped, out);
}

void ShardStore::read_own(const Hash256& group, const Place& place, uint64_t offset,
                          std::span<std::byte> out) const {
  const uint64_t own = place.own_bytes();
  if (offset > own || out.size() > own - offset)
    fail(ErrorCode::kMalformed, "{}: group {}: a shared piece lies past its end", name(), to_string(group));
  while (!out.empty()) {
    const uint64_t chunk = offset / limits::kShardChunkBytes, skip = offset % limits::kShardChunkBytes;
    const auto count = std::min<uint64_t>(out.size(), limits::kShardChunkBytes - skip);
    read_chunk(group, place, static_cast<uint32_t>(chunk), skip, out.first(count));
    out = out.subspan(count);
    offset += count;
  }
}

void ShardStore::read_chunk(const Hash256& group, const Place& place, uint32_t chunk, uint64_t skip,
                            std::span<std::byte> out) const {
  const uint64_t whole = std::min<uint64_t>(limits::kShardChunkBytes,
                                            place.own_bytes() - uint64_t{chunk} * limits::kShardChunkBytes);
  std::string problem = "it is missing";
  ChunkReader reader(chunk_seed(group, chunk), whole, skip, out);
  const auto use = [&](uint64_t at, uint64_t of, std::span<const std::byte> part) {
    problem = reader.take(at, of, part);
  };
  try {
    bulk_->read_in_parts(chunk_key(place.segment, place.ordinal, chunk), std::cref(use));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) throw;
    // The database found it first, and names itself.
    fail(ErrorCode::kMalformed, "chunk {} of group {}: {}", chunk, to_string(group), error.message());
  }
  if (!problem.empty())
    fail(ErrorCode::kMalformed, "{}: chunk {} of group {} is damaged: {}", name(), chunk, to_string(group),
         problem);
}

std::vector<ModelRecord> ShardStore::models() const {
  std::vector<ModelRecord> found;
  records_->scan(kModelPrefix, [&](std::string_view key, std::string_view value) {
    found.push_back(decode_model_record(value, fmt::format("{}, {}", name(), key)));
    return true;
  });
  std::sort(found.begin(), found.end(),
            [](const ModelRecord& a, const ModelRecord& b) { return a.name() < b.name(); });
  return found;
}

std::optional<ModelRecord> ShardStore::find_model(std::string_view wanted) const {
  std::optional<ModelRecord> found;
  for (ModelRecord& record : models()) {
    if (record.name() == wanted) return std::move(record);
    if (wanted.size() < kLeastFingerprintDigits ||
        to_string(record.fingerprint).compare(0, wanted.size(), wanted) != 0)
      continue;
    if (found)
      fail(ErrorCode::kInvalidArgument,
           "{}: several models have a fingerprint that begins with {}, such as {} and {}; give the name",
           name(), wanted, found->name(), record.name());
    found = std::move(record);
  }
  return found;
}

void ShardStore::put_model(const ModelRecord& record) {
  const std::string bytes = encode_model_record(record);
  decode_model_record(bytes, record.manifest.path);  // what could not be read again is not kept
  records_->put(key_of(record), bytes);
}

void ShardStore::erase_model(const ModelRecord& record) {
  records_->erase(key_of(record));
}

// By fingerprint and name. A record that was written before one content could have several names has no name
// in its key, and keeps it.
std::string ShardStore::key_of(const ModelRecord& record) const {
  const std::string first = std::string(kModelPrefix) + to_string(record.fingerprint);
  const auto earlier = records_->get(first);
  if (earlier && decode_model_record(*earlier, fmt::format("{}, {}", name(), first)).name() == record.name())
    return first;
  return first + "/" + record.name();
}

std::vector<Hash256> ShardStore::partial_models() const {
  std::vector<Hash256> found;
  records_->scan(kPartialPrefix, [&](std::string_view key, std::string_view) {
    if (const auto record = hash_in(key, kPartialPrefix)) found.push_back(*record);
    return true;
  });
  return found;
}

void ShardStore::put_partial(const Hash256& record) {
  records_->put(std::string(kPartialPrefix) + to_string(record), "");
}

void ShardStore::erase_partial(const Hash256& record) {
  records_->erase(std::string(kPartialPrefix) + to_string(record));
}

ModelRecord ShardStore::read_record(const Hash256& record) const {
  const uint64_t size = group_bytes(record).value_or(0);
  if (size > limits::kMaxModelRecordBytes)
    fail(ErrorCode::kLimit, "{}: a record of {} bytes is over {}", name(), size,
         limits::kMaxModelRecordBytes);
  std::string bytes(size, '\0');
  read(record, 0, std::as_writable_bytes(std::span(bytes)));
  return decode_model_record(bytes, fmt::format("{}, record {}", name(), short_string(record)));
}

std::optional<HashRecord> ShardStore::hashes_of(std::string_view path) const {
  const auto bytes = records_->get(std::string(kHashPrefix) + std::string(path));
  if (!bytes) return std::nullopt;
  try {
    return decode_hash_record(*bytes, path);
  } catch (const Error& error) {
    log_warning("{}", error.message());  // it is only a cache
    return std::nullopt;
  }
}

void ShardStore::put_hashes(std::string_view path, const HashRecord& record) {
  records_->put(std::string(kHashPrefix) + std::string(path), encode_hash_record(record));
}

void ShardStore::erase_hashes(std::string_view path) {
  records_->erase(std::string(kHashPrefix) + std::string(path));
}

void ShardStore::acknowledge(uint64_t number, Segment segment) {
  records_->put(segment_record_key(number), encode_segment(segment));
  {
    std::unique_lock lock(mutex_);
    for (const auto& [group, place] : segment.groups) index_[group] = place;
    segments_[number] = segment;
  }
  for (const auto& [group, place] : segment.groups) note_damage(group, false);
}

// The record goes last: an erasure that was cut short is done again at the next opening or sweep.
void ShardStore::erase_segment(uint64_t number) {
  std::string next;
  append_big_endian(next, next_segment_);
  records_->put(kNextKey, next);
  records_->put(segment_record_key(number), kUnfinishedSegment);
  {
    std::unique_lock lock(mutex_);
    segments_.erase(number);
    for (auto at = index_.begin(); at != index_.end();)
      at = at->second.segment == number ? index_.erase(at) : std::next(at);
  }
  bulk_->erase_range(segment_key(number), segment_key(number + 1));
  records_->erase(segment_record_key(number));
}

// With those that these share pieces of; sorted.
std::vector<Hash256> ShardStore::with_shared(std::span<const Hash256> groups) const {
  std::set<Hash256> all(groups.begin(), groups.end());
  for (const Hash256& group : groups)
    if (const auto place = find(group))
      for (const SharedPiece& piece : place->shared) all.insert(piece.other);
  return {all.begin(), all.end()};
}

std::vector<Hash256> ShardStore::live_groups() const {
  std::vector<Hash256> live;
  for (const ModelRecord& record : models())
    if (record.copied) live.insert(live.end(), record.hashes.begin(), record.hashes.end());
  for (const Hash256& hash : partial_models()) {
    live.push_back(hash);
    try {
      const ModelRecord record = read_record(hash);
      live.insert(live.end(), record.hashes.begin(), record.hashes.end());
    } catch (const Error& error) {
      log_warning("{}", error.message());  // it can be fetched again, and so can its groups
    }
  }
  return with_shared(live);
}

uint64_t ShardStore::sweep(Sweep how) {
  const uint64_t before = bytes().count;
  const std::vector<Hash256> live = live_groups();
  std::vector<uint64_t> numbers;
  // By the room that it takes, of which each makes more: on a full disk, too, whole tables go first.
  std::multimap<uint64_t, std::pair<uint64_t, std::vector<Hash256>>> rewritten;
  for (const auto& [number, segment] : segments_) numbers.push_back(number);
  for (const uint64_t number : numbers) {
    const Segment& segment = segments_.at(number);
    std::vector<Hash256> kept;
    uint64_t kept_bytes = 0;
    for (const auto& [group, place] : segment.groups) {
      const auto now = find(group);
      if (!now || now->segment != number || !std::binary_search(live.begin(), live.end(), group)) continue;
      kept.push_back(group);
      kept_bytes += place.own_bytes();
    }
    const uint64_t dead = segment.own_bytes - std::min(segment.own_bytes, kept_bytes);
    if (kept.empty())
      erase_segment(number);
    else if (dead > (how == Sweep::kAll ? 0 : segment.own_bytes / kDeadShare))
      rewritten.emplace(kept_bytes, std::pair(number, std::move(kept)));
  }
  for (const auto& [room, one] : rewritten) rewrite(one.first, one.second);
  const uint64_t after = bytes().count;
  return before - std::min(before, after);
}

// A group that cannot be read stays where it is, and keeps its segment.
void ShardStore::rewrite(uint64_t number, const std::vector<Hash256>& groups) {
  try {
    Writer writer(*this);
    for (const Hash256& group : groups) {
      const Place place = *find(group);
      writer.write(group, place.bytes, place.shared,
                   [&](uint64_t offset, std::span<std::byte> out) { read_at(group, place, offset, out); },
                   {});
    }
    writer.flush();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed && error.code() != ErrorCode::kNotFound) throw;
    log_warning("{}", error.message());
    return;
  }
  erase_segment(number);
}

}  // namespace caravan
