#include "offload/residency.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
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
// Of the on-demand room, that a scan's pages may take from those that are kept: one part of so many. Less
// hides less where the room is small, more reads more where it is not.
constexpr uint64_t kPassingParts = 3;
// Scans of a shelf that age its pages as much as one use of it by decode.
constexpr uint64_t kScansATick = 16;
// A page that is worth more was used by decode more than once lately: beyond two pages, no scan takes it.
constexpr double kSeldom = 1;
// Of a shelf, from which share on a scan's choice says that the next shelf's will be nearly all of it, too.
constexpr double kNearlyAll = 0.875;

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

std::vector<uint32_t> sorted_by_shelf(std::span<const PageCost> pages) {
  std::vector<uint32_t> sorted;
  for (uint32_t i = 0; i < pages.size(); ++i)
    if (pages[i].bytes > 0 && pages[i].use == PageUse::kChosen) sorted.push_back(i);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](uint32_t a, uint32_t b) { return pages[a].shelf < pages[b].shelf; });
  return sorted;
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

// At least two pages, one in use and one being read. More than what a shelf misses would lie idle: of `n`
// shelves, each misses that many bytes when (n - 1) times as many are all that does not fit.
uint64_t passing_bytes(std::span<const PageCost> pages, uint64_t on_demand_bytes) {
  const Sums all = sums(pages);
  std::set<uint32_t> shelves;
  for (const PageCost& page : pages)
    if (page.use == PageUse::kChosen && page.bytes > 0) shelves.insert(page.shelf);
  const uint64_t absent = all.on_demand - std::min(all.on_demand, on_demand_bytes);
  const uint64_t missed = absent / (std::max<uint64_t>(2, shelves.size()) - 1);
  return std::min(on_demand_bytes,
                  std::max(2 * all.largest_on_demand, std::min(on_demand_bytes / kPassingParts, missed)));
}

bool chose_nearly_all(double chosen, uint32_t pages) {
  return chosen >= kNearlyAll * pages;
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
  on_demand_ = sorted_by_shelf(pages);
  const size_t shelves = on_demand_.empty() ? 0 : pages[on_demand_.back()].shelf + 1;
  shelf_pages_.assign(shelves, 0);
  shelf_kept_.assign(shelves, 0);
  shelf_tick_.resize(shelves);
  shelf_scans_.resize(shelves);
  scanned_.reset();
  resident_used_ = window_used_ = on_demand_used_ = passing_used_ = 0;
  for (uint32_t i = 0; i < pages_.size(); ++i) {
    Page& page = pages_[i];
    page.cost = pages[i];
    if (plan_.resident[i]) page.passing = page.ahead = false;
    if (page.state != State::kAbsent) count(page, true);
  }
  for (uint32_t place = 0; place < order_.size(); ++place) pages_[order_[place]].place = place;
  for (uint32_t index : on_demand_) ++shelf_pages_[pages_[index].cost.shelf];
  passing_bytes_ = passing_bytes(pages, plan_.on_demand_bytes);
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

// A page that comes to memory, or goes.
void Residency::count(const Page& page, bool comes) {
  const uint64_t bytes = comes ? page.cost.bytes : 0 - page.cost.bytes;
  area(page) += bytes;
  if (page.cost.use == PageUse::kChosen)
    (page.passing ? passing_used_ : shelf_kept_[page.cost.shelf]) += bytes;
}

void Residency::set_passing(Page& page, bool passing) {
  count(page, false);
  page.passing = passing;
  count(page, true);
}

void Residency::evict(uint32_t index, Actions& actions) {
  Page& page = pages_[index];
  count(page, false);
  used_bytes_ -= page.cost.bytes;
  page.state = State::kAbsent;
  page.passing = page.ahead = false;
  actions.evict.push_back(index);
}

void Residency::start_read(uint32_t index, Actions& actions) {
  Page& page = pages_[index];
  page.passing = scanning_ && page.cost.use == PageUse::kChosen && !plan_.resident[index];
  count(page, true);
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

// Until its next use, as scans go round.
uint64_t Residency::shelves_ahead(const Page& page) const {
  const uint64_t count = shelf_kept_.size();
  return (page.cost.shelf + count - last_shelf_ % count + count - 1) % count;
}

// Gives way first: what a scan has used, or has read for nothing, the furthest from its next use; then of
// what is kept, a page of a shelf over its share, then the least used; then what was read ahead; last, what
// is wanted, the later the sooner.
std::optional<Residency::Victim> Residency::least_on_demand(bool spent_only) const {
  const uint64_t share = plan_.on_demand_bytes / std::max<size_t>(1, shelf_kept_.size());
  std::optional<Victim> least;
  for (uint32_t index : on_demand_) {
    const Page& page = pages_[index];
    if (!may_evict(index)) continue;
    const bool spent = page.passing && !page.ahead && page.turn == 0;
    if (spent) {
      const Victim victim{index, {0, false, -static_cast<double>(shelves_ahead(page))}};
      if (!least || victim.rank < least->rank) least = victim;
    }
    if (spent || spent_only || (least && least->spent())) continue;
    const uint32_t group = page.turn > 0 ? 2 + page.turn : page.ahead ? 2 : 1;
    // A scan looks for the least used wherever that stands: it may take nothing else.
    const bool in_share = scanning_ || shelf_kept_[page.cost.shelf] <= share;
    const Victim victim{index, {group, in_share, worth(page)}};
    if (!least || victim.rank < least->rank) least = victim;
  }
  return least;
}

// Of what is kept, for so many bytes of its own.
bool Residency::scan_may_take(const Victim& victim, uint64_t bytes) const {
  if (passing_used_ + bytes > passing_bytes_) return false;
  return passing_used_ <= bytes || victim.worth() <= kSeldom;
}

// Someone who waits gets what there is. Other reads take nothing that is wanted or was read ahead, and those
// of a scan little of what is kept.
bool Residency::make_room_on_demand(uint32_t index, Actions& actions) {
  const uint64_t need = pages_[index].cost.bytes;
  const bool waited_for = pages_[index].pins > 0;
  while (on_demand_used_ + need > plan_.on_demand_bytes) {
    const bool spent_only = !waited_for && scanning_ && passing_used_ + need > passing_bytes_;
    const std::optional<Victim> victim = least_on_demand(spent_only);
    if (!victim) return false;
    const bool free = victim->spent() || (victim->kept() && (!scanning_ || scan_may_take(*victim, need)));
    if (!waited_for && !free) return false;
    evict(victim->page, actions);
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
  while (on_demand_used_ > plan_.on_demand_bytes) {
    const std::optional<Victim> victim = least_on_demand(false);
    if (!victim) break;
    evict(victim->page, actions);
  }
}

bool Residency::unstarted(uint32_t index) const {
  return pages_[index].state == State::kAbsent && !pages_[index].failed;
}

void Residency::read_on_demand(Actions& actions) {
  for (uint32_t index : std::vector<uint32_t>(wanted_.begin(), wanted_.end())) {
    if (!unstarted(index)) continue;
    if (plan_.resident[index] ? false : !make_room_on_demand(index, actions)) return;
    start_read(index, actions);
  }
}

// The next shelf's pages, in the order in which they will be used; and those beyond it as soon as all of it
// is there. Not on into the next pass: it may be no scan.
void Residency::read_ahead_of_choice(Actions& actions) {
  if (!scanned_ || plan_.on_demand_bytes == 0) return;
  if (std::any_of(wanted_.begin(), wanted_.end(), [&](uint32_t index) { return unstarted(index); })) return;
  const auto after = [&](uint32_t shelf, uint32_t index) { return shelf < pages_[index].cost.shelf; };
  uint32_t shelf = *scanned_;
  bool all_there = true;
  for (auto at = std::upper_bound(on_demand_.begin(), on_demand_.end(), shelf, after); at != on_demand_.end();
       ++at) {
    Page& page = pages_[*at];
    if (page.cost.shelf != shelf && !all_there) return;
    shelf = page.cost.shelf;
    if (unstarted(*at)) {
      if (!make_room_on_demand(*at, actions)) return;
      start_read(*at, actions);
      page.ahead = true;
    }
    all_there = all_there && (page.state == State::kLoaded || page.failed);
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
  read_ahead_of_choice(actions);
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
    unwant(index);
  }
  return actions;
}

void Residency::unwant(uint32_t index) {
  std::erase(wanted_, index);
  pages_[index].turn = 0;
}

void Residency::want(std::span<const uint32_t> pages, bool scan) {
  for (uint32_t index : wanted_) pages_[index].turn = 0;
  wanted_.assign(pages.begin(), pages.end());
  scanning_ = scan;
  scanned_.reset();
  if (pages.empty()) return;
  const uint32_t shelf = pages_[pages.front()].cost.shelf;
  // Scans hardly age what decode uses; but where there is no decode any more, it goes in the end.
  const bool ages = !scan || ++shelf_scans_[shelf] % kScansATick == 0;
  const uint64_t tick = shelf_tick_[shelf] += ages;
  uint32_t turn = static_cast<uint32_t>(pages.size());
  for (uint32_t index : pages) {
    Page& page = pages_[index];
    CHECK(page.cost.use == PageUse::kChosen);
    CHECK(page.cost.shelf == shelf);
    page.turn = turn--;
    if (scan) continue;
    if (page.passing) set_passing(page, false);
    page.frequency = worth(page) + 1;
    page.last_use = tick;
  }
  // What was read ahead for this shelf, or on the way to it, has had its turn; all of it, in another pass.
  const bool goes_on = shelf > std::exchange(last_shelf_, shelf), same_pass = scan && goes_on;
  for (uint32_t index : on_demand_)
    if (!same_pass || pages_[index].cost.shelf <= shelf) pages_[index].ahead = false;
  if (scan && chose_nearly_all(static_cast<double>(pages.size()), shelf_pages_[shelf])) scanned_ = shelf;
}

// What a scan has used stays when its shelf's share of what is kept has room for it; so a set that stays
// comes together, spread evenly over the shelves, as is best for a cycle.
void Residency::keep_if_due(Page& page) {
  if (!page.passing) return;
  const uint64_t most = plan_.on_demand_bytes - passing_bytes_, kept = on_demand_used_ - passing_used_;
  const uint64_t bytes = page.cost.bytes;
  if (kept + bytes <= most && shelf_kept_[page.cost.shelf] + bytes <= most / shelf_kept_.size())
    set_passing(page, false);
}

Residency::Readiness Residency::readiness(uint32_t index) const {
  const Page& page = pages_[index];
  if (page.state == State::kLoaded) return page.passing ? Readiness::kPassing : Readiness::kKept;
  return page.state == State::kReading ? Readiness::kReading : Readiness::kAbsent;
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
  unwant(index);
  page.ahead = false;
  if (page.state == State::kAbsent) wanted_.push_front(index);  // before all others, whose room it may take
}

void Residency::release(uint32_t index) {
  Page& page = pages_[index];
  CHECK(page.pins > 0u);
  if (--page.pins == 0 && page.state == State::kLoaded) keep_if_due(page);
}

void Residency::loaded(uint32_t index) {
  Page& page = pages_[index];
  CHECK(page.state == State::kReading);
  page.state = State::kLoaded;
  reading_bytes_ -= page.cost.bytes;
  if (page.pins > 0) unwant(index);
}

void Residency::failed(uint32_t index) {
  Page& page = pages_[index];
  CHECK(page.state == State::kReading);
  page.state = State::kLoaded;
  reading_bytes_ -= page.cost.bytes;
  Actions ignored;
  evict(index, ignored);
  page.failed = true;
  unwant(index);
}

bool Residency::residents_loaded() const {
  for (uint32_t i = 0; i < pages_.size(); ++i)
    if (pages_[i].cost.bytes > 0 && plan_.resident[i] && pages_[i].state != State::kLoaded &&
        !pages_[i].failed)
      return false;
  return true;
}

}  // namespace caravan
