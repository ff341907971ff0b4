#include "peers/shard_fetcher.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"

namespace caravan {

namespace {

constexpr uint64_t kLeastWindowBytes = 1u << 20;
// Under way at the measured rate: enough for long ways, little enough to be had soon after a loss.
constexpr double kWindowSeconds = 2;
constexpr Duration kMeasureInterval = std::chrono::milliseconds(250);
// Of a limit, what may be asked for at once after a pause.
constexpr uint64_t kBurstShare = 4;
// Of the same content: what came with another hash is fetched again once.
constexpr uint32_t kMostWrong = 2;

}  // namespace

ShardFetcher::Job* ShardFetcher::find(const Hash256& group) {
  const auto found = index_.find(group);
  return found == index_.end() ? nullptr : &jobs_[found->second];
}

// --- What comes in ---

void ShardFetcher::on(const LinkEvent& event, Time now) {
  if (const auto* up = std::get_if<LinkUp>(&event)) {
    if (up->peer != options_.from) return;
    is_up_ = true;
    is_current_ = false;
    if (error_.empty()) ask_manifest(now);
  } else if (const auto* down = std::get_if<LinkDown>(&event)) {
    if (down->peer != options_.from) return;
    is_up_ = is_current_ = false;
    for (Job& job : jobs_) {
      if (!job.ranges.empty()) give(job, job.ranges.front());
      forget_ranges(job);
    }
    unanswered_ = unwanted_ = 0;
    next_ = 0;
  } else {
    const auto& received = std::get<Received>(event);
    if (received.from != options_.from) return;
    if (const auto* info = std::get_if<ManifestInfo>(&received.message)) handle(*info, now);
    if (const auto* part = std::get_if<ShardBytes>(&received.message)) handle(*part, now);
    if (const auto* refused = std::get_if<ShardRefused>(&received.message)) handle(*refused);
  }
}

void ShardFetcher::handle(const ManifestInfo& info, Time now) {
  if (is_current_ || !error_.empty()) return;
  if (!info.reason.empty()) return give_up("the head cannot give its model away: " + info.reason);
  if (info.record_bytes == 0) {
    hashing_ = info;
    return;
  }
  if (manifest_ && manifest_->record != info.record)
    return give_up(fmt::format("the head runs another model now: {}, not {}", short_string(info.model),
                               short_string(manifest_->model)));
  manifest_ = info;
  is_current_ = true;
  heard_ = now;
  silences_ = 0;
  pump(now);
}

void ShardFetcher::handle(const ShardBytes& part, Time now) {
  Job* const job = find(part.group);
  Range* range = nullptr;
  if (job)
    for (Range& one : job->ranges)
      if (one.offset + one.got == part.offset && part.byte_count() <= one.length - one.got) range = &one;
  if (!range || part.byte_count() == 0) {
    ++ignored_;
    if (unwanted_ == 0) return;
    unwanted_ -= std::min<uint64_t>(unwanted_, part.byte_count());
    heard_ = now;
    return pump(now);
  }
  const auto bytes = static_cast<uint32_t>(part.byte_count());
  range->parts.push_back(part.bytes);
  range->got += bytes;
  unanswered_ -= bytes;
  received_ += bytes;
  heard_ = now;
  silences_ = 0;
  measure(bytes, now);
  while (!job->ranges.empty() && job->ranges.front().got == job->ranges.front().length) {
    give(*job, job->ranges.front());
    job->ranges.pop_front();
  }
  pump(now);
}

void ShardFetcher::handle(const ShardRefused& refused) {
  const Job* const job = find(refused.group);
  if (!job || job->ranges.empty() || !error_.empty()) return;
  give_up(fmt::format("{}: the head says: {}", job->shard.name, refused.reason));
}

void ShardFetcher::on(const ShardStored& event, Time now) {
  Job* const job = find(event.group);
  if (!job || job->is_whole || !error_.empty()) return;
  if (!event.error.empty()) return give_up(fmt::format("{}: {}", job->shard.name, event.error));
  if (event.is_wrong) {
    outstanding_ -= job->given - job->stored;
    job->stored = job->given = job->asked = 0;
    next_ = 0;
    log_warning("shard_wrong group={} peer={} times={}", job->shard.name, short_string(options_.from),
                job->wrong + 1);
    if (++job->wrong == kMostWrong)
      return give_up(
          fmt::format("{}: what peer {} sent does not have the hash {}, and neither had it when "
                      "it was fetched again",
                      job->shard.name, short_string(options_.from), to_string(job->shard.hash)));
    return pump(now);
  }
  if (event.end < job->stored || event.end > job->given) return;  // of an earlier wish for the same content
  outstanding_ -= event.end - job->stored;
  job->stored = event.end;
  if (event.is_whole) {
    job->is_whole = true;
    ++done_;
  }
  pump(now);
}

void ShardFetcher::give_up(std::string reason) {
  log_warning("fetch_failed reason=\"{}\"", reason);
  error_ = std::move(reason);
  for (Job& job : jobs_) forget_ranges(job);
  unanswered_ = 0;
  next_ = 0;
}

// --- What is wanted ---

void ShardFetcher::want(std::vector<WantedShard> shards, Time now) {
  std::map<Hash256, Job> old;
  if (error_.empty())
    for (Job& job : jobs_) old.emplace(job.shard.hash, std::move(job));
  jobs_.clear();
  index_.clear();
  error_.clear();
  outstanding_ = 0;
  const uint64_t unanswered = std::exchange(unanswered_, 0);
  next_ = done_ = 0;
  silences_ = 0;
  if (unwanted_ == 0) heard_ = now;
  measured_ = now;
  measuring_bytes_ = 0;
  for (WantedShard& shard : shards) {
    if (!index_.emplace(shard.hash, jobs_.size()).second) continue;  // groups of the same content
    CHECK(shard.have <= shard.bytes);
    Job job;
    // What was whole may have been damaged since: the caller has looked.
    if (const auto known = old.find(shard.hash); known != old.end() && !known->second.is_whole) {
      job = std::move(known->second);
    } else {
      job.stored = job.given = job.asked = shard.have;
      job.is_whole = shard.have == shard.bytes;
    }
    job.shard = std::move(shard);
    if (job.is_whole) ++done_;
    outstanding_ += job.asked - job.stored;
    for (const Range& range : job.ranges) unanswered_ += range.length - range.got;
    jobs_.push_back(std::move(job));
  }
  unwanted_ += unanswered - unanswered_;
  is_wanting_ = true;
  if (is_up_ && !is_current_) ask_manifest(now);
  pump(now);
}

// --- What goes out ---

void ShardFetcher::ask_manifest(Time now) {
  actions_.emplace_back(SendMessage{options_.from, ManifestRequest{}});
  next_poll_ = now + options_.manifest_poll;
}

uint64_t ShardFetcher::window() const {
  const double wished = rate_ * kWindowSeconds;
  if (wished >= static_cast<double>(limits::kShardWindowBytes)) return limits::kShardWindowBytes;
  return std::max(kLeastWindowBytes, static_cast<uint64_t>(wished));
}

// What nobody wants any more counts, too: the head owes it still, and heeds nobody whom it owes too much.
bool ShardFetcher::has_room(uint32_t bytes) const {
  const uint64_t under_way = outstanding_ + unwanted_;
  return under_way == 0 || under_way + bytes <= window();
}

uint32_t ShardFetcher::range_bytes() const {
  uint64_t bytes = std::min<uint64_t>(window() / 8, limits::kMaxShardRangeBytes);
  if (options_.bytes_per_second > 0) bytes = std::min(bytes, options_.bytes_per_second / kBurstShare);
  bytes -= bytes % limits::kFragmentBytes;
  return static_cast<uint32_t>(std::max<uint64_t>(bytes, limits::kFragmentBytes));
}

void ShardFetcher::refill(Time now) {
  if (options_.bytes_per_second == 0) return;
  const auto rate = static_cast<double>(options_.bytes_per_second);
  const double most = std::max(rate / kBurstShare, static_cast<double>(limits::kFragmentBytes));
  tokens_ = refilled_ == Time{} ? most : std::min(most, tokens_ + seconds(now - refilled_) * rate);
  refilled_ = now;
}

void ShardFetcher::pump(Time now) {
  refill(now);
  while (may_ask() && ask_next(now)) {
  }
}

bool ShardFetcher::ask_next(Time now) {
  while (next_ < jobs_.size() && jobs_[next_].asked == jobs_[next_].shard.bytes) ++next_;
  if (next_ == jobs_.size()) return false;
  Job& job = jobs_[next_];
  const auto length = static_cast<uint32_t>(std::min<uint64_t>(range_bytes(), job.shard.bytes - job.asked));
  if (!has_room(length)) return false;
  if (options_.bytes_per_second > 0) {
    if (tokens_ < length) return false;
    tokens_ -= length;
  }
  if (unanswered_ == 0) heard_ = now;
  job.ranges.push_back({job.asked, length, 0, {}});
  job.asked += length;
  outstanding_ += length;
  unanswered_ += length;
  request(job, job.ranges.back());
  return true;
}

void ShardFetcher::request(const Job& job, const Range& range) {
  actions_.emplace_back(SendMessage{
      options_.from, ShardRequest{job.shard.hash, range.offset + range.got, range.length - range.got}});
}

// Hands over what came of the first range; the rest of it is still to come.
void ShardFetcher::give(Job& job, Range& range) {
  if (range.parts.empty()) return;
  StoreShard store{job.shard.hash, job.shard.bytes, job.given, std::exchange(range.parts, {})};
  for (const SharedBytes& part : store.parts) job.given += part->size();
  actions_.emplace_back(std::move(store));
}

void ShardFetcher::forget_ranges(Job& job) {
  outstanding_ -= job.asked - job.given;
  job.asked = job.given;
  job.ranges.clear();
}

// Nothing came for so long that what was asked for may be lost.
void ShardFetcher::ask_again(Time now) {
  heard_ = now;
  if (++silences_ > options_.most_silences) {
    for (const Job& job : jobs_)
      if (!job.ranges.empty())
        return give_up(
            fmt::format("{}: the head does not send it, however often it is asked", job.shard.name));
  }
  for (const Job& job : jobs_)
    for (const Range& range : job.ranges)
      if (range.got < range.length) request(job, range);
}

void ShardFetcher::tick(Time now) {
  if (is_up_ && !is_current_ && error_.empty() && now >= next_poll_) ask_manifest(now);
  if (may_ask() && now >= heard_ + patience()) {
    unwanted_ = 0;
    if (unanswered_ > 0) ask_again(now);
  }
  pump(now);
}

Duration ShardFetcher::patience() const {
  return std::min(options_.patience * (int64_t{1} << std::min(silences_, 16u)), options_.longest_patience);
}

Time ShardFetcher::next_tick() const {
  Time next = Time::max();
  if (!is_up_ || !error_.empty()) return next;
  if (!is_current_) return next_poll_;
  if (unanswered_ + unwanted_ > 0) next = heard_ + patience();
  if (options_.bytes_per_second > 0 && next_ < jobs_.size()) {
    const double lacking = static_cast<double>(range_bytes()) - tokens_;
    const Duration wait =
        from_seconds(std::max(lacking, 0.0) / static_cast<double>(options_.bytes_per_second));
    if (has_room(range_bytes())) next = std::min(next, refilled_ + wait + std::chrono::milliseconds(1));
  }
  return next;
}

void ShardFetcher::measure(uint64_t bytes, Time now) {
  measuring_bytes_ += bytes;
  const Duration passed = now - measured_;
  if (passed < kMeasureInterval) return;
  const double rate = static_cast<double>(measuring_bytes_) / seconds(passed);
  rate_ = rate_ == 0 ? rate : 0.6 * rate_ + 0.4 * rate;
  measuring_bytes_ = 0;
  measured_ = now;
}

FetchProgress ShardFetcher::progress() const {
  FetchProgress progress;
  for (const Job& job : jobs_) {
    progress.done_bytes += job.stored - std::min(job.stored, job.shard.have);
    progress.total_bytes += job.shard.bytes - job.shard.have;
  }
  progress.received_bytes = received_;
  progress.bytes_per_second = rate_;
  return progress;
}

}  // namespace caravan
