#include <algorithm>
#include <cstring>
#include <exception>
#include <future>
#include <utility>

#include "base/caught_error.h"
#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "shards/shard_store.h"
#include "shards/store_chunk.h"

namespace caravan {

// Cuts a group's own bytes into chunks and adds them to the batch.
class ShardStore::Writer::Chunks {
 public:
  Chunks(BulkStore::Batch& batch, const Hash256& group, uint64_t segment, uint32_t ordinal)
      : batch_(batch), group_(group), segment_(segment), ordinal_(ordinal) {
    value_.resize(kChunkHeaderBytes + limits::kShardChunkBytes);
  }
  // The rest of the chunk, to be filled from its beginning.
  std::span<std::byte> room() { return std::span(value_).subspan(filled_); }
  void fill(size_t bytes) {
    filled_ += bytes;
    if (filled_ == value_.size()) put();
  }
  void finish() {
    if (filled_ > kChunkHeaderBytes) put();
  }

 private:
  void put() {
    const auto value = std::span(value_).first(filled_);
    const uint64_t sum = chunk_sum(group_, chunk_, value.subspan(kChunkHeaderBytes));
    std::memcpy(value.data(), &sum, sizeof sum);
    batch_.add(chunk_key(segment_, ordinal_, chunk_), value);
    ++chunk_;
    filled_ = kChunkHeaderBytes;
  }

  BulkStore::Batch& batch_;
  const Hash256 group_;
  const uint64_t segment_;
  const uint32_t ordinal_;
  uint32_t chunk_ = 0;
  std::vector<std::byte> value_;
  size_t filled_ = kChunkHeaderBytes;
};

ShardStore::Writer::Writer(ShardStore& store) : store_(store) {
  if (!store.options_.writable) fail(ErrorCode::kInvalidArgument, "{} was opened for reading", store.name());
}

ShardStore::Writer::~Writer() {
  try {
    end_commit();
  } catch (const std::exception&) {
    log_warning("{}", caught_error().message());  // its groups are not there, and were not acknowledged
  }
  if (!batch_) return;
  batch_.reset();
  try {
    store_.records_->erase(segment_record_key(number_));
  } catch (const Error& error) {
    log_warning("{}", error.message());  // the next opening does it
  }
}

const ShardStore::Place* ShardStore::Writer::find_pending(const Hash256& group) const {
  for (const Segment* segment : {&segment_, commit_ ? &commit_->segment : &segment_})
    for (const auto& [hash, place] : segment->groups)
      if (hash == group) return &place;
  return nullptr;
}

bool ShardStore::Writer::has(const Hash256& group) const {
  return store_.contains(group) || find_pending(group) != nullptr;
}

// Whether the piece can be read from the other group, which must not lean on a third one.
bool ShardStore::Writer::holds(const SharedPiece& piece) const {
  auto place = store_.find(piece.other);
  if (const Place* pending = find_pending(piece.other); !place && pending) place = *pending;
  return place && place->shared.empty() && piece.other_offset <= place->bytes &&
         piece.length <= place->bytes - piece.other_offset;
}

void ShardStore::Writer::begin_segment() {
  if (batch_) return;
  number_ = store_.next_segment_++;
  next_ordinal_ = 0;
  segment_ = {};
  store_.records_->put(segment_record_key(number_), kUnfinishedSegment);
  batch_ = store_.bulk_->begin();
}

uint64_t ShardStore::Writer::add(const Hash256& group, uint64_t bytes, std::vector<SharedPiece> shared,
                                 const Content& content, const std::function<void(uint64_t)>& advance) {
  return has(group) ? 0 : write(group, bytes, std::move(shared), content, advance);
}

void ShardStore::Writer::replace(const Hash256& group, uint64_t bytes, const Content& content) {
  write(group, bytes, {}, content, {});
}

uint64_t ShardStore::Writer::write(const Hash256& group, uint64_t bytes, std::vector<SharedPiece> shared,
                                   const Content& content, const std::function<void(uint64_t)>& advance) {
  begin_segment();
  Place place;
  place.segment = number_;
  place.ordinal = next_ordinal_++;
  place.bytes = bytes;
  place.shared = std::move(shared);
  std::erase_if(place.shared, [this](const SharedPiece& piece) { return !holds(piece); });
  const uint64_t own_bytes = place.own_bytes();
  segment_.own_bytes += own_bytes;
  Chunks chunks(*batch_, group, number_, place.ordinal);
  Sha256 hash;
  uint64_t offset = 0;
  // Up to `end`; of shared pieces the bytes are only hashed.
  const auto pass = [&](uint64_t end, bool own) {
    while (offset < end) {
      const auto room = chunks.room();
      const auto part = room.first(std::min<uint64_t>(room.size(), end - offset));
      content(offset, part);
      hash.update(part);
      if (own) chunks.fill(part.size());
      offset += part.size();
      if (advance) advance(part.size());
    }
  };
  for (const SharedPiece& piece : place.shared) {
    CHECK(piece.offset >= offset);
    pass(piece.offset, true);
    pass(piece.offset + piece.length, false);
  }
  pass(bytes, true);
  chunks.finish();
  const Hash256 found = hash.finish();
  if (found != group)
    fail(ErrorCode::kMalformed, "the bytes of group {} hash to {}", to_string(group), to_string(found));
  segment_.groups.emplace_back(group, std::move(place));
  if (segment_.own_bytes >= store_.options_.table_bytes) begin_commit();
  return own_bytes;
}

void ShardStore::Writer::begin_commit() {
  end_commit();
  auto commit = std::make_unique<Commit>(
      Commit{std::exchange(batch_, nullptr), number_, std::exchange(segment_, {}), {}});
  const auto work = [&store = store_, &what = *commit] {
    what.batch->commit();
    store.acknowledge(what.number, what.segment);
  };
  // Where no thread is to be had, it is done by whoever waits for it.
  commit->done = std::async(std::launch::async | std::launch::deferred, work);
  commit_ = std::move(commit);
}

void ShardStore::Writer::end_commit() {
  const auto commit = std::exchange(commit_, nullptr);
  if (!commit) return;
  try {
    commit->done.get();
  } catch (const std::exception&) {
    const Error error = caught_error();
    // No group of now has the wrong bytes by this.
    throw Error(error.code() == ErrorCode::kMalformed ? ErrorCode::kIo : error.code(), error.message());
  }
}

void ShardStore::Writer::flush() {
  if (batch_) begin_commit();
  end_commit();
}

}  // namespace caravan
