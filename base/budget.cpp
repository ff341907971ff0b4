#include "base/budget.h"

#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace caravan {

std::string_view name(MemoryTag tag) {
  static constexpr std::string_view kNames[] = {"weights", "state", "scratch", "wire"};
  return kNames[static_cast<size_t>(tag)];
}

Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      tag_(other.tag_),
      bytes_(std::exchange(other.bytes_, {})) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  std::swap(budget_, other.budget_);
  std::swap(tag_, other.tag_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Reservation::~Reservation() {
  if (budget_) budget_->give_back(tag_, bytes_);
}

void Reservation::merge(Reservation other) {
  if (!other.budget_) return;
  if (!budget_) return std::swap(*this, other);
  CHECK((budget_ == other.budget_ && tag_ == other.tag_));
  bytes_ += std::exchange(other.bytes_, {});
}

void Reservation::give_back(Bytes bytes) {
  CHECK(bytes.count <= bytes_.count);
  if (budget_) budget_->give_back(tag_, bytes);
  bytes_ -= bytes;
}

Reservation Budget::reserve(MemoryTag tag, Bytes bytes) {
  if (!take(tag, bytes)) {
    const Bytes in_use = used();
    fail(ErrorCode::kOutOfMemory, "the budget {} of {}: {} for {} do not fit, {} are in use", tier_,
         to_string(limit_), to_string(bytes), name(tag), to_string(in_use));
  }
  return Reservation(this, tag, bytes);
}

Reservation Budget::try_reserve(MemoryTag tag, Bytes bytes) {
  return take(tag, bytes) ? Reservation(this, tag, bytes) : Reservation();
}

Bytes Budget::used() const {
  std::lock_guard lock(mutex_);
  Bytes sum;
  for (Bytes bytes : used_) sum += bytes;
  return sum;
}

Bytes Budget::used(MemoryTag tag) const {
  std::lock_guard lock(mutex_);
  return used_[static_cast<size_t>(tag)];
}

bool Budget::take(MemoryTag tag, Bytes bytes) {
  std::lock_guard lock(mutex_);
  Bytes sum;
  for (Bytes used : used_) sum += used;
  if (bytes > limit_ - sum) return false;
  used_[static_cast<size_t>(tag)] += bytes;
  return true;
}

void Budget::give_back(MemoryTag tag, Bytes bytes) {
  std::lock_guard lock(mutex_);
  CHECK(used_[static_cast<size_t>(tag)].count >= bytes.count);
  used_[static_cast<size_t>(tag)] -= bytes;
}

}  // namespace caravan
