#include "cache/kv_frames.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/check.h"

namespace caravan {

namespace {

// As many as the rows of the largest step fill, twice.
constexpr uint32_t kMostAhead = 2 * limits::kMaxRowsPerStep / limits::kKvBlockPositions;
// Steps after which a sequence that had no rows makes room for one that reads from disk.
constexpr uint64_t kIdleSteps = 64;
// Steps after which an idle sequence lets go of its copies in the archive: more than a sequence that runs
// misses, where several steps are on their way through a ring.
constexpr uint64_t kLetGoSteps = 8;
// Steps after which what the archive refused is offered again, of what ran in them: a day's budget, a disk or
// others may have made room. Offering costs no writing.
constexpr uint64_t kOfferAgainSteps = 64;
// Blocks on their way to the archive at a time: they cannot change, nor give way.
constexpr size_t kMostArchiving = 16;
// Blocks on their way from there to the store at a time.
constexpr size_t kMostCopying = 16;

}  // namespace

KvFrames::KvFrames(Device& device, Budget& budget, std::vector<KvLayerShape> layers, KvType type,
                   uint32_t blocks, const std::optional<KvSpill>& spill,
                   const std::optional<KvSharing>& sharing)
    : device_(device),
      budget_(budget),
      layers_(std::move(layers)),
      type_(type),
      store_blocks_(spill ? spill->store_blocks : 0),
      store_(spill && spill->store),
      archive_(spill ? spill->archive : nullptr),
      residency_(std::max(1u, sharing ? sharing->least
                              : spill ? spill->frames
                                      : blocks)) {
  for (const KvLayerShape& layer : layers_) {
    part_offsets_.push_back(block_bytes_);
    part_bytes_.push_back(2 * kv_side_bytes(layer, type));
    block_bytes_ += part_bytes_.back();
  }
  const uint32_t most = spill ? spill->frames : blocks;
  run_layers_.resize(layers_.size());
  for (uint32_t layer = 0, first = 0; layer < layers_.size(); ++layer) {
    if (part_offsets_[layer] + part_bytes_[layer] - part_offsets_[first] > kMostRunBytes) first = layer;
    ++run_layers_[first];
  }
  if (sharing) {
    border_.emplace(sharing->least, most);
    neighbour_ = sharing->neighbour;
  }
  reservation_ = budget.reserve(MemoryTag::kState, Bytes{block_bytes_ * std::min(most, residency_.frames())});
  if (!spill) return;
  ahead_ = std::clamp(most / 4, 1u, kMostAhead);
  CHECK((store_ || archive_));
  CHECK(((store_ && store_blocks_ >= blocks) || spill->frames >= blocks));
  shape_ = {spill->lineage, spill->first_layer, part_bytes_};
  clock_ = spill->clock;
  mover_ = std::make_unique<KvMover>(spill->store, archive_, shape_, *spill->clock, *spill->counters,
                                     spill->name, spill->readers);
}

void KvFrames::add(uint32_t block) {
  residency_.add(block);
  if (mover_) return;
  try {
    take_frame(block);
  } catch (const Error&) {
    residency_.drop(block);
    throw;
  }
  residency_.change(block);
}

void KvFrames::drop(uint32_t block) {
  residency_.drop(block);
  if (mover_) erase_garbage();
}

bool KvFrames::grow() {
  const uint32_t now = count(), frames = border_ ? border_->above(now) : now;
  if (frames == now) return false;
  const Bytes more{block_bytes_ * (frames - now)};
  // Where it cannot be, a block gives way.
  try {
    neighbour_->make_room(more);
  } catch (const Error&) {
    return false;
  }
  Reservation taken = budget_.try_reserve(MemoryTag::kState, more);
  if (taken.bytes() != more) {
    neighbour_->take_room();
    return false;
  }
  reservation_.merge(std::move(taken));
  residency_.set_frames(frames);
  return true;
}

// Only frames that no block has: what is in use stays where it is.
void KvFrames::shrink(uint32_t frames) {
  const uint32_t before = count(), after = residency_.set_frames(frames);
  if (after == before) return;
  for (const uint32_t frame : residency_.frames_unused())
    if (frame < frames_.size()) frames_[frame] = {};
  reservation_.give_back(Bytes{block_bytes_ * (before - after)});
  neighbour_->take_room();
}

void KvFrames::start_step(uint32_t blocks) {
  residency_.start_step();
  if (!border_) return;
  // With a store, what idles needs no frame.
  const uint32_t used = store_ ? residency_.used_lately(KvBorder::kIdleSteps) : blocks;
  const uint32_t frames = border_->at_step(count(), used);
  if (frames >= count()) return;
  if (store_) residency_.give_up_idle(frames, KvBorder::kIdleSteps);
  // What the disk does not have yet is written a few at a time, and goes the next time.
  const uint32_t left = count() - residency_.frames_free();
  giving_back_ = store_ && left > frames ? left - frames : 0;
  shrink(frames);
}

void KvFrames::allocate(uint32_t block) {
  const uint32_t frame = residency_.frame(block);
  if (frame >= frames_.size()) frames_.resize(frame + 1);
  if (frames_[frame].address()) return;
  try {
    // What is on disk comes from there whole.
    const bool comes = residency_.serial(block) != 0;
    frames_[frame] =
        DeviceBuffer(device_, Bytes{block_bytes_}, comes ? DeviceContent::kAny : DeviceContent::kZeros);
  } catch (const Error&) {
    residency_.lost(block);
    throw;
  }
}

void KvFrames::take_frame(uint32_t block) {
  write_error_.reset();
  if (residency_.frames_free() == 0) grow();
  for (;;) {
    if (residency_.take_frame(block) != KvResidency::kNone) return allocate(block);
    if (write_error_) throw Error(*std::exchange(write_error_, std::nullopt));
    CHECK((mover_ || border_));
    if (residency_.writes_under_way() == 0) {
      if (mover_) start_writes(1, true);
      if (residency_.writes_under_way() == 0)
        fail(ErrorCode::kOutOfMemory, "no KV frame is free: all {} are in use", residency_.frames());
    }
    mover_->wait_written();
    note_written();
  }
}

void KvFrames::start_writes(uint32_t wanted, bool partial) {
  const uint32_t under_way = std::min(wanted, residency_.writes_under_way());
  const size_t room = store_room();
  move(room > 0 ? residency_.start_writes(wanted, partial, room)
                : residency_.start_archiving(wanted - under_way));
}

size_t KvFrames::store_room() const {
  if (!store_) return 0;
  if (store_blocks_ == UINT32_MAX) return SIZE_MAX;
  return store_blocks_ - std::min(store_blocks_, residency_.spilled());
}

void KvFrames::move(const std::vector<KvResidency::Write>& writes) {
  for (const KvResidency::Write& write : writes) {
    const std::byte* frame = frames_[write.frame].address();
    if (KvMover::is_archived(write.serial)) {
      ++archiving_;
      mover_->archive(write.serial, tags_[write.block], frame);
    } else {
      mover_->write(write.serial, frame);
    }
  }
}

void KvFrames::note_written() {
  for (KvMover::Written& written : mover_->take_written()) {
    const bool worked = !written.error && !written.refused;
    if (KvMover::is_copied(written.serial)) {
      --copying_;
      residency_.copied(written.serial, worked);
      room_changed_ |= worked;
      if (!worked) copy_at_ = steps_ + kOfferAgainSteps;
      continue;
    }
    const uint32_t block = residency_.written(written.serial, worked);
    if (KvMover::is_archived(written.serial)) {
      --archiving_;
      (worked ? room_changed_ : refused_) = true;
      if (block != KvResidency::kNone) {
        tags_[block].refused |= !worked;
        tags_[block].computed &= !worked;
      }
    } else {
      write_error_ = std::move(written.error);
    }
  }
  erase_garbage();
}

void KvFrames::erase_garbage() {
  for (const uint64_t serial : residency_.take_garbage()) mover_->erase(serial);
}

void KvFrames::start_archiving() {
  if (archiving_ < kMostArchiving) move(residency_.start_archiving(kMostArchiving - archiving_));
}

// What idles in memory needs no copy in the archive: there it goes by its value, as what nobody has in memory
// does. Where KV spills, it is kept until it keeps others out, because it would have to be written once more.
// `crowded_steps`: to be idle for then.
void KvFrames::leave_archive(uint64_t crowded_steps) {
  const bool crowded = archive_->crowded();
  if (crowded || (!store_ && steps_ % kLetGoSteps == 0)) {
    const size_t count = residency_.let_go(crowded ? crowded_steps : kLetGoSteps);
    erase_garbage();
    room_changed_ |= count > 0;
  }
  if (const uint64_t made = archive_->rooms_made(); std::exchange(rooms_made_, made) != made)
    room_changed_ = true;
  // What was refused is offered again when all answers are here and something has changed since, so that
  // there is an end to it.
  if (!refused_ || !room_changed_ || archiving_ > 0) return;
  refused_ = room_changed_ = false;
  residency_.wish_again(kLetGoSteps);
}

// What idles on disk alone leaves the archive, too, before it keeps others out: for the store, which has room
// for all blocks.
void KvFrames::copy_idle() {
  const bool needed = archive_->mostly_in_use() || (refused_ && archive_->crowded());
  if (!store_ || !needed || copying_ > 0 || steps_ < copy_at_) return;
  for (const KvResidency::Copy& copy :
       residency_.start_copies(std::min(kMostCopying, store_room()), kLetGoSteps)) {
    try {
      mover_->copy(copy.serial, copy.archived);
      ++copying_;
    } catch (const std::bad_alloc&) {
      residency_.copied(copy.serial, false);  // nothing depends on it
      copy_at_ = steps_ + kLetGoSteps;
    }
  }
}

void KvFrames::write_behind() {
  if (!mover_) return;
  note_written();
  if (archive_) {
    leave_archive(kLetGoSteps);
    if (++steps_ % kOfferAgainSteps == 0) residency_.wish_again(kOfferAgainSteps);
    start_archiving();
    copy_idle();
  }
  // A store that failed is tried again when a frame is needed.
  if (store_ && !write_error_ && count() == most()) start_writes(ahead_, false);
  // A few at a time: whoever goes on with a block that is being written waits for it.
  if (giving_back_ > 0 && !write_error_ && residency_.writes_under_way() < kMostArchiving) {
    const auto now = static_cast<uint32_t>(std::min({size_t{giving_back_}, kMostArchiving, store_room()}));
    giving_back_ = now > 0 ? giving_back_ - now : 0;
    move(residency_.start_idle_writes(now, KvBorder::kIdleSteps));
  }
}

bool KvFrames::archive_on() {
  if (!archive_) return false;
  note_written();
  leave_archive(0);
  start_archiving();
  copy_idle();
  return archiving_ > 0 || (refused_ && (copying_ > 0 || archive_->room_comes(rooms_made_)));
}

void KvFrames::finish_archiving(Duration most) {
  if (!archive_) return;
  const Time end = clock_->now() + most;
  for (;;) {
    const bool more = archive_on();
    const Time now = clock_->now();
    if (!more || now >= end) return;
    const Duration left = end - now;
    const bool answers = archiving_ > 0 || copying_ > 0;
    if (answers ? !mover_->wait_written(left) : !archive_->wait_for_room(rooms_made_, left)) return;
  }
}

void KvFrames::set_tag(uint32_t block, const KvTag& tag) {
  if (block >= tags_.size()) tags_.resize(block + 1);
  tags_[block] = tag;
}

void KvFrames::archive(uint32_t block, const KvTag& tag) {
  if (!archive_) return;
  set_tag(block, tag);
  tags_[block].computed = true;
  residency_.wish(block);
}

bool KvFrames::adopt(uint32_t block, const KvTag& tag) {
  KvArchive::Handle known = archive_ ? archive_->adopt(shape_, tag.tag) : nullptr;
  if (!known) return false;
  set_tag(block, tag);
  mover_->adopt(residency_.adopt(block), std::move(known));
  return true;
}

void KvFrames::expect(uint32_t blocks) {
  while (residency_.frames_free() < blocks && grow()) {
  }
  note_written();
  start_writes(blocks, true);
}

void KvFrames::hold(uint32_t block) {
  if (residency_.resident(block)) return residency_.pin(block);
  take_frame(block);
  if (residency_.resident(block)) return residency_.pin(block);
  std::vector<KvRead> reads;
  for (uint32_t layer = 0; layer < layers_.size(); ++layer)
    if (const uint32_t run = run_layers_[layer]; run > 0)
      reads.push_back({residency_.serial(block), layer, run, part_in_frame(block, layer)});
  const std::optional<Error> error = mover_->wait(mover_->read(reads));
  if (error) {
    residency_.lost(block);
    throw Error(*error);
  }
  residency_.loaded(block);
  residency_.pin(block);
}

void KvFrames::hold_to_change(uint32_t block) {
  while (residency_.writing(block)) {
    mover_->wait_written();
    note_written();
  }
  hold(block);
  residency_.change(block);
}

bool KvFrames::take_spare(uint32_t block) {
  if (residency_.take_idle_frame(block, kIdleSteps) == KvResidency::kNone) return false;
  allocate(block);
  residency_.pin(block);
  return true;
}

void KvFrames::fill_done(uint32_t block, bool worked) {
  residency_.unpin(block);
  if (worked)
    residency_.loaded(block);
  else
    residency_.lost(block);
}

std::byte* KvFrames::address(uint32_t block) const {
  return residency_.resident(block) ? frames_[residency_.frame(block)].address() : nullptr;
}

std::byte* KvFrames::part(uint32_t block, uint32_t layer) const {
  std::byte* frame = address(block);
  return frame ? frame + part_offsets_[layer] : nullptr;
}

std::byte* KvFrames::part_in_frame(uint32_t block, uint32_t layer) const {
  return frames_[residency_.frame(block)].address() + part_offsets_[layer];
}

}  // namespace caravan
