#include "offload/plan_levels.h"

#include <algorithm>
#include <map>

namespace caravan {

namespace {

constexpr size_t kMaxResidentLevels = 256;
constexpr uint32_t kMaxCacheLevels = 16;
constexpr uint32_t kWindowPages[] = {2, 3, 4, 6, 8, 12, 16};

class Levels {
 public:
  explicit Levels(const PlanInput& input) : pages_(input.pages) {
    for (uint32_t i = 0; i < pages_.size(); ++i) {
      if (pages_[i].use == PageUse::kWhole) whole_.push_back(i);
      if (pages_[i].use == PageUse::kChosen) choices_[pages_[i].choice].push_back(i);
    }
  }

  std::vector<WeightLevel> take() {
    add_mapped();
    add_caches();
    add_resident(UINT64_MAX);
    std::vector<uint64_t> sizes;
    for (uint32_t page : whole_) sizes.push_back(pages_[page].arena_bytes);
    if (!sizes.empty()) {
      std::nth_element(sizes.begin(), sizes.begin() + static_cast<ptrdiff_t>(sizes.size() / 2), sizes.end());
      const uint64_t large = sizes[sizes.size() / 2] + sizes[sizes.size() / 2] / 2;
      const auto is_large = [&](uint32_t page) { return pages_[page].arena_bytes > large; };
      if (std::any_of(whole_.begin(), whole_.end(), is_large)) add_resident(large);
    }
    return std::move(levels_);
  }

 private:
  // Every page as it lies when nothing is kept.
  WeightLevel bare() const {
    WeightLevel level;
    level.placements.resize(pages_.size());
    for (size_t i = 0; i < pages_.size(); ++i)
      level.placements[i] = pages_[i].use == PageUse::kWhole  ? Placement::kStreamed
                            : pages_[i].use == PageUse::kRows ? Placement::kByRow
                                                              : Placement::kOnDemand;
    return level;
  }

  void add_mapped() {
    WeightLevel level = bare();
    std::fill(level.placements.begin(), level.placements.end(), Placement::kMapped);
    for (const PlanPage& page : pages_) level.resident_bytes += page.mapped_bytes;
    level.windows = {{}};
    levels_.push_back(std::move(level));
  }

  void keep(WeightLevel& level, uint32_t page) const {
    level.placements[page] = Placement::kResident;
    level.resident_bytes += pages_[page].arena_bytes;
  }

  // All whole pages kept, and ever more of the chosen ones.
  void add_caches() {
    uint32_t most = 0;
    for (const auto& [choice, pages] : choices_) most = std::max(most, static_cast<uint32_t>(pages.size()));
    const uint32_t steps = std::min(most, kMaxCacheLevels);
    for (uint32_t i = 0; i <= steps; ++i) {
      WeightLevel level = bare();
      for (uint32_t page : whole_) keep(level, page);
      add_choices(level, steps == 0 ? 0 : static_cast<uint32_t>(uint64_t{most} * i / steps));
      level.windows = {{}};
      levels_.push_back(std::move(level));
    }
  }

  void add_choices(WeightLevel& level, uint32_t cache_pages) const {
    level.cache_pages = cache_pages;
    for (const auto& [choice, pages] : choices_) {
      if (cache_pages >= pages.size()) {
        for (uint32_t page : pages) keep(level, page);
        continue;
      }
      uint64_t largest = 0;
      for (uint32_t page : pages) largest = std::max(largest, pages_[page].arena_bytes);
      level.demand_bytes = std::max(level.demand_bytes, 2 * largest);
      level.cache_bytes_choice = std::max(level.cache_bytes_choice, largest * cache_pages);
      level.cache_bytes += largest * cache_pages;
    }
  }

  // Pages over `large` kept, and ever more of the others; some streamed.
  void add_resident(uint64_t large) {
    const size_t steps = std::min(whole_.size(), kMaxResidentLevels);
    for (size_t i = 0; i < steps; ++i) {
      WeightLevel level = bare();
      add_choices(level, 0);
      const double share = static_cast<double>(i) / static_cast<double>(steps);
      double due = 0;  // bytes that should be kept by now, over those that are
      std::vector<uint64_t> streamed;
      for (uint32_t page : whole_) {
        const auto bytes = static_cast<double>(pages_[page].arena_bytes);
        const bool is_large = pages_[page].arena_bytes > large;
        if (!is_large) due += bytes * share;
        if (is_large || due >= bytes / 2 + 1) {
          keep(level, page);
          if (!is_large) due -= bytes;
        } else {
          streamed.push_back(pages_[page].arena_bytes);
        }
      }
      add_windows(level, streamed);
      if (!level.windows.empty()) levels_.push_back(std::move(level));
    }
  }

  // The most that so many streamed pages in a row take. A window for all of them would be no window.
  void add_windows(WeightLevel& level, const std::vector<uint64_t>& streamed) const {
    for (uint32_t count : kWindowPages) {
      if (count >= streamed.size()) break;
      uint64_t bytes = 0, most = 0;
      for (size_t i = 0; i < streamed.size() + count; ++i) {
        bytes += streamed[i % streamed.size()];
        if (i >= count) bytes -= streamed[(i - count) % streamed.size()];
        most = std::max(most, bytes);
      }
      level.windows.push_back({count, most});
    }
  }

  const std::vector<PlanPage>& pages_;
  std::vector<uint32_t> whole_;
  std::map<uint32_t, std::vector<uint32_t>> choices_;
  std::vector<WeightLevel> levels_;
};

}  // namespace

std::vector<WeightLevel> weight_levels(const PlanInput& input) {
  return Levels(input).take();
}

}  // namespace caravan
