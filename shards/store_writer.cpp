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

// A group being added: its own bytes go into the batch in chunks, all of them through the hash.
class ShardStore::Writer::Adding {
 public:
  Adding(BulkStore::Batch& batch, ChunkSlots& slots, const Hash256& group, Place place)
      : batch_(batch), slots_(slots), group_(group), place_(std::move(place)) {
    slots_.note(group_, chunk_, 0);
  }
  const Hash256& group() const { return group_; }
  uint64_t passed() const { return passed_; }
  uint64_t written() const { return written_; }  // into the batch
  uint64_t left() const { return place_.bytes - passed_; }
  const std::vector<SharedPiece>& shared() const { return place_.shared; }
  // Where the next bytes go: to the end of their chunk at most.
  std::span<std::byte> room() { return slots_.now().first(kValueBytes).subspan(filled_); }
  // The first `bytes` of the room have come. What is another group's is only hashed.
  void pass(size_t bytes, bool own = true) {
    CHECK(bytes <= left());
    hash_.update(room().first(bytes));
    passed_ += bytes;
    if (!own) return;
    filled_ += bytes;
    slots_.note(group_, chunk_, filled_);
    if (filled_ == kValueBytes) put();
  }
  void write_rest() {
    if (filled_ > kChunkHeaderBytes) put();
  }
  // Throws kMalformed when the bytes have another hash than the group.
  std::pair<Hash256, Place> finish() {
    CHECK(left() == 0u);
    const Hash256 found = hash_.finish();
    if (found != group_)
      fail(ErrorCode::kMalformed, "the bytes of group {} hash to {}", to_string(group_), to_string(found));
    return {group_, std::move(place_)};
  }

 private:
  void put() {
    const auto value = slots_.now().first(filled_);
    const uint64_t sum = chunk_sum(group_, chunk_, value.subspan(kChunkHeaderBytes));
    std::memcpy(value.data(), &sum, sizeof sum);
    batch_.add(chunk_key(place_.segment, place_.ordinal, chunk_), value);
    slots_.next();
    ++chunk_;
    written_ += filled_ - kChunkHeaderBytes;
    filled_ = kChunkHeaderBytes;
  }

  static constexpr size_t kValueBytes = kChunkHeaderBytes + limits::kShardChunkBytes;

  BulkStore::Batch& batch_;
  ChunkSlots& slots_;
  const Hash256 group_;
  Place place_;
  Sha256 hash_;
  uint64_t passed_ = 0;  // bytes of the group
  uint64_t written_ = 0;
  uint32_t chunk_ = 0;
  size_t filled_ = kChunkHeaderBytes;
};

ShardStore::Writer::Writer(ShardStore& store, const std::string& keep_in)
    : store_(store),
      then_(keep_in.empty() ? BulkStore::Uncommitted::kGone : BulkStore::Uncommitted::kKept),
      slots_(keep_in, kChunkHeaderBytes + limits::kShardChunkBytes) {
  if (!store.options_.writable) fail(ErrorCode::kInvalidArgument, "{} was opened for reading", store.name());
}

ShardStore::Writer::~Writer() {
  try {
    if (adding_ && then_ == BulkStore::Uncommitted::kKept) adding_->write_rest();
  } catch (const std::exception&) {
    log_debug("{}", caught_error().message());  // its last chunk is not there
  }
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
  return (store_.contains(group) && !store_.is_damaged(group)) || find_pending(group) != nullptr;
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
  batch_ = store_.bulk_->begin(then_);
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
  start(group, bytes, std::move(shared));
  const auto pass = [&](uint64_t end, bool own) {
    while (adding_->passed() < end) {
      const auto room = adding_->room();
      const auto part = room.first(std::min<uint64_t>(room.size(), end - adding_->passed()));
      content(adding_->passed(), part);
      adding_->pass(part.size(), own);
      if (advance) advance(part.size());
    }
  };
  for (const SharedPiece& piece : adding_->shared()) {
    CHECK(piece.offset >= adding_->passed());
    pass(piece.offset, true);
    pass(piece.offset + piece.length, false);
  }
  pass(bytes, true);
  return end();
}

void ShardStore::Writer::start(const Hash256& group, uint64_t bytes, std::vector<SharedPiece> shared) {
  give_up();
  begin_segment();
  Place place;
  place.segment = number_;
  place.ordinal = next_ordinal_++;
  const auto* name = reinterpret_cast<const char*>(group.bytes.data());
  batch_->note({name, group.size()});  // those of the segment, by ordinal
  place.bytes = bytes;
  place.shared = std::move(shared);
  std::erase_if(place.shared, [this](const SharedPiece& piece) { return !holds(piece); });
  adding_ = std::make_unique<Adding>(*batch_, slots_, group, std::move(place));
}

void ShardStore::Writer::begin(const Hash256& group, uint64_t bytes) {
  start(group, bytes, {});
}

// What was written of it lies dead in its table.
void ShardStore::Writer::give_up() {
  if (const auto adding = std::exchange(adding_, nullptr)) segment_.own_bytes += adding->written();
}

std::optional<uint64_t> ShardStore::Writer::passed(const Hash256& group) const {
  if (!adding_ || adding_->group() != group) return std::nullopt;
  return adding_->passed();
}

void ShardStore::Writer::append(std::span<const std::byte> bytes) {
  CHECK(adding_ != nullptr);
  auto adding = std::exchange(adding_, nullptr);  // nobody goes on in the middle of what is refused
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), adding->room().size()));
    std::memcpy(adding->room().data(), part.data(), part.size());
    adding->pass(part.size());
    bytes = bytes.subspan(part.size());
  }
  adding_ = std::move(adding);
}

uint64_t ShardStore::Writer::end() {
  CHECK(adding_ != nullptr);
  adding_->write_rest();
  segment_.own_bytes += adding_->written();
  auto [group, place] = std::exchange(adding_, nullptr)->finish();
  const uint64_t own_bytes = place.own_bytes();
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
    what.batch.reset();  // what was kept of it has been needed until now
  };
  slots_.hold();
  // Where no thread is to be had, it is done by whoever waits for it.
  commit->done = std::async(std::launch::async | std::launch::deferred, work);
  commit_ = std::move(commit);
}

void ShardStore::Writer::end_commit() {
  const auto commit = std::exchange(commit_, nullptr);
  if (!commit) return;
  slots_.landed();
  try {
    commit->done.get();
  } catch (const std::exception&) {
    const Error error = caught_error();
    // No group of now has the wrong bytes by this.
    throw Error(error.code() == ErrorCode::kMalformed ? ErrorCode::kIo : error.code(), error.message());
  }
}

void ShardStore::Writer::flush() {
  give_up();
  if (batch_) begin_commit();
  end_commit();
}

}  // namespace caravan
