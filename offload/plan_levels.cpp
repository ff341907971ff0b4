#include "offload/plan_levels.h"

#include <algorithm>
#include <map>

#include "offload/residency.h"

namespace caravan {

namespace {

constexpr uint64_t kResidentLevels = 256;
constexpr uint64_t kCacheLevels = 16;

class Levels {
 public:
  explicit Levels(const PlanInput& input) : pages_(input.pages), may_map_(input.may_map) {
    for (uint32_t i = 0; i < pages_.size(); ++i) {
      const PlanPage& page = pages_[i];
      if (page.use == PageUse::kRows) {
        costs_.emplace_back();  // rows are read from the source; no page stands here
        continue;
      }
      costs_.push_back({page.arena_bytes, i, page.use, page.choice});
      if (page.use == PageUse::kWhole) {
        in_order_ += page.arena_bytes;
        continue;
      }
      on_demand_ += page.arena_bytes;
      largest_chosen_ = std::max(largest_chosen_, page.arena_bytes);
      most_chosen_ = std::max(most_chosen_, ++choices_[page.choice]);
    }
  }

  std::vector<WeightLevel> take() {
    if (may_map_) add_mapped();
    const uint64_t least = least_residency_bytes(costs_);
    const uint64_t kept = in_order_ + demand_bytes();  // nothing streamed
    for (uint64_t i = 0; i < kResidentLevels && least < kept; ++i)
      add(least + (kept - least) / kResidentLevels * i +
          (kept - least) % kResidentLevels * i / kResidentLevels);
    const uint64_t steps = std::min<uint64_t>(most_chosen_, kCacheLevels);
    for (uint64_t i = 0; i < steps; ++i) add(kept + cache_bytes(most_chosen_ * i / steps));
    add(in_order_ + on_demand_);
    return std::move(levels_);
  }

 private:
  uint64_t demand_bytes() const { return std::min(on_demand_, 2 * largest_chosen_); }

  // Of so many pages of each choice, at most of all that `kept` leaves.
  uint64_t cache_bytes(uint64_t pages_of_choice) const {
    const uint64_t most = on_demand_ - demand_bytes();
    uint64_t bytes = 0;
    const bool counted = checked_multiply(choices_.size() * pages_of_choice, largest_chosen_, bytes);
    return counted ? std::min(bytes, most) : most;
  }

  void add_mapped() {
    WeightLevel& level = levels_.emplace_back();
    for (const PlanPage& page : pages_) {
      const bool by_row = page.use == PageUse::kRows;
      level.placements.push_back(by_row ? Placement::kByRow : Placement::kMapped);
      if (!by_row) level.resident_bytes += page.mapped_bytes;
    }
    level.bytes = level.resident_bytes;
  }

  void add(uint64_t limit) {
    const ResidencyPlan plan = plan_residency(costs_, limit);
    WeightLevel level;
    level.bytes = limit;
    level.resident_bytes = plan.resident_bytes;
    level.window_bytes = plan.window_bytes;
    uint64_t largest_streamed = 0;
    for (uint32_t i = 0; i < pages_.size(); ++i) {
      const PageUse use = pages_[i].use;
      const bool kept = use != PageUse::kRows && plan.resident[i];
      level.placements.push_back(use == PageUse::kRows     ? Placement::kByRow
                                 : kept                    ? Placement::kResident
                                 : use == PageUse::kChosen ? Placement::kOnDemand
                                                           : Placement::kStreamed);
      if (level.placements.back() == Placement::kStreamed)
        largest_streamed = std::max(largest_streamed, pages_[i].arena_bytes);
    }
    if (largest_streamed > 0)
      level.window_pages = static_cast<uint32_t>(plan.window_bytes / largest_streamed);
    if (plan.on_demand_bytes > 0) {
      level.demand_bytes = demand_bytes();
      level.cache_bytes_choice = (plan.on_demand_bytes - level.demand_bytes) / choices_.size();
      level.cache_pages = static_cast<uint32_t>(level.cache_bytes_choice / largest_chosen_);
      level.decode = {level.cache_pages, plan.on_demand_bytes};
      // What is not kept whole of every choice is for those that pass, too.
      const uint64_t passing = passing_bytes(costs_, plan.on_demand_bytes);
      const uint64_t kept = (plan.on_demand_bytes - passing) / choices_.size() / largest_chosen_;
      level.scan = {static_cast<uint32_t>(kept),
                    plan.on_demand_bytes - kept * choices_.size() * largest_chosen_};
    }
    levels_.push_back(std::move(level));
  }

  const std::vector<PlanPage>& pages_;
  const bool may_map_;
  std::vector<PageCost> costs_;
  uint64_t in_order_ = 0, on_demand_ = 0;  // bytes
  uint64_t largest_chosen_ = 0;            // bytes
  uint32_t most_chosen_ = 0;               // pages of one choice
  std::map<uint32_t, uint32_t> choices_;   // pages of each
  std::vector<WeightLevel> levels_;
};

}  // namespace

std::vector<WeightLevel> weight_levels(const PlanInput& input) {
  return Levels(input).take();
}

}  // namespace caravan
