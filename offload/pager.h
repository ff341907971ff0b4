#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/budget.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/source.h"
#include "offload/arena.h"
#include "offload/page_reader.h"
#include "offload/residency.h"

namespace caravan {

using PageId = Id<struct PageTag, uint32_t>;

// Bytes that move between tiers together: a weight group, as the extents of its tensors.
struct PageSpec {
  std::string name;
  std::vector<Extent> extents;
  uint64_t order = 0;  // its place in a pass over the model
  PageUse use = PageUse::kWhole;
  uint32_t shelf = 0;  // of an on-demand page: the cache it shares
};

class Pager;

// Pins a page: its extents stay at their addresses until the lease is dropped. Move-only; the stage loop has
// no other way to weights. Dropped before its pager.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept { swap(other); }
  Lease& operator=(Lease&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Lease();
  std::span<const std::byte> extent(size_t index) const;

 private:
  friend class Pager;
  Lease(Pager* pager, PageId page) : pager_(pager), page_(page) {}
  void swap(Lease& other) noexcept {
    std::swap(pager_, other.pager_);
    std::swap(page_, other.page_);
  }
  Pager* pager_ = nullptr;
  PageId page_;
};

struct PagerOptions {
  Bytes limit{UINT64_MAX};               // of weights in memory
  Bytes read_ahead{uint64_t{64} << 20};  // of reads under way at a time
  bool may_map = true;                   // false: read even what would fit
  PageReaderOptions reader = {};
};

struct PagerCounters {
  Counter leases;
  Counter pages_read;
  Counter bytes_read;    // by direct reads
  Counter read_busy_ns;  // time in which at least one read was under way
  Counter waited_ns;     // time in which a lease was waited for
};

// Where weights are. As long as they fit under the limit, each page stays where its source maps it, shared
// with the page cache, and a lease only pins it. Otherwise pages are read into the pager's arena, ahead of
// the stage loop, as Residency decides; the arena never exceeds the limit.
//
// Leases may be taken from any thread; pages and limits are changed by one thread at a time, while it holds
// no lease. A lock guards the state, because the compute thread asks while the mover's threads answer.
class Pager {
 public:
  // `budget` may be null: nothing is reserved then; `source`, for least_bytes alone. All outlive the pager.
  Pager(std::shared_ptr<const Source> source, const Clock& clock, Budget* budget, PagerOptions options = {});
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  // Throws kMalformed when an extent lies outside its file, kOutOfMemory when the limit is too small for the
  // pages; nothing has changed then.
  std::vector<PageId> add(std::vector<PageSpec> pages);
  void remove(std::span<const PageId> pages);
  // Weights give way, or may take more. Throws kOutOfMemory when the limit is too small; nothing has changed.
  void set_limit(Bytes limit);

  // Waits until the page is in memory. Throws kIo or kMalformed when it cannot be read.
  Lease acquire(PageId page);
  // The on-demand pages of one shelf that will be acquired next, in this order. `scan`: see Residency::want.
  void want(std::span<const PageId> pages, bool scan);
  // As things are now; kKept while mapped.
  Residency::Readiness readiness(PageId page) const;

  // Reads everything that is to stay, so that first use waits for no disk. `advance` hears of each run of
  // bytes, and stops the reading by returning false. Throws as acquire.
  void preload(const std::function<bool(uint64_t bytes)>& advance);
  // What preload will read.
  uint64_t preload_bytes() const;

  size_t page_count() const { return pages_.size(); }
  uint64_t page_bytes(PageId page) const;
  uint64_t total_bytes() const;
  // The memory that a page of these extents takes when it is read.
  static uint64_t buffer_bytes(std::span<const Extent> extents);
  // The least limit for the pages that are there, and for `more` of them: read, or mapped if that is less.
  uint64_t least_bytes(std::vector<PageSpec> more = {}) const;
  bool mapped() const;
  ResidencyPlan plan() const;
  std::string reader_name() const;
  Bytes limit() const;
  const Source& source() const { return *source_; }
  const PagerCounters& counters() const { return counters_; }

 private:
  friend class Lease;
  // Where a page's extents lie when it is read.
  struct Layout {
    std::vector<ReadRun> runs;  // without memory: `to` is filled for each read
    std::vector<std::pair<uint32_t, uint64_t>> place_of_extent;  // run, and offset in it
  };
  struct Page {
    PageSpec spec;
    uint64_t bytes = 0;                             // of its extents
    std::vector<std::span<const std::byte>> views;  // valid while mapped or loaded
    Layout layout;
    uint64_t buffer_bytes = 0;
    std::byte* buffer = nullptr;
    uint32_t pins = 0;
    std::optional<Error> error;
  };
  using Lock = std::unique_lock<std::mutex>;

  static Layout lay_out(std::span<const Extent> extents);
  Page make_page(PageSpec spec) const;
  std::vector<PageCost> costs(const std::vector<Page>& pages) const;
  // Decides between mapping and reading for these pages under this limit.
  void settle(Lock& lock, std::vector<Page> pages, Bytes limit);
  void drop_gone(Lock& lock);
  bool can_map(const std::vector<Page>& pages) const;
  void reserve(Bytes bytes);
  void empty_arena(Lock& lock);
  void map_pages();
  void unmap_pages();
  void let_go_of(const Extent& extent) const;
  void let_go_of_left();
  void pump();
  void start_read(uint32_t index);
  void take_done(uint64_t job, std::optional<Error> error);
  void release(PageId page);
  bool preload_mapped(const std::function<bool(uint64_t)>& advance) const;

  const std::shared_ptr<const Source> source_;
  const Clock& clock_;
  Budget* const budget_;
  const PagerOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Bytes limit_;
  Reservation reservation_;
  std::vector<Page> pages_;
  std::vector<uint32_t> gone_;  // removed, and still among them
  bool mapped_ = true;
  // Of mapped pages that went. They may come again at once, as when a ring is cut anew, and a fault for each
  // of their memory pages is dear: what was touched of them is let go when others have come instead.
  std::vector<Extent> left_;
  Residency residency_;
  Arena arena_;
  bool stopping_ = false;
  uint32_t reads_under_way_ = 0;
  Time busy_since_{};
  PagerCounters counters_;
  std::unique_ptr<PageReader> reader_;  // last: its threads end before what they touch
};

}  // namespace caravan
