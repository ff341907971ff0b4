#include "offload/planner.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/share.h"
#include "offload/pass_cost.h"
#include "offload/plan_levels.h"

namespace caravan {

namespace {

constexpr uint64_t kKvLevels = 16;
constexpr uint64_t kKvShareLevels = 32;  // one differs from the next by a part in so many
constexpr double kUsefulStep = 0.95;     // of the time: what a step up in RAM must reach

struct Candidate {
  uint32_t level = 0;  // of the weights
  uint64_t kv_blocks = 0;
  uint64_t ram = 0;  // the least budget that allows it
  double read_seconds = 0;
  double least_seconds = 0;  // no pass of it is shorter
};

struct KvLevel {
  uint64_t blocks = 0;      // in RAM
  double read_seconds = 0;  // of what is not
};

constexpr uint64_t kTooMuch = uint64_t{1} << 60;
constexpr double kPastAnyRam = 0x1p63;  // more than any budget's bytes

// What can be counted.
const PlanInput& checked(const PlanInput& input) {
  if (input.pages.empty()) fail(ErrorCode::kInvalidArgument, "there is nothing to plan: no weights here");
  uint64_t total = 0;
  for (const PlanPage& page : input.pages)
    if (!checked_add(total, page.arena_bytes, total) || total > kTooMuch)
      fail(ErrorCode::kLimit, "the weights are past counting");
  if (input.scratch_bytes > kTooMuch || input.wire_bytes > kTooMuch)
    fail(ErrorCode::kLimit, "scratch of {} is past counting", to_string(Bytes{input.scratch_bytes}));
  return input;
}

class Planner {
 public:
  // The fastest way for this pass. Of an input that was checked, and its levels: they depend on the pages
  // alone, and take the longest.
  Planner(const PlanInput& input, const std::vector<WeightLevel>& levels, const PassShape& pass)
      : input_(input), pass_(pass), levels_(levels), steps_(pass_steps(input, pass)) {
    const uint64_t sequence_blocks =
        (uint64_t{pass.kept} + input.block_positions - 1) / input.block_positions;
    uint64_t kv_bytes = 0;
    if (!checked_multiply(sequence_blocks, pass.sequences, kv_wanted_) ||
        !checked_multiply(kv_wanted_, input.block_bytes, kv_bytes) || kv_bytes > kTooMuch)
      fail(ErrorCode::kLimit, "the KV of {} sequences of {} positions is past counting", pass.sequences,
           pass.kept);
    kv_floor_ = input.may_spill ? std::min<uint64_t>(kv_wanted_, kLeastKvBlocks) : kv_wanted_;
    add_candidates();
  }

  Plan plan() {
    const Candidate* best = fastest(input_.budgets.ram);
    if (!best) refuse();
    Plan plan = describe(*best);
    plan.least_ram = least().ram;
    add_steps(plan);
    plan.binds = binds(plan);
    return plan;
  }

  // Without all else that a plan tells.
  Prediction prediction() const {
    const Candidate* best = fastest(input_.budgets.ram);
    if (!best) refuse();
    return predict(*best);
  }

 private:
  void add_candidates() {
    const uint64_t limit = input_.budgets.kv_limit(), most = blocks_within(limit);
    if (most < kv_floor_)
      fail(ErrorCode::kOutOfMemory, "--kv-ram {} is too little: the least is {}, {} blocks of {} positions",
           to_string(Bytes{limit}), exact(kv_bytes(least_kv_blocks())), least_kv_blocks(),
           input_.block_positions);
    const std::vector<KvLevel> kv_levels = this->kv_levels(most);
    for (uint32_t level = 0; level < levels_.size(); ++level) add_level(level, kv_levels);
    // Of what takes the same time, first what reads least.
    std::stable_sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
      return std::tie(a.least_seconds, a.read_seconds, a.level, b.kv_blocks, a.ram) <
             std::tie(b.least_seconds, b.read_seconds, b.level, a.kv_blocks, b.ram);
    });
  }

  // How much of KV may be in RAM, whatever the RAM: `most` of it, and less. Where the limit is a share of
  // RAM, all of KV and less, closer where it is little; what RAM each takes says which of them the share
  // allows. (With the most that the share allows now, more RAM would lose that one.)
  std::vector<KvLevel> kv_levels(uint64_t most) const {
    std::vector<uint64_t> blocks = {kv_floor_};
    if (!input_.budgets.kv_percent) {
      for (uint64_t i = 1; i <= kKvLevels; ++i)
        blocks.push_back(kv_floor_ + (most - kv_floor_) * i / kKvLevels);
    } else {
      for (uint64_t more = kv_wanted_ - kv_floor_; more > 0;
           more -= (more + kKvShareLevels - 1) / kKvShareLevels)
        blocks.push_back(kv_floor_ + more);
    }
    std::sort(blocks.begin(), blocks.end());
    blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
    std::vector<KvLevel> levels;
    for (uint64_t count : blocks)
      if (input_.may_spill || count == kv_wanted_)
        levels.push_back({count, state_read_seconds(input_, steps_, count * input_.block_bytes)});
    return levels;
  }

  void add_level(uint32_t index, const std::vector<KvLevel>& kv_levels) {
    const WeightLevel& level = levels_[index];
    const Measurements& machine = input_.measurements;
    const PassConditions conditions{0, machine.compute_while_reading, machine.read_while_computing};
    double compute = 0;
    for (const PassStep& step : steps_) compute += step.compute();
    const double weights =
        pass_read_seconds(input_, pass_, steps_, level.placements, level.chosen(pass_.rows));
    const double window = window_seconds(level);
    for (const auto& [blocks, state] : kv_levels)
      candidates_.push_back({index, blocks, input_.budgets.ram_for(bytes(level, blocks), kv_bytes(blocks)),
                             weights + state,
                             least_pass_seconds(compute, weights + state, input_.elsewhere_seconds,
                                                state + window, conditions)});
  }

  // At most, of reading all that a window holds.
  double window_seconds(const WeightLevel& level) const {
    const Measurements& machine = input_.measurements;
    return static_cast<double>(level.window_bytes) / machine.best_read(UINT64_MAX).rate +
           static_cast<double>(input_.pages.size()) * machine.small_read_seconds;
  }

  // In RAM.
  uint64_t kv_bytes(uint64_t blocks) const {
    const bool staged = blocks < kv_wanted_ || input_.staging_always;
    return blocks * input_.block_bytes + (staged ? input_.staging_bytes : 0);
  }
  uint64_t blocks_within(uint64_t bytes) const {
    if (input_.block_bytes == 0 || bytes >= kv_bytes(kv_wanted_)) return kv_wanted_;
    const uint64_t blocks = (bytes - std::min(bytes, input_.staging_bytes)) / input_.block_bytes;
    return std::min(blocks, kv_wanted_ - 1);
  }
  // All of it, where the staging takes more than that saves.
  uint64_t least_kv_blocks() const {
    return kv_bytes(kv_wanted_) <= kv_bytes(kv_floor_) ? kv_wanted_ : kv_floor_;
  }
  uint64_t spilled(uint64_t blocks) const { return (kv_wanted_ - blocks) * input_.block_bytes; }

  uint64_t bytes(const WeightLevel& level, uint64_t blocks) const {
    return level.bytes + kv_bytes(blocks) + input_.scratch_bytes + input_.wire_bytes;
  }

  PassPlacement placement(const Candidate& candidate) const {
    const WeightLevel& level = levels_[candidate.level];
    return {level.placements, level.chosen(pass_.rows), level.window_bytes,
            candidate.kv_blocks * input_.block_bytes};
  }
  Prediction predict(const Candidate& candidate) const {
    return predict_pass(input_, pass_, steps_, placement(candidate));
  }
  double seconds(const Candidate& candidate) const { return predict(candidate).seconds; }

  // The fastest that fits into so much; candidates stand by the time that they cannot beat. Differences of
  // rounding are none.
  const Candidate* fastest(uint64_t ram) const {
    constexpr double kRounding = 1 - 1e-9;
    const Candidate* best = nullptr;
    double best_seconds = std::numeric_limits<double>::infinity();
    for (const Candidate& candidate : candidates_) {
      if (candidate.least_seconds >= best_seconds * kRounding) break;
      if (candidate.ram > ram) continue;
      const double time = seconds(candidate);
      if (time < best_seconds * kRounding) best = &candidate, best_seconds = time;
    }
    return best;
  }

  const Candidate& least() const {
    return *std::min_element(candidates_.begin(), candidates_.end(),
                             [](const Candidate& a, const Candidate& b) { return a.ram < b.ram; });
  }

  [[noreturn]] void refuse() const {
    const Candidate& candidate = least();
    const WeightLevel& level = levels_[candidate.level];
    const uint64_t ram = candidate.ram;
    const char* what = level.window_bytes > 0   ? "two weight groups at a time"
                       : level.demand_bytes > 0 ? "the groups of every pass and two experts"
                                                : "weights";
    fail(
        ErrorCode::kOutOfMemory,
        "a RAM budget of {} is too small here: the least is {}: {} for {}, {} for KV, {} for scratch, {} for "
        "the wire, {} kept free",
        exact(input_.budgets.ram), exact(ram), to_string(Bytes{level.bytes}), what,
        to_string(Bytes{kv_bytes(candidate.kv_blocks)}), to_string(Bytes{input_.scratch_bytes}),
        to_string(Bytes{input_.wire_bytes}), to_string(Bytes{ram - bytes(level, candidate.kv_blocks)}));
  }

  // Readable, and exact enough to be typed again.
  static std::string exact(uint64_t bytes) {
    return fmt::format("{} ({} bytes)", to_string(Bytes{bytes}), bytes);
  }

  PlanShares floors() const {
    uint64_t weights = UINT64_MAX;
    for (const WeightLevel& level : levels_) weights = std::min(weights, level.bytes);
    return {weights, kv_bytes(least_kv_blocks()), input_.scratch_bytes, input_.wire_bytes, headroom()};
  }
  // Without a limit there is nothing to keep free.
  uint64_t headroom() const { return input_.budgets.ram == UINT64_MAX ? 0 : input_.budgets.headroom(); }

  double hit_rate(const WeightLevel& level) const {
    double hits = 0, uses = 0;
    for (const PassStep& step : steps_) {
      if (step.use != PageUse::kChosen) continue;
      std::vector<double> pages;
      for (uint32_t i = step.first; i < step.first + step.count; ++i)
        pages.push_back(input_.pages[i].uses_a_token);
      std::sort(pages.rbegin(), pages.rend());
      for (size_t i = 0; i < pages.size(); ++i) {
        uses += pages[i];
        if (level.placements[step.first] != Placement::kOnDemand || i < level.cache_pages) hits += pages[i];
      }
    }
    return uses > 0 ? hits / uses : 1;
  }

  Plan describe(const Candidate& candidate) const {
    const WeightLevel& level = levels_[candidate.level];
    Plan plan;
    plan.placements = level.placements;
    plan.shares = {level.bytes, kv_bytes(candidate.kv_blocks), input_.scratch_bytes, input_.wire_bytes,
                   headroom()};
    plan.floors = floors();
    plan.resident_bytes = level.resident_bytes;
    plan.window_bytes = level.window_bytes;
    plan.prefetch_pages = level.window_pages > 0 ? level.window_pages - 1 : 0;
    plan.demand_bytes = level.demand_bytes;
    plan.cache_bytes_choice = level.cache_bytes_choice;
    plan.cache_pages_choice = level.cache_pages;
    plan.chosen_decode = level.decode;
    plan.chosen_scan = level.scan;
    plan.expected_hit_rate = hit_rate(level);
    const DiskRate read = input_.measurements.best_read(UINT64_MAX);
    plan.read_size_bytes = read.bytes;
    plan.readers = read.readers;
    plan.kv_blocks = candidate.kv_blocks;
    plan.kv_spilled_bytes = spilled(candidate.kv_blocks);
    plan.decode = predict(candidate);
    const uint32_t first = std::min(input_.context, input_.block_positions);
    plan.decode_start = at_start({pass_.rows, pass_.sequences, first, first});
    const uint32_t rows = std::max(1u, std::min(input_.prompt_rows, input_.context));
    plan.prompt = at_start({rows, 1, rows / 2, rows});
    return plan;
  }

  // As long as there is no more KV than this pass keeps: weights use what it leaves.
  Prediction at_start(const PassShape& pass) const { return Planner(input_, levels_, pass).prediction(); }

  bool reads_nothing(const Candidate& candidate) const {
    const auto& placements = levels_[candidate.level].placements;
    return candidate.kv_blocks == kv_wanted_ &&
           std::none_of(placements.begin(), placements.end(), [](Placement placement) {
             return placement == Placement::kStreamed || placement == Placement::kOnDemand;
           });
  }

  RamStep step_to(uint64_t ram) const { return {ram, pass_.rows / seconds(*fastest(ram))}; }

  // What more RAM would bring, of as much as there can be.
  void add_steps(Plan& plan) const {
    const double useful = plan.decode.seconds * kUsefulStep;
    std::vector<const Candidate*> larger;
    const Candidate* fits = nullptr;
    for (const Candidate& candidate : candidates_) {
      if (candidate.ram <= input_.budgets.ram || candidate.ram == UINT64_MAX) continue;
      if (candidate.least_seconds <= useful) larger.push_back(&candidate);
      if (reads_nothing(candidate) && (!fits || candidate.ram < fits->ram)) fits = &candidate;
    }
    std::stable_sort(larger.begin(), larger.end(),
                     [](const Candidate* a, const Candidate* b) { return a->ram < b->ram; });
    for (const Candidate* candidate : larger)
      if (seconds(*candidate) <= useful) {
        plan.next_step = step_to(candidate->ram);
        break;
      }
    const bool read = plan.kv_spilled_bytes > 0 ||
                      std::any_of(plan.placements.begin(), plan.placements.end(), [](Placement placement) {
                        return placement == Placement::kStreamed || placement == Placement::kOnDemand;
                      });
    if (read && fits) plan.all_fits = step_to(fits->ram);
  }

  std::string binds(const Plan& plan) const {
    const std::string read = to_string(Bytes{static_cast<uint64_t>(plan.decode.read_bytes)});
    if (plan.decode.bound == Bound::kDisk)
      return fmt::format("RAM: {} a pass are read from disk again, because they do not fit", read);
    const std::string beside =
        plan.decode.read_bytes > 0 ? fmt::format("; {} a pass are read from disk beside it", read) : "";
    if (plan.decode.bound == Bound::kMemory)
      return "the speed of memory: every pass reads its weights and KV once" + beside;
    return "arithmetic: the operations of a pass take longer than reading its weights" + beside;
  }

  const PlanInput& input_;
  const PassShape pass_;
  const std::vector<WeightLevel>& levels_;
  const std::vector<PassStep> steps_;
  uint64_t kv_wanted_ = 0;  // blocks
  uint64_t kv_floor_ = 0;   // blocks
  std::vector<Candidate> candidates_;
};

}  // namespace

uint64_t Budgets::ram_for(uint64_t bytes) const {
  if (headroom_divisor < 2) return bytes;
  // The least r with r - r / d >= bytes, from just above downwards.
  uint64_t least = bytes + bytes / (headroom_divisor - 1) + 1;
  while (least > bytes && (least - 1) - (least - 1) / headroom_divisor >= bytes) --least;
  return least;
}

uint64_t Budgets::kv_limit() const {
  if (!kv_percent) return kv_ram.value_or(UINT64_MAX);
  return ram == UINT64_MAX ? ram : share_of(Bytes{ram}, *kv_percent).count;
}

uint64_t Budgets::ram_for(uint64_t bytes, uint64_t kv) const {
  const uint64_t least = ram_for(bytes);
  const auto allows = [&](uint64_t some) { return share_of(Bytes{some}, *kv_percent).count >= kv; };
  if (!kv_percent || allows(least)) return least;
  const double about = static_cast<double>(kv) * 100 / *kv_percent;
  if (about >= kPastAnyRam) return UINT64_MAX;
  // Shares are rounded.
  auto enough = static_cast<uint64_t>(about);
  while (!allows(enough)) ++enough;
  while (allows(enough - 1)) --enough;
  return enough;
}

std::string_view name(Placement placement) {
  switch (placement) {
    case Placement::kMapped:
      return "mapped";
    case Placement::kResident:
      return "resident";
    case Placement::kStreamed:
      return "streamed";
    case Placement::kOnDemand:
      return "on demand";
    case Placement::kByRow:
      return "by row";
  }
  return "";
}

std::string_view name(Bound bound) {
  switch (bound) {
    case Bound::kMemory:
      return "memory";
    case Bound::kDisk:
      return "disk";
    case Bound::kArithmetic:
      return "arithmetic";
  }
  return "";
}

Plan plan_pages(const PlanInput& input) {
  const std::vector<WeightLevel> levels = weight_levels(checked(input));
  const uint32_t sequences = std::max(1u, input.sequences);
  return Planner(input, levels, {sequences, sequences, input.context, input.context}).plan();
}

std::vector<Prediction> predict_alone(const PlanInput& input, std::span<const PassAlone> passes) {
  const std::vector<WeightLevel> levels = weight_levels(checked(input));
  std::vector<Prediction> predictions;
  for (const PassAlone& pass : passes)
    predictions.push_back(Planner(input, levels, {pass.rows, 1, pass.position, pass.context}).prediction());
  return predictions;
}

Prediction predict(const PlanInput& input, const Plan& plan, uint32_t rows, uint32_t sequences,
                   uint32_t position) {
  const PassShape shape{rows, sequences, position, position};
  return predict_pass(input, shape, pass_steps(input, shape),
                      {plan.placements, rows < kScanRows ? plan.chosen_decode : plan.chosen_scan,
                       plan.window_bytes, plan.kv_blocks * input.block_bytes});
}

}  // namespace caravan
