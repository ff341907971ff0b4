#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/clock.h"

namespace caravan {

// Bytes that the archive may write in a day (of 24 hours since 1970). They go on record ahead of the writing,
// some more than are needed so that this is seldom, and a kill cannot stretch the day. A clock that was set
// back begins a day, too: one that was ahead once would else end the writing until then. Its user has the
// lock.
class KvDayBudget {
 public:
  // `limit`: none where none is given; `usual`: what the share on record ahead is of then.
  KvDayBudget(const Clock& clock, std::optional<Bytes> limit, Bytes usual)
      : clock_(clock), limit_(limit ? limit->count : UINT64_MAX), usual_(std::min(limit_, usual.count)) {}

  struct Record {
    int64_t day = 0;
    uint64_t bytes = 0;  // at most so many were written
  };
  // That is to be on disk.
  Record record() const { return {day_, promised_}; }
  // As it was found there.
  void set(const Record& record) {
    day_ = record.day;
    written_ = promised_ = recorded_ = std::min(record.bytes, UINT64_MAX / 2);
  }
  // It is there now.
  void recorded(const Record& record) {
    if (record.day == day_) recorded_ = record.bytes;
  }
  // For a process that ends in order: the record is then exact.
  void settle() { promised_ = written_; }

  uint64_t limit() const { return limit_; }
  // Of the limit, today.
  uint64_t left() const { return limit_ == UINT64_MAX ? limit_ : limit_ - std::min(limit_, written()); }
  // Until the next call no more than `today` from now to the end of the day, nor than `a_day` on later days.
  void bound(uint64_t today, uint64_t a_day) {
    bound_day_ = this->today();
    bound_today_ = today < UINT64_MAX - written() ? written() + today : UINT64_MAX;
    bound_a_day_ = a_day;
  }
  bool fits(uint64_t bytes) const {
    const uint64_t most = std::min(limit_, bound_now());
    return bytes <= most && written() <= most - bytes;
  }
  // False: nothing was spent, because the record on disk does not cover it. Ask again when it is written.
  bool spend(uint64_t bytes) {
    if (today() != day_) set({today(), 0});
    if (written_ + bytes > recorded_) {
      promised_ = std::max(promised_, written_ + bytes + std::min(usual_, bound_now()) / kAheadShare);
      return false;
    }
    written_ += bytes;
    return true;
  }
  // So many were spent, and so many written.
  void correct(uint64_t spent, uint64_t written) {
    written_ += written;
    written_ -= spent < written_ ? spent : written_;
  }

 private:
  static constexpr uint64_t kAheadShare = 64;
  int64_t today() const { return clock_.unix_seconds() / (24 * 60 * 60); }
  uint64_t written() const { return today() == day_ ? written_ : 0; }
  uint64_t bound_now() const { return today() == bound_day_ ? bound_today_ : bound_a_day_; }

  const Clock& clock_;
  const uint64_t limit_, usual_;
  int64_t day_ = 0;
  uint64_t written_ = 0, promised_ = 0, recorded_ = 0;
  int64_t bound_day_ = 0;
  uint64_t bound_today_ = UINT64_MAX, bound_a_day_ = UINT64_MAX;
};

}  // namespace caravan
