#include "offload/pass_cost.h"

#include <algorithm>
#include <cmath>

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

  // Reading `bytes` once at `row_rate` against `operations` at `many_rate`.
  void add(double bytes, double row_rate, double operations, double many_rate, Cost& cost) const {
    const double reading = bytes / row_rate, computing = operations / many_rate;
    // A format whose single row runs far under the speed of memory waits for its arithmetic.
    constexpr double kMemoryBound = 0.5;
    if (computing > reading || row_rate < kMemoryBound * memory_)
      cost.arithmetic += std::max(reading, computing);
    else
      cost.memory += reading;
  }

  // `used`: the chance that any row comes here; `rows`: how many are expected to.
  void add_work(const PlanPage& page, double used, double rows, Cost& cost) const {
    for (const PageWork& work : page.work) {
      const KernelRates rates = machine_.rates(work.type);
      add(used * static_cast<double>(work.bytes), machine_.at(rates.row_bytes, input_.threads),
          rows * work.operations_row, machine_.at(rates.many_operations, input_.threads), cost);
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
          page.state_operations_position * shape_.rows * seen,
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
  double seconds = 0;
};

Read weight_read(const PlanInput& input, const PassShape& shape, const PassStep& step, Placement placement,
                 uint32_t cache_pages) {
  const PlanPage& page = input.pages[step.first];
  double bytes = 0;
  switch (placement) {
    case Placement::kMapped:
    case Placement::kResident:
    case Placement::kByRow:
      return {};
    case Placement::kStreamed:
      bytes = static_cast<double>(page.bytes);
      break;
    case Placement::kOnDemand:
      bytes = missed_bytes(input, step, shape.rows, cache_pages);
      break;
  }
  return {bytes, read_seconds(input.measurements, bytes)};
}

// Fills the item's read, and returns its bytes.
double place(const PlanInput& input, const PassShape& shape, const PassStep& step,
             const PassPlacement& placement, double spilled, PassItem& item) {
  const Placement where = placement.placements[step.first];
  const Read read = weight_read(input, shape, step, where, placement.cache_pages);
  item.read = read.seconds;
  if (where == Placement::kStreamed) item.room = input.pages[step.first].arena_bytes;
  if (where == Placement::kOnDemand) {
    item.demand = true;
    item.tail = item.compute / std::max(1.0, step.chosen);
  }
  const double state = spilled * step.state_bytes;
  item.read += state_seconds(input.measurements, state);
  return read.bytes + state;
}

}  // namespace

double pass_read_seconds(const PlanInput& input, const PassShape& shape, std::span<const PassStep> steps,
                         std::span<const Placement> placements, uint32_t cache_pages) {
  double total = 0;
  for (const PassStep& step : steps)
    total += weight_read(input, shape, step, placements[step.first], cache_pages).seconds;
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
  std::vector<PassItem> items;
  items.reserve(steps.size() + 1);
  for (const PassStep& step : steps) {
    PassItem& item = items.emplace_back();
    item.compute = step.compute();
    result.read_bytes += place(input, shape, step, placement, spilled, item);
    result.read_seconds += item.read;
    memory += step.memory_seconds;
    arithmetic += step.arithmetic_seconds;
  }
  if (input.elsewhere_seconds > 0) {
    items.emplace_back().compute = input.elsewhere_seconds;
    items.back().elsewhere = true;
  }
  const Measurements& machine = input.measurements;
  result.compute_seconds = memory + arithmetic;
  const PassTime time =
      pass_time(items, {placement.window_bytes, machine.compute_while_reading, machine.read_while_computing});
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
