#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "offload/plan.h"

namespace caravan {

// What the residency of a page depends on: used whole, in order, once a pass (a layer's weights), or chosen,
// on demand (an expert). `order`: its place in a pass; `shelf`: the on-demand cache that it shares (a layer's
// experts). Zero bytes: no page stands here.
struct PageCost {
  uint64_t bytes = 0;
  uint64_t order = 0;
  PageUse use = PageUse::kWhole;
  uint32_t shelf = 0;
};

// Who stays under a limit. Weights are used in a cycle, and for a cycle the best that any eviction can do
// (Belady 1966) is a fixed set that stays and a small window for the others: every page of the window is
// read once a pass. On-demand pages share what is left.
struct ResidencyPlan {
  std::vector<bool> resident;    // by page
  uint64_t resident_bytes = 0;   // of pages that stay
  uint64_t window_bytes = 0;     // in which in-order pages are read ahead
  uint64_t on_demand_bytes = 0;  // in which on-demand pages are cached
  uint64_t streamed_bytes = 0;   // of in-order pages that are read once a pass
  bool all_resident() const { return window_bytes == 0 && on_demand_bytes == 0; }
};

// The least limit under which the pages can be used: two in-order pages (one in use, one being read), and two
// on-demand ones.
uint64_t least_residency_bytes(std::span<const PageCost> pages);
// Resident pages lie evenly over the pass, so that reading and computing overlap all along it, and the window
// is the least that hides reading where it takes as long as computing (a prompt's pass; where it takes far
// longer, as in decode, any window does, and what is kept counts). Throws kOutOfMemory, naming the least,
// when the limit is below it.
ResidencyPlan plan_residency(std::span<const PageCost> pages, uint64_t limit_bytes);

// What the pages that a scan reads may take of so much on-demand room from those that are kept.
uint64_t passing_bytes(std::span<const PageCost> pages, uint64_t on_demand_bytes);
// Whether a scan that chose so many of a shelf's pages says that it will choose nearly all of the next one's.
bool chose_nearly_all(double chosen, uint32_t pages);

// Which pages are in memory, and which to read and evict next: the state machine under the pager. It reads
// nothing and allocates nothing itself; one thread at a time.
class Residency {
 public:
  struct Actions {
    std::vector<uint32_t> evict;  // first: their memory is free for the reads
    std::vector<uint32_t> read;
  };
  enum class State : uint8_t { kAbsent, kReading, kLoaded };
  // In which order pages that will all be used are best used: first what gives way to further reads once it
  // has been, then what stays, then as they come.
  enum class Readiness : uint8_t { kPassing, kKept, kReading, kAbsent };

  // `read_ahead_bytes`: of reads under way at a time; beyond, at least one page.
  explicit Residency(uint64_t read_ahead_bytes) : read_ahead_bytes_(read_ahead_bytes) {}

  // Pages by index, with what plan_residency makes of them under the limit; those that stood at an index
  // before and have bytes still, keep their state. A page that loses its bytes must be absent.
  void set_pages(std::vector<PageCost> pages, ResidencyPlan plan, uint64_t limit_bytes);
  // What the limit, and pages let go, call for now.
  Actions next();
  // Nothing is read any more and every page that no one holds is given back: for pages about to go.
  Actions clear(std::span<const uint32_t> pages);

  // The loop is about to use these on-demand pages of one shelf, in this order. `scan`: for so many rows that
  // the choice says nothing about decode; it hardly ages what is often used, and moves its own pages through
  // a part of the room. When it has chosen nearly all of this shelf, the next one's pages are read as well,
  // before anybody asks for them.
  void want(std::span<const uint32_t> pages, bool scan);
  // Pins a page, wherever it is, and moves the cursor there.
  void acquire(uint32_t page);
  void release(uint32_t page);
  void loaded(uint32_t page);
  // The read failed: it is not tried again until someone acquires the page.
  void failed(uint32_t page);

  State state(uint32_t page) const { return pages_[page].state; }
  Readiness readiness(uint32_t page) const;
  uint32_t pins(uint32_t page) const { return pages_[page].pins; }
  const ResidencyPlan& plan() const { return plan_; }
  uint64_t limit_bytes() const { return limit_bytes_; }
  uint64_t used_bytes() const { return used_bytes_; }        // of pages loaded or being read
  uint64_t reading_bytes() const { return reading_bytes_; }  // of the latter
  bool residents_loaded() const;

 private:
  struct Page {
    PageCost cost;
    State state = State::kAbsent;
    bool failed = false;
    uint32_t pins = 0;
    uint32_t place = 0;     // in order_
    double frequency = 0;   // on demand: uses, decayed per use of the shelf
    uint64_t last_use = 0;  // tick of its shelf
    uint32_t turn = 0;      // in wanted_, counted from its end; 0: not wanted
    bool passing = false;   // on demand: read by a scan, and not kept
    bool ahead = false;     // passing: read before anybody asked for it, and its shelf has not had its turn
  };
  // A page that could give way; what has the lesser rank goes first.
  struct Victim {
    uint32_t page = 0;
    std::tuple<uint32_t, bool, double> rank;
    bool spent() const { return std::get<0>(rank) == 0; }
    bool kept() const { return std::get<0>(rank) == 1; }
    double worth() const { return std::get<2>(rank); }
  };
  uint64_t& area(const Page& page);
  uint64_t distance(const Page& page) const;
  bool may_evict(uint32_t index) const;
  void evict(uint32_t index, Actions& actions);
  void start_read(uint32_t index, Actions& actions);
  bool make_room_in_window(uint32_t index, Actions& actions);
  bool make_room_on_demand(uint32_t index, Actions& actions);
  std::optional<Victim> least_on_demand(bool spent_only) const;
  uint64_t shelves_ahead(const Page& page) const;
  bool scan_may_take(const Victim& victim, uint64_t bytes) const;
  double worth(const Page& page) const;
  void count(const Page& page, bool comes);
  void set_passing(Page& page, bool passing);
  void keep_if_due(Page& page);
  bool unstarted(uint32_t index) const;
  void unwant(uint32_t index);
  void trim(Actions& actions);
  void read_on_demand(Actions& actions);
  void read_in_order(Actions& actions);
  void read_ahead_of_choice(Actions& actions);

  const uint64_t read_ahead_bytes_;
  std::vector<Page> pages_;
  std::vector<uint32_t> order_;      // in-order pages, sorted
  std::vector<uint32_t> on_demand_;  // pages, by shelf
  std::vector<uint32_t> shelf_pages_;
  std::vector<uint64_t> shelf_kept_;  // bytes
  std::vector<uint64_t> shelf_tick_, shelf_scans_;
  std::deque<uint32_t> wanted_;  // on-demand pages asked for and not acquired yet
  bool scanning_ = false;
  uint32_t last_shelf_ = 0;          // that was asked for
  std::optional<uint32_t> scanned_;  // the shelf of which a scan chose nearly all
  ResidencyPlan plan_;
  uint64_t limit_bytes_ = 0, used_bytes_ = 0, reading_bytes_ = 0;
  uint64_t resident_used_ = 0, window_used_ = 0, on_demand_used_ = 0, passing_used_ = 0;
  uint64_t passing_bytes_ = 0;
  uint32_t cursor_ = 0;   // place in order_ of the page used last
  bool started_ = false;  // else the pass begins at the first page
};

}  // namespace caravan
