#include "cache/kv_residency.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace caravan {

KvResidency::KvResidency(uint32_t frames) : limit_(frames) {
  CHECK(frames > 0u);
}

uint32_t KvResidency::set_frames(uint32_t frames) {
  limit_ = std::max({1u, frames, frames_used()});
  return limit_;
}

void KvResidency::add(uint32_t block) {
  if (block >= blocks_.size()) blocks_.resize(block + 1);
  CHECK(!blocks_[block].used);
  blocks_[block] = {};
  blocks_[block].used = true;
}

void KvResidency::drop(uint32_t index) {
  Block& block = blocks_[index];
  CHECK(block.used);
  CHECK(block.pins == 0u);
  CHECK(!block.loading);
  drop_wish(block);
  drop_copy(block);
  if (block.stored != 0) garbage_.push_back(block.stored);
  if (block.writing != 0) {
    writes_.at(block.writing).block = kNone;
    owner_[block.frame] = kNone;  // free when the write is done
    ++version_;
  } else if (block.frame != kNone) {
    free_frame(block);
  }
  block = {};
}

void KvResidency::use(uint32_t index, uint32_t place) {
  blocks_[index].last_use = step_;
  blocks_[index].index = place;
}

void KvResidency::free_frame(Block& block) {
  owner_[block.frame] = kNone;
  free_.push_back(block.frame);
  block.frame = kNone;
  ++version_;
}

bool KvResidency::may_give_way(const Block& block) const {
  return block.used && block.frame != kNone && block.pins == 0 && !block.loading && block.writing == 0 &&
         (block.stored != 0 || !block.content);
}

bool KvResidency::gives_way_before(const Block& a, const Block& b) const {
  return a.last_use != b.last_use ? a.last_use < b.last_use : a.index > b.index;
}

uint32_t KvResidency::find_victim() const {
  uint32_t victim = kNone;
  for (const uint32_t block : owner_) {
    if (block == kNone || !may_give_way(blocks_[block])) continue;
    if (victim == kNone || gives_way_before(blocks_[block], blocks_[victim])) victim = block;
  }
  return victim;
}

uint32_t KvResidency::give(uint32_t index, uint32_t frame) {
  Block& block = blocks_[index];
  CHECK(block.used);
  CHECK(block.frame == kNone);
  block.frame = frame;
  block.loading = block.content;
  owner_[frame] = index;
  ++version_;
  return frame;
}

uint32_t KvResidency::take_frame(uint32_t block) {
  if (frames_free() == 0) {
    const uint32_t victim = find_victim();
    if (victim == kNone) return kNone;
    free_frame(blocks_[victim]);
  } else if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(owner_.size()));
    owner_.push_back(kNone);
  }
  const uint32_t frame = free_.back();
  free_.pop_back();
  return give(block, frame);
}

uint32_t KvResidency::take_idle_frame(uint32_t block, uint64_t idle_steps) {
  if (frames_free() == 0) {
    const uint32_t victim = find_victim();
    if (victim == kNone || blocks_[victim].last_use + idle_steps >= step_) return kNone;
  }
  return take_frame(block);
}

uint32_t KvResidency::used_lately(uint64_t steps) const {
  uint32_t count = 0;
  for (const uint32_t index : owner_)
    if (index != kNone) count += blocks_[index].last_use + steps >= step_ || blocks_[index].pins > 0;
  return count;
}

void KvResidency::give_up_idle(uint32_t frames, uint64_t idle_steps) {
  std::vector<uint32_t> idle;
  for (const uint32_t index : owner_)
    if (index != kNone && may_give_way(blocks_[index]) && blocks_[index].last_use + idle_steps < step_)
      idle.push_back(index);
  const size_t count = std::min<size_t>(frames_used() - std::min(frames, frames_used()), idle.size());
  std::partial_sort(idle.begin(), idle.begin() + static_cast<ptrdiff_t>(count), idle.end(),
                    [this](uint32_t a, uint32_t b) { return gives_way_before(blocks_[a], blocks_[b]); });
  for (size_t i = 0; i < count; ++i) free_frame(blocks_[idle[i]]);
}

void KvResidency::loaded(uint32_t index) {
  CHECK(blocks_[index].loading);
  blocks_[index].loading = false;
  ++version_;
}

void KvResidency::lost(uint32_t index) {
  Block& block = blocks_[index];
  CHECK(block.frame != kNone);
  CHECK((block.loading || !block.content));
  CHECK(block.pins == 0u);
  block.loading = false;
  free_frame(block);
}

void KvResidency::unpin(uint32_t index) {
  CHECK(blocks_[index].pins > 0u);
  --blocks_[index].pins;
}

void KvResidency::change(uint32_t index) {
  Block& block = blocks_[index];
  CHECK(resident(index));
  CHECK(block.writing == 0u);
  if (block.stored != 0) garbage_.push_back(std::exchange(block.stored, 0));
  drop_wish(block);
  drop_copy(block);
  block.wish = 0;
  block.content = true;
  block.full = false;
}

void KvResidency::drop_wish(Block& block) {
  if (std::exchange(block.wished, false)) wishes_.erase(block.wish);
}

void KvResidency::drop_copy(Block& block) {
  if (block.copying != 0) copies_.at(std::exchange(block.copying, 0)) = kNone;
}

void KvResidency::wish(uint32_t index) {
  Block& block = blocks_[index];
  CHECK((block.content && block.full));
  if (block.wished || block.stored != 0 || block.writing != 0) return;
  if (block.wish == 0) block.wish = ++last_wish_;
  block.wished = true;
  block.let_go.reset();
  wishes_[block.wish] = index;
}

uint64_t KvResidency::adopt(uint32_t index) {
  Block& block = blocks_[index];
  CHECK(block.used);
  CHECK((block.stored == 0 && block.writing == 0));
  CHECK((block.content || block.frame == kNone));
  drop_wish(block);
  if (block.wish == 0) block.wish = ++last_wish_;
  block.content = block.full = true;
  block.stored = ++last_archived_;
  block.last_use = step_;  // about to be used, if it is new
  return block.stored;
}

std::vector<KvResidency::Write> KvResidency::start_archiving(size_t most) {
  std::vector<Write> writes;
  for (auto at = wishes_.begin(); at != wishes_.end() && writes.size() < most;) {
    const uint32_t index = (at++)->second;
    if (blocks_[index].pins == 0) writes.push_back(start_write(index));
  }
  return writes;
}

size_t KvResidency::let_go(uint64_t idle_steps) {
  size_t count = 0;
  for (const uint32_t index : owner_) {
    if (index == kNone) continue;
    Block& block = blocks_[index];
    if ((block.stored & kArchived) != 0 && block.copying == 0 && !block.loading && block.pins == 0 &&
        block.last_use + idle_steps < step_) {
      garbage_.push_back(std::exchange(block.stored, 0));
      block.let_go = block.last_use;
      ++count;
    }
  }
  return count;
}

std::vector<KvResidency::Copy> KvResidency::start_copies(size_t most, uint64_t idle_steps) {
  std::vector<uint32_t> idle;
  for (uint32_t index = 0; index < blocks_.size(); ++index) {
    const Block& block = blocks_[index];
    if (block.used && (block.stored & kArchived) != 0 && block.frame == kNone && block.copying == 0 &&
        block.last_use + idle_steps < step_)
      idle.push_back(index);
  }
  const size_t count = std::min(most, idle.size());
  std::partial_sort(idle.begin(), idle.begin() + static_cast<ptrdiff_t>(count), idle.end(),
                    [this](uint32_t a, uint32_t b) { return gives_way_before(blocks_[a], blocks_[b]); });
  std::vector<Copy> copies;
  for (size_t i = 0; i < count; ++i) {
    Block& block = blocks_[idle[i]];
    block.copying = ++last_copied_;
    copies_[block.copying] = idle[i];
    copies.push_back({block.copying, block.stored});
  }
  return copies;
}

void KvResidency::copied(uint64_t serial, bool worked) {
  const auto found = copies_.find(serial);
  CHECK((found != copies_.end()));
  const uint32_t index = found->second;
  copies_.erase(found);
  if (index != kNone) blocks_[index].copying = 0;
  if (!worked) return;
  garbage_.push_back(index == kNone ? serial : std::exchange(blocks_[index].stored, serial));
}

void KvResidency::wish_again(uint64_t steps) {
  for (const uint32_t index : owner_) {
    if (index == kNone) continue;
    const Block& block = blocks_[index];
    const bool lately = block.last_use + steps >= step_;
    if (block.wish != 0 && block.full && !block.loading && lately && block.let_go != block.last_use)
      wish(index);
  }
}

KvResidency::Write KvResidency::start_write(uint32_t index) {
  Block& block = blocks_[index];
  block.writing = block.wished ? ++last_archived_ : ++last_serial_;
  drop_wish(block);
  const Write write{block.writing, index, block.frame};
  writes_[block.writing] = write;
  return write;
}

std::vector<KvResidency::Write> KvResidency::start_writes(uint32_t wanted, bool partial, size_t most) {
  size_t had = frames_free() + writes_.size();
  std::vector<uint32_t> dirty;
  for (const uint32_t index : owner_) {
    if (index == kNone) continue;
    const Block& block = blocks_[index];
    if (may_give_way(block)) ++had;
    if (can_write(block) && (block.full || partial)) dirty.push_back(index);
  }
  return had < wanted ? write_first(std::move(dirty), std::min(most, wanted - had)) : std::vector<Write>();
}

uint32_t KvResidency::spilled() const {
  const auto is_spilled = [](uint64_t serial) { return serial != 0 && (serial & kArchived) == 0; };
  return static_cast<uint32_t>(std::count_if(blocks_.begin(), blocks_.end(), [&](const Block& block) {
    return is_spilled(block.stored) || is_spilled(block.writing) || block.copying != 0;
  }));
}

std::vector<KvResidency::Write> KvResidency::start_idle_writes(size_t most, uint64_t idle_steps) {
  std::vector<uint32_t> dirty;
  for (const uint32_t index : owner_)
    if (index != kNone && blocks_[index].last_use + idle_steps < step_ && can_write(blocks_[index]))
      dirty.push_back(index);
  return write_first(std::move(dirty), most);
}

bool KvResidency::can_write(const Block& block) {
  return block.content && block.stored == 0 && block.writing == 0 && block.pins == 0 && !block.loading;
}

// So many of them at most, in the order in which they give way.
std::vector<KvResidency::Write> KvResidency::write_first(std::vector<uint32_t> dirty, size_t most) {
  const size_t count = std::min(most, dirty.size());
  std::partial_sort(dirty.begin(), dirty.begin() + static_cast<ptrdiff_t>(count), dirty.end(),
                    [this](uint32_t a, uint32_t b) { return gives_way_before(blocks_[a], blocks_[b]); });
  std::vector<Write> writes;
  // Those for the archive go in the order of the wishes: it takes no block before the one that it continues.
  size_t wished = 0;
  for (size_t i = 0; i < count; ++i) {
    if (blocks_[dirty[i]].wished)
      ++wished;
    else
      writes.push_back(start_write(dirty[i]));
  }
  for (const Write& write : start_archiving(wished)) writes.push_back(write);
  return writes;
}

uint32_t KvResidency::written(uint64_t serial, bool worked) {
  const auto found = writes_.find(serial);
  CHECK((found != writes_.end()));
  const Write write = found->second;
  writes_.erase(found);
  if (write.block == kNone) {
    free_.push_back(write.frame);
    if (worked) garbage_.push_back(serial);
    return kNone;
  }
  Block& block = blocks_[write.block];
  block.writing = 0;
  if (worked) block.stored = serial;
  return write.block;
}

}  // namespace caravan
