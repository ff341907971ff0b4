#include "offload/residency.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "offload/pass.h"

namespace caravan {

namespace {

// The share of a page's past uses that still counts after another use of its shelf.
constexpr double kDecay = 0.97;
// What a window may hold, in quarters of the largest page that moves through it: at least one in use and one
// being read.
constexpr uint64_t kWindowQuarters[] = {8, 9, 10, 11, 12, 14, 16};
// Of reading, that a window should hide where it takes as long as computing: more than is promised, because a
// page's share of computing is not quite its share of bytes.
constexpr double kHidden = 0.95;
// Of the largest pages, that may be kept first.
constexpr size_t kMostForced = 4;

struct Sums {
  uint64_t in_order = 0, on_demand = 0;
  uint64_t largest_in_order = 0, largest_on_demand = 0;
  uint64_t least_window() const { return std::min(in_order, 2 * largest_in_order); }
  uint64_t least_on_demand() const { return std::min(on_demand, 2 * largest_on_demand); }
};

Sums sums(std::span<const PageCost> pages) {
  Sums sums;
  for (const PageCost& page : pages) {
    const bool in_order = page.use == PageUse::kWhole;
    (in_order ? sums.in_order : sums.on_demand) += page.bytes;
    uint64_t& largest = in_order ? sums.largest_in_order : sums.largest_on_demand;
    largest = std::max(largest, page.bytes);
  }
  return sums;
}

std::vector<uint32_t> sorted_in_order(std::span<const PageCost> pages) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < pages.size(); ++i)
    if (pages[i].bytes > 0 && pages[i].use == PageUse::kWhole) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(pages[a].order, a) < std::pair(pages[b].order, b);
  });
  return order;
}

// A fixed set under `limit`, the `forced` largest pages among it, beside a window of so many quarters of the
// largest that is left; none when they do not fit.
std::optional<ResidencyPlan> stream_in_order(std::span<const PageCost> pages,
                                             const std::vector<uint32_t>& order,
                                             const std::vector<uint32_t>& by_size, uint64_t limit,
                                             size_t forced, uint64_t quarters) {
  ResidencyPlan plan;
  plan.resident.assign(pages.size(), false);
  for (size_t i = 0; i < forced; ++i) {
    plan.resident[by_size[i]] = true;
    plan.resident_bytes += pages[by_size[i]].bytes;
  }
  const uint64_t largest = pages[by_size[forced]].bytes;
  const uint64_t window = largest / 4 * quarters + largest % 4 * quarters / 4;
  uint64_t rest = 0;
  for (uint32_t page : order)
    if (!plan.resident[page]) rest += pages[page].bytes;
  if (plan.resident_bytes + window > limit) return std::nullopt;
  const uint64_t room = limit - plan.resident_bytes - window;
  // Error diffusion: each page brings its share of the room, and stays when enough has come together.
  const double share = rest == 0 ? 0 : static_cast<double>(room) / static_cast<double>(rest);
  double carried = 0;
  uint64_t taken = 0;
  for (const bool fill : {false, true})
    for (uint32_t page : order) {
      if (plan.resident[page]) continue;
      const auto bytes = static_cast<double>(pages[page].bytes);
      carried += share * bytes;
      if (taken + pages[page].bytes > room || (!fill && carried < bytes)) continue;
      carried -= bytes;
      taken += pages[page].bytes;
      plan.resident[page] = true;
    }
  plan.resident_bytes += taken;
  plan.streamed_bytes = rest - taken;
  plan.window_bytes = limit - plan.resident_bytes;
  return plan;
}

// The time of a pass in which computing a byte takes 1 and reading a byte takes `read`.
double seconds_of_pass(std::span<const PageCost> pages, const std::vector<uint32_t>& order,
                       const ResidencyPlan& plan, double read) {
  std::vector<PassItem> items;
  items.reserve(order.size());
  for (uint32_t page : order) {
    PassItem& item = items.emplace_back();
    item.compute = static_cast<double>(pages[page].bytes);
    if (plan.resident[page]) continue;
    item.read = item.compute * read;
    item.room = pages[page].bytes;
  }
  return pass_time(items, {plan.window_bytes, 1, 1}).seconds;
}

// Of all ways to keep a few of the largest pages (one far larger than the others, as the head matrix, makes
// the window large) beside a window: the one that reads least and yet hides reading where that is hardest,
// with a disk that takes as long as computing. One that is slower keeps up with nothing, whatever is read
// ahead, and one that is faster with less. When none hides it, the one whose pass is shortest.
ResidencyPlan far_enough_ahead(std::span<const PageCost> pages, const std::vector<uint32_t>& order,
                               uint64_t limit) {
  std::vector<uint32_t> by_size = order;
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](uint32_t a, uint32_t b) { return pages[a].bytes > pages[b].bytes; });
  std::vector<ResidencyPlan> plans;
  for (size_t forced = 0; forced < std::min(order.size(), kMostForced); ++forced)
    for (const uint64_t quarters : kWindowQuarters) {
      std::optional<ResidencyPlan> made = stream_in_order(pages, order, by_size, limit, forced, quarters);
      if (!made) break;
      plans.push_back(std::move(*made));
    }
  CHECK(!plans.empty());
  std::stable_sort(plans.begin(), plans.end(), [](const ResidencyPlan& a, const ResidencyPlan& b) {
    return a.streamed_bytes < b.streamed_bytes;
  });
  double compute = 0;
  for (uint32_t page : order) compute += static_cast<double>(pages[page].bytes);
  const double read = compute / static_cast<double>(plans[0].streamed_bytes);
  ResidencyPlan* best = nullptr;
  double best_time = std::numeric_limits<double>::infinity();
  for (ResidencyPlan& plan : plans) {
    const double reading = read * static_cast<double>(plan.streamed_bytes);
    const double time = seconds_of_pass(pages, order, plan, read);
    if (compute + reading - time >= kHidden * compute) return std::move(plan);
    if (time < best_time) best = &plan, best_time = time;
  }
  return std::move(*best);
}

}  // namespace

uint64_t least_residency_bytes(std::span<const PageCost> pages) {
  const Sums all = sums(pages);
  return all.least_window() + all.least_on_demand();
}

ResidencyPlan plan_residency(std::span<const PageCost> pages, uint64_t limit_bytes) {
  const Sums all = sums(pages);
  const uint64_t least = all.least_window() + all.least_on_demand();
  if (limit_bytes < least)
    fail(ErrorCode::kOutOfMemory,
         "weights need at least {} in memory (two of the largest groups), their budget is {}",
         to_string(Bytes{least}), to_string(Bytes{limit_bytes}));
  ResidencyPlan plan;
  if (all.in_order + all.least_on_demand() <= limit_bytes) {
    const bool everything = all.on_demand <= limit_bytes - all.in_order;
    plan.resident.assign(pages.size(), everything);
    for (uint32_t i = 0; i < pages.size(); ++i)
      if (pages[i].use == PageUse::kWhole) plan.resident[i] = true;
    plan.resident_bytes = all.in_order + (everything ? all.on_demand : 0);
    plan.on_demand_bytes = everything ? 0 : limit_bytes - all.in_order;
    return plan;
  }
  const std::vector<uint32_t> order = sorted_in_order(pages);
  plan = far_enough_ahead(pages, order, limit_bytes - all.least_on_demand());
  plan.on_demand_bytes = all.least_on_demand();
  return plan;
}

void Residency::set_pages(std::vector<PageCost> pages, ResidencyPlan plan, uint64_t limit_bytes) {
  CHECK(plan.resident.size() == pages.size());
  const size_t before = pages_.size();
  for (size_t i = 0; i < before; ++i)
    if (pages_[i].state != State::kAbsent) CHECK(pages.at(i).bytes == pages_[i].cost.bytes);
  pages_.resize(pages.size());
  plan_ = std::move(plan);
  limit_bytes_ = limit_bytes;
  order_ = sorted_in_order(pages);
  uint32_t shelves = 0;
  for (const PageCost& page : pages)
    if (page.use == PageUse::kChosen) shelves = std::max(shelves, page.shelf + 1);
  shelf_used_.assign(shelves, 0);
  shelf_tick_.resize(shelves);
  resident_used_ = window_used_ = on_demand_used_ = 0;
  for (uint32_t i = 0; i < pages_.size(); ++i) {
    Page& page = pages_[i];
    page.cost = pages[i];
    if (page.state == State::kAbsent) continue;
    area(page) += page.cost.bytes;
    if (page.cost.use == PageUse::kChosen) shelf_used_[page.cost.shelf] += page.cost.bytes;
  }
  for (uint32_t place = 0; place < order_.size(); ++place) pages_[order_[place]].place = place;
  if (!started_ || cursor_ >= order_.size())
    cursor_ = order_.empty() ? 0 : static_cast<uint32_t>(order_.size() - 1);
}

uint64_t& Residency::area(const Page& page) {
  if (plan_.resident[static_cast<size_t>(&page - pages_.data())]) return resident_used_;
  return page.cost.use == PageUse::kWhole ? window_used_ : on_demand_used_;
}

// Pages until its next use: the one in use now counts as a whole pass away.
uint64_t Residency::distance(const Page& page) const {
  const uint64_t count = order_.size();
  const uint64_t ahead = (page.place + count - cursor_) % count;
  return ahead == 0 ? count : ahead;
}

bool Residency::may_evict(uint32_t index) const {
  const Page& page = pages_[index];
  return page.state == State::kLoaded && page.pins == 0 && !plan_.resident[index];
}

void Residency::evict(uint32_t index, Actions& actions) {
  Page& page = pages_[index];
  area(page) -= page.cost.bytes;
  if (page.cost.use == PageUse::kChosen) shelf_used_[page.cost.shelf] -= page.cost.bytes;
  used_bytes_ -= page.cost.bytes;
  page.state = State::kAbsent;
  actions.evict.push_back(index);
}

void Residency::start_read(uint32_t index, Actions& actions) {
  Page& page = pages_[index];
  area(page) += page.cost.bytes;
  if (page.cost.use == PageUse::kChosen) shelf_used_[page.cost.shelf] += page.cost.bytes;
  used_bytes_ += page.cost.bytes;
  reading_bytes_ += page.cost.bytes;
  page.state = State::kReading;
  actions.read.push_back(index);
}

bool Residency::make_room_in_window(uint32_t index, Actions& actions) {
  const uint64_t need = pages_[index].cost.bytes;
  while (window_used_ + need > plan_.window_bytes) {
    std::optional<uint32_t> victim;
    for (uint32_t other : order_)
      if (may_evict(other) && (!victim || distance(pages_[other]) > distance(pages_[*victim])))
        victim = other;
    if (!victim || (pages_[index].pins == 0 && distance(pages_[*victim]) <= distance(pages_[index])))
      return false;
    evict(*victim, actions);
  }
  return true;
}

double Residency::worth(const Page& page) const {
  const uint64_t age = shelf_tick_[page.cost.shelf] - page.last_use;
  return page.frequency * std::pow(kDecay, static_cast<double>(age));
}

// Gives way first: a page of a shelf over its share, then the least used; last, one that is wanted later.
bool Residency::make_room_on_demand(uint32_t index, Actions& actions) {
  const uint64_t need = pages_[index].cost.bytes;
  while (on_demand_used_ + need > plan_.on_demand_bytes) {
    const uint64_t share = plan_.on_demand_bytes / std::max<size_t>(1, shelf_used_.size());
    std::optional<uint32_t> victim;
    std::tuple<ptrdiff_t, bool, double> least;
    for (uint32_t i = 0; i < pages_.size(); ++i) {
      const Page& page = pages_[i];
      if (page.cost.use != PageUse::kChosen || !may_evict(i)) continue;
      const auto wanted = std::find(wanted_.begin(), wanted_.end(), i);
      const ptrdiff_t later = wanted == wanted_.end() ? 0 : 1 + (wanted_.end() - wanted);
      // Wanted pages give way last, and among them the one that is used latest goes first.
      const std::tuple<ptrdiff_t, bool, double> rank{later, shelf_used_[page.cost.shelf] <= share,
                                                     worth(page)};
      if (!victim || rank < least) victim = i, least = rank;
    }
    if (!victim) return false;
    // Reading ahead takes nothing that is wanted sooner, nor, in a scan, what is used more often.
    const bool dearer = std::get<0>(least) > 0 || (scanning_ && std::get<2>(least) > worth(pages_[index]));
    if (pages_[index].pins == 0 && dearer) return false;
    evict(*victim, actions);
  }
  return true;
}

// After the limit fell, or a resident page was demoted.
void Residency::trim(Actions& actions) {
  if (order_.empty() && on_demand_used_ == 0) return;
  while (window_used_ > plan_.window_bytes) {
    std::optional<uint32_t> victim;
    for (uint32_t other : order_)
      if (may_evict(other) && (!victim || distance(pages_[other]) > distance(pages_[*victim])))
        victim = other;
    if (!victim) break;
    evict(*victim, actions);
  }
  for (uint32_t i = 0; i < pages_.size() && on_demand_used_ > plan_.on_demand_bytes; ++i)
    if (pages_[i].cost.use == PageUse::kChosen && may_evict(i)) evict(i, actions);
}

void Residency::read_on_demand(Actions& actions) {
  for (uint32_t index : std::vector<uint32_t>(wanted_.begin(), wanted_.end())) {
    if (pages_[index].state != State::kAbsent || pages_[index].failed) continue;
    if (plan_.resident[index] ? false : !make_room_on_demand(index, actions)) return;
    start_read(index, actions);
  }
}

void Residency::read_in_order(Actions& actions) {
  const size_t count = order_.size();
  bool window_full = false;  // what is to stay does not wait for it
  // The page at the cursor first: someone may wait for it.
  for (size_t ahead = 0; ahead < count; ++ahead) {
    const uint32_t index = order_[(cursor_ + ahead) % count];
    const Page& page = pages_[index];
    if (page.state != State::kAbsent || page.failed || (ahead == 0 && page.pins == 0)) continue;
    if (reading_bytes_ > 0 && reading_bytes_ + page.cost.bytes > read_ahead_bytes_ && page.pins == 0) return;
    window_full = window_full || (!plan_.resident[index] && !make_room_in_window(index, actions));
    if (plan_.resident[index] || !window_full) start_read(index, actions);
  }
  // The one that was used last comes round again after all others.
  const uint32_t last = count == 0 ? 0 : order_[cursor_ % count];
  if (count > 0 && plan_.resident[last] && pages_[last].state == State::kAbsent && !pages_[last].failed)
    start_read(last, actions);
}

Residency::Actions Residency::next() {
  Actions actions;
  trim(actions);
  read_on_demand(actions);
  read_in_order(actions);
  // Experts that all fit are read like the rest, after it.
  for (uint32_t i = 0; i < pages_.size(); ++i) {
    const Page& page = pages_[i];
    if (page.cost.use != PageUse::kChosen || !plan_.resident[i] || page.cost.bytes == 0) continue;
    if (page.state != State::kAbsent || page.failed) continue;
    if (reading_bytes_ > 0 && reading_bytes_ + page.cost.bytes > read_ahead_bytes_) break;
    start_read(i, actions);
  }
  return actions;
}

Residency::Actions Residency::clear(std::span<const uint32_t> pages) {
  Actions actions;
  actions.evict.reserve(pages.size());  // or nothing has happened
  for (uint32_t index : pages) {
    CHECK(pages_[index].pins == 0u);
    if (pages_[index].state == State::kLoaded) evict(index, actions);
    std::erase(wanted_, index);
  }
  return actions;
}

void Residency::want(std::span<const uint32_t> pages, bool scan) {
  wanted_.assign(pages.begin(), pages.end());
  scanning_ = scan;
  for (uint32_t index : pages) {
    Page& page = pages_[index];
    CHECK(page.cost.use == PageUse::kChosen);
    uint64_t& tick = shelf_tick_[page.cost.shelf];
    if (index == pages.front()) ++tick;
    if (scan) continue;
    page.frequency = worth(page) + 1;
    page.last_use = tick;
  }
}

void Residency::acquire(uint32_t index) {
  Page& page = pages_[index];
  CHECK(page.cost.bytes > 0u);
  ++page.pins;
  page.failed = false;
  if (page.cost.use == PageUse::kWhole) {
    cursor_ = page.place;
    started_ = true;
    return;
  }
  const auto asked = std::find(wanted_.begin(), wanted_.end(), index);
  if (page.state == State::kAbsent && asked == wanted_.end())
    wanted_.push_front(index);
  else if (page.state != State::kAbsent && asked != wanted_.end())
    wanted_.erase(asked);
}

void Residency::release(uint32_t index) {
  CHECK(pages_[index].pins > 0u);
  --pages_[index].pins;
}

void Residency::loaded(uint32_t index) {
  Page& page = pages_[index];
  CHECK(page.state == State::kReading);
  page.state = State::kLoaded;
  reading_bytes_ -= page.cost.bytes;
  if (page.pins > 0) std::erase(wanted_, index);
}

void Residency::failed(uint32_t index) {
  Page& page = pages_[index];
  CHECK(page.state == State::kReading);
  page.state = State::kLoaded;
  reading_bytes_ -= page.cost.bytes;
  Actions ignored;
  evict(index, ignored);
  page.failed = true;
  std::erase(wanted_, index);
}

bool Residency::residents_loaded() const {
  for (uint32_t i = 0; i < pages_.size(); ++i)
    if (pages_[i].cost.bytes > 0 && plan_.resident[i] && pages_[i].state != State::kLoaded &&
        !pages_[i].failed)
      return false;
  return true;
}

}  // namespace caravan
