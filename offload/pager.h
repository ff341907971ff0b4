#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/counters.h"
#include "base/ids.h"
#include "base/source.h"

namespace caravan {

using PageId = Id<struct PageTag, uint32_t>;

// Bytes that move between tiers together: a weight group, as the extents of its tensors.
struct PageSpec {
  std::string name;
  std::vector<Extent> extents;
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

// Keeps pages that fit: each stays where its source maps it, shared with the page cache, and a lease only
// pins it. Leases may be taken from any thread.
class Pager {
 public:
  // Throws kMalformed when an extent lies outside its file, kUnsupported when the source cannot be mapped.
  Pager(std::shared_ptr<const Source> source, std::vector<PageSpec> pages);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  Lease acquire(PageId page);
  size_t page_count() const { return pages_.size(); }
  uint64_t page_bytes(PageId page) const;
  // Reads every byte once, so that first use waits for no disk. `advance` hears of each run of bytes, and
  // stops the reading by returning false.
  template <class Advance>
  void preload(Advance&& advance) {
    for (const Page& page : pages_)
      for (std::span<const std::byte> extent : page.extents)
        while (!extent.empty()) {
          const auto piece = extent.first(std::min(extent.size(), kPreloadBytes));
          touch(piece);
          if (!advance(static_cast<uint64_t>(piece.size()))) return;
          extent = extent.subspan(piece.size());
        }
  }
  uint64_t leases_taken() const { return leases_taken_.value(); }

 private:
  friend class Lease;
  struct Page {
    std::string name;
    std::vector<std::span<const std::byte>> extents;
  };
  static constexpr size_t kPreloadBytes = 8u << 20;
  static void touch(std::span<const std::byte> bytes);
  void release(PageId page);

  const std::shared_ptr<const Source> source_;
  std::vector<Page> pages_;
  std::unique_ptr<std::atomic<uint32_t>[]> pins_;
  Counter leases_taken_;
};

}  // namespace caravan
