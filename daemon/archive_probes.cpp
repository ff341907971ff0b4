#include "daemon/archive_probes.h"

#include <algorithm>
#include <utility>

namespace caravan {
namespace {

constexpr double kWeightOfNew = 0.1;
// What a question took once must not keep others from being asked for ever.
constexpr double kForgetting = 0.98;

}  // namespace

bool ArchiveProbes::worth_asking(double compute_ns, Time now) {
  if (now < rests_until_) return false;
  if (compute_ns == 0 || compute_ns >= options_.gain * trip_ns_) return true;
  trip_ns_ *= kForgetting;
  return false;
}

ArchiveProbe ArchiveProbes::ask(RingId ring, EpochId epoch, RequestId request, std::vector<BlockTag> tags,
                                Time now) {
  const auto blocks = static_cast<uint32_t>(tags.size());
  pending_[++last_probe_] = {request, now, blocks};
  return {ring, epoch, last_probe_, false, std::move(tags), blocks, 0};
}

std::optional<ArchiveProbes::Found> ArchiveProbes::on(const ArchiveProbe& answer, Time now) {
  const auto found = pending_.find(answer.probe);
  if (found == pending_.end()) return std::nullopt;
  const Pending asked = found->second;
  pending_.erase(found);
  const auto trip_ns = static_cast<double>((now - asked.asked).count());
  trip_ns_ = trip_ns_ == 0 ? trip_ns : (1 - kWeightOfNew) * trip_ns_ + kWeightOfNew * trip_ns;
  rest_ = {};
  return Found{asked.request, std::min(answer.blocks, asked.blocks), answer.load_ns};
}

std::vector<RequestId> ArchiveProbes::tick(Time now) {
  std::vector<RequestId> late;
  while (!pending_.empty() && now - pending_.begin()->second.asked >= options_.timeout) {
    late.push_back(pending_.begin()->second.request);
    pending_.erase(pending_.begin());
  }
  if (late.empty()) return late;
  timeouts_ += late.size();
  rest_ = rest_ == Duration{} ? options_.first_rest : std::min(2 * rest_, options_.last_rest);
  rests_until_ = now + rest_;
  return late;
}

Time ArchiveProbes::next_tick() const {
  return pending_.empty() ? Time::max() : pending_.begin()->second.asked + options_.timeout;
}

void ArchiveProbes::forget() {
  pending_.clear();
  trip_ns_ = 0;
  rest_ = {};
  rests_until_ = {};
}

}  // namespace caravan
