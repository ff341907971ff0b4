#include "offload/pass_cost.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "offload/residency.h"

namespace caravan {

namespace {

struct Cost {
  double memory = 0;      // seconds
  double arithmetic = 0;  // seconds
};

class Costs {
 public:
  Costs(const PlanInput& input, const PassShape& shape)
      : input_(input),
        machine_(input.measurements),
        shape_(shape),
        memory_(machine_.at(machine_.memory, input.threads)) {}

  // `bytes` for the first row at its rate, and `operations` for the further ones at that of many: a product
  // of a few rows has the cost of both, because what is read is unpacked before it is multiplied.
  void add(double bytes, double row_rate, double operations, double many_rate, Cost& cost) const {
    // A format whose single row runs far under the speed of memory waits for its arithmetic.
    constexpr double kMemoryBound = 0.5;
    (row_rate < kMemoryBound * memory_ ? cost.arithmetic : cost.memory) += bytes / row_rate;
    cost.arithmetic += operations / many_rate;
  }

  // `used`: the chance that any row comes here; `rows`: how many are expected to.
  void add_work(const PlanPage& page, double used, double rows, Cost& cost) const {
    for (const PageWork& work : page.work) {
      const KernelRates rates = machine_.rates(work.type);
      add(used * static_cast<double>(work.bytes), machine_.at(rates.row_bytes, input_.threads),
          std::max(0.0, rows - used) * work.operations_row,
          machine_.at(rates.many_operations, input_.threads), cost);
    }
    cost.arithmetic += used * page.calls * machine_.call_seconds;
  }

  PassStep step(uint32_t first) const {
    const PlanPage& page = input_.pages[first];
    PassStep step;
    step.first = first;
    step.use = page.use;
    Cost cost;
    if (page.use == PageUse::kChosen) {
      step.count = choose(first, step.chosen, cost);
    } else if (page.use == PageUse::kRows) {
      // Read through the page cache, which has those that are common: not from disk.
      cost.memory = shape_.rows * static_cast<double>(page.row_bytes) / memory_;
    } else {
      add_work(page, 1, shape_.rows, cost);
    }
    if (page.state_bytes_position > 0) {
      const uint32_t seen =
          page.state_window > 0 ? std::min(page.state_window, shape_.position) : shape_.position;
      step.state_bytes = page.state_bytes_position * shape_.sequences * seen;
      step.kept_bytes = page.state_bytes_position * shape_.sequences * shape_.kept;
      add(step.state_bytes, machine_.at(input_.attention.row_bytes, input_.threads),
          page.state_operations_position * (shape_.rows - std::min(shape_.rows, shape_.sequences)) * seen,
          machine_.at(input_.attention.many_operations, input_.threads), cost);
    }
    step.memory_seconds = cost.memory;
    step.arithmetic_seconds = cost.arithmetic;
    return step;
  }

 private:
  uint32_t choose(uint32_t first, double& chosen, Cost& cost) const {
    const uint32_t choice = input_.pages[first].choice;
    uint32_t end = first;
    chosen = 0;
    for (; end < input_.pages.size() && input_.pages[end].use == PageUse::kChosen &&
           input_.pages[end].choice == choice;
         ++end) {
      const PlanPage& page = input_.pages[end];
      const double used = 1 - std::pow(1 - page.uses_a_token, shape_.rows);
      chosen += used;
      add_work(page, used, shape_.rows * page.uses_a_token, cost);
    }
    return end - first;
  }

  const PlanInput& input_;
  const Measurements& machine_;
  const PassShape& shape_;
  const double memory_;  // bytes a second
};

// The chosen pages' expected bytes that no cache holds: the cache keeps those that are used most.
double missed_bytes(const PlanInput& input, const PassStep& step, uint32_t rows, uint32_t cache_pages) {
  if (cache_pages >= step.count) return 0;
  std::vector<double> expected;
  for (uint32_t i = step.first; i < step.first + step.count; ++i) {
    const PlanPage& page = input.pages[i];
    expected.push_back((1 - std::pow(1 - page.uses_a_token, rows)) * static_cast<double>(page.bytes));
  }
  std::sort(expected.begin(), expected.end());
  double missed = 0;
  for (size_t i = 0; i < expected.size() - cache_pages; ++i) missed += expected[i];
  return missed;
}

// The share of this pass's state that RAM does not hold.
double spilled_share(std::span<const PassStep> steps, uint64_t kv_bytes) {
  double total = 0;
  for (const PassStep& step : steps) total += step.kept_bytes;
  return total > 0 ? std::max(0.0, 1 - static_cast<double>(kv_bytes) / total) : 0;
}

// Seconds to read bytes that lie together, in the reads that measured fastest.
double read_seconds(const Measurements& measurements, double bytes) {
  if (bytes <= 0) return 0;
  return bytes / measurements.best_read(UINT64_MAX).rate + measurements.small_read_seconds;
}

double state_seconds(const Measurements& measurements, double bytes) {
  if (bytes <= 0) return 0;
  return bytes / measurements.kv.rate + measurements.small_read_seconds;
}

// What a step's weights ask of the disk.
struct Read {
  double bytes = 0;
  double pages = 0;
  double seconds = 0;
};

// Of pages that are read one by one, so many at a time as there is room beside the one in use.
Read chosen_read(const PlanInput& input, const PassShape& shape, const PassStep& step,
                 const ChosenRoom& room) {
  const auto page = static_cast<double>(input.pages[step.first].bytes);
  const double bytes = missed_bytes(input, step, shape.rows, room.kept_pages);
  if (bytes <= 0 || page <= 0) return {};
  const DiskRate& best = input.measurements.best_read(UINT64_MAX);
  const double pages = bytes / page;
  const double at_once = std::clamp(std::min(pages, static_cast<double>(room.bytes) / page - 1), 1.0,
                                    std::max(1.0, static_cast<double>(best.readers)));
  return {bytes, pages,
          bytes / best.rate + std::max(1.0, pages / at_once) * input.measurements.small_read_seconds};
}

Read weight_read(const PlanInput& input, const PassShape& shape, const PassStep& step, Placement placement,
                 const ChosenRoom& chosen) {
  const auto bytes = static_cast<double>(input.pages[step.first].bytes);
  switch (placement) {
    case Placement::kMapped:
    case Placement::kResident:
    case Placement::kByRow:
      return {};
    case Placement::kStreamed:
      return {bytes, 1, read_seconds(input.measurements, bytes)};
    case Placement::kOnDemand:
      return chosen_read(input, shape, step, chosen);
  }
  return {};
}

// A choice's pages are cut into at most so many steps for the simulation.
constexpr uint32_t kMostParts = 12;

// The items of a pass, one for each step; of on-demand pages several: those that are kept, and those that are
// read, a few at a time.
class Items {
 public:
  Items(const PlanInput& input, const PassShape& shape, const PassPlacement& placement)
      : input_(input), shape_(shape), placement_(placement) {}

  // Returns the bytes that the step reads.
  double add(const PassStep& step, double spilled) {
    const Placement where = placement_.placements[step.first];
    const Read read = weight_read(input_, shape_, step, where, placement_.chosen);
    const double state = spilled * step.state_bytes;
    if (where == Placement::kOnDemand && read.seconds > 0) {
      add_chosen(step, read);
    } else {
      PassItem& item = items_.emplace_back();
      item.compute = step.compute();
      item.read = read.seconds + state_seconds(input_.measurements, state);
      if (where == Placement::kStreamed) item.room = input_.pages[step.first].arena_bytes;
    }
    return read.bytes + state;
  }
  void add_elsewhere(double seconds) {
    items_.emplace_back().compute = seconds;
    items_.back().elsewhere = true;
  }
  const std::vector<PassItem>& items() const { return items_; }

 private:
  // As Residency has them: in decode, those that are kept first; in a scan first what was read ahead, as far
  // as there is room, to make room for more; the others as they come.
  void add_chosen(const PassStep& step, const Read& read) {
    const double missed = std::min(step.chosen, read.pages), page = step.compute() / step.chosen;
    const auto parts = static_cast<uint32_t>(std::clamp(std::ceil(missed), 1.0, double{kMostParts}));
    // Nobody waits for more than the first page: a part of its own.
    const double first = std::min(1.0, missed), rest = parts > 1 ? (missed - first) / (parts - 1) : 0;
    const uint64_t window = placement_.chosen.bytes;
    const auto page_bytes = static_cast<double>(input_.pages[step.first].arena_bytes);
    const auto begin = static_cast<uint32_t>(items_.size());
    const bool scan = shape_.rows >= kScanRows;
    uint64_t ahead = 0;
    for (uint32_t part = 0; part <= parts; ++part) {
      const double pages = part == 0 ? first : rest;
      const uint64_t room = std::min(window / 2, static_cast<uint64_t>(page_bytes * pages));
      if (!kept_done_ && (!scan || part == parts || ahead + room > window)) {
        items_.emplace_back().compute = std::max(0.0, step.compute() - missed * page);
        kept_done_ = true;
      }
      if (part == parts) break;
      PassItem& item = items_.emplace_back();
      item.compute = pages * page;
      item.read = read.seconds * pages / missed;
      item.room = room;
      item.chosen = true;
      item.chosen_at = begin;
      item.read_from = scan && guessed_from_ ? *guessed_from_ : begin;
      ahead += room;
    }
    kept_done_ = false;
    guessed_from_.reset();
    if (scan && chose_nearly_all(step.chosen, step.count)) guessed_from_ = begin;
  }

  const PlanInput& input_;
  const PassShape& shape_;
  const PassPlacement& placement_;
  std::vector<PassItem> items_;
  bool kept_done_ = false;
  std::optional<uint32_t> guessed_from_;  // the last choice, when it says what the next one will be
};

}  // namespace

double pass_read_seconds(const PlanInput& input, const PassShape& shape, std::span<const PassStep> steps,
                         std::span<const Placement> placements, const ChosenRoom& chosen) {
  double total = 0;
  for (const PassStep& step : steps)
    total += weight_read(input, shape, step, placements[step.first], chosen).seconds;
  return total;
}

double state_read_seconds(const PlanInput& input, std::span<const PassStep> steps, uint64_t kv_bytes) {
  const double spilled = spilled_share(steps, kv_bytes);
  double total = 0;
  for (const PassStep& step : steps) total += state_seconds(input.measurements, spilled * step.state_bytes);
  return total;
}

std::vector<PassStep> pass_steps(const PlanInput& input, const PassShape& shape) {
  const Costs costs(input, shape);
  std::vector<PassStep> steps;
  for (uint32_t page = 0; page < input.pages.size(); page += steps.back().count)
    steps.push_back(costs.step(page));
  return steps;
}

Prediction predict_pass(const PlanInput& input, const PassShape& shape, std::span<const PassStep> steps,
                        const PassPlacement& placement) {
  Prediction result;
  result.rows = shape.rows;
  result.position = shape.position;
  const double spilled = spilled_share(steps, placement.kv_bytes);
  double memory = 0, arithmetic = 0;
  Items items(input, shape, placement);
  for (const PassStep& step : steps) {
    result.read_bytes += items.add(step, spilled);
    memory += step.memory_seconds;
    arithmetic += step.arithmetic_seconds;
  }
  for (const PassItem& item : items.items()) result.read_seconds += item.read;
  if (input.elsewhere_seconds > 0) items.add_elsewhere(input.elsewhere_seconds);
  const Measurements& machine = input.measurements;
  result.compute_seconds = memory + arithmetic;
  const PassTime time = pass_time(items.items(), {placement.window_bytes, machine.compute_while_reading,
                                                  machine.read_while_computing, placement.chosen.bytes});
  result.seconds = time.seconds;
  const double busy = result.compute_seconds + input.elsewhere_seconds;
  const double shorter = std::min(busy, result.read_seconds);
  if (shorter > 0) result.hidden = std::clamp(1 - std::min(time.waiting, time.idle) / shorter, 0.0, 1.0);
  result.bound = result.read_seconds > busy ? Bound::kDisk
                 : memory >= arithmetic     ? Bound::kMemory
                                            : Bound::kArithmetic;
  return result;
}

}  // namespace caravan
