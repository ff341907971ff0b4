#include "offload/pager.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <set>
#include <utility>

#include "base/caught_error.h"
#include "base/check.h"

namespace caravan {

namespace {

// Extents closer than this in a file are read in one run.
constexpr uint64_t kMergeGapBytes = 64u << 10;
constexpr size_t kPreloadBytes = 8u << 20;

uint64_t round_down(uint64_t value) {
  return value / kDirectAlignment * kDirectAlignment;
}
uint64_t round_up(uint64_t value) {
  return round_down(value + kDirectAlignment - 1);
}

void touch(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const auto page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t begin = address & ~(page_size - 1);
  // Read-ahead for the whole piece first; it is advice, so a refusal only means that the reads below wait
  // more often.
  (void)::madvise(reinterpret_cast<void*>(begin), address + bytes.size() - begin, MADV_WILLNEED);
  volatile std::byte sink{};
  for (size_t i = 0; i < bytes.size(); i += page_size) sink = bytes[i];
  (void)sink;
}

// Lets go of the whole memory pages of a file's mapping; the file has them still.
void let_go(std::span<const std::byte> bytes) {
  const auto page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t begin = (address + page_size - 1) & ~(page_size - 1);
  const uintptr_t end = (address + bytes.size()) & ~(page_size - 1);
  if (end > begin) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

Lease::~Lease() {
  if (pager_) pager_->release(page_);
}

std::span<const std::byte> Lease::extent(size_t index) const {
  CHECK(pager_ != nullptr);
  const auto& views = pager_->pages_[page_.value].views;
  CHECK(index < views.size());
  return views[index];
}

Pager::Pager(std::shared_ptr<const Source> source, const Clock& clock, Budget* budget, PagerOptions options)
    : source_(std::move(source)),
      clock_(clock),
      budget_(budget),
      options_(std::move(options)),
      limit_(options_.limit),
      residency_(options_.read_ahead.count),
      arena_(options_.limit.count) {}

Pager::~Pager() {
  {
    const Lock lock(mutex_);
    stopping_ = true;
    for (const Page& page : pages_) CHECK(page.pins == 0u);
  }
  reader_.reset();
  for (Page& page : pages_)
    if (page.buffer) arena_.give_back(page.buffer, page.buffer_bytes);
}

// Neighbouring extents are joined: a layer's small tensors lie between its large ones.
Pager::Layout Pager::lay_out(std::span<const Extent> extents) {
  Layout layout;
  std::vector<size_t> by_offset;
  for (size_t i = 0; i < extents.size(); ++i) by_offset.push_back(i);
  std::sort(by_offset.begin(), by_offset.end(), [&](size_t a, size_t b) {
    const Extent &x = extents[a], &y = extents[b];
    return std::pair(x.file, x.offset) < std::pair(y.file, y.offset);
  });
  layout.place_of_extent.resize(extents.size());
  for (size_t i : by_offset) {
    const Extent& extent = extents[i];
    const uint64_t end = extent.offset + extent.length;
    ReadRun* run = layout.runs.empty() ? nullptr : &layout.runs.back();
    if (!run || run->file != extent.file || extent.offset > run->offset + run->needed + kMergeGapBytes)
      run = &layout.runs.emplace_back(ReadRun{extent.file, round_down(extent.offset), 0, 0, nullptr});
    run->needed = std::max(run->needed, end - run->offset);
    run->length = round_up(run->needed);
    layout.place_of_extent[i] = {static_cast<uint32_t>(layout.runs.size() - 1), extent.offset - run->offset};
  }
  return layout;
}

uint64_t Pager::buffer_bytes(std::span<const Extent> extents) {
  uint64_t bytes = 0;
  for (const ReadRun& run : lay_out(extents).runs) bytes += run.length;
  return bytes;
}

Pager::Page Pager::make_page(PageSpec spec) const {
  Page page;
  for (const Extent& extent : spec.extents) {
    const uint64_t size = !source_                              ? UINT64_MAX
                          : extent.file < source_->file_count() ? source_->file_bytes(extent.file)
                                                                : 0;
    if (extent.offset > size || extent.length > size - extent.offset)
      fail(ErrorCode::kMalformed, "{}: {} lies past the end of its file", source_->describe(), spec.name);
    page.bytes += extent.length;
  }
  page.layout = lay_out(spec.extents);
  for (const ReadRun& run : page.layout.runs) page.buffer_bytes += run.length;
  page.spec = std::move(spec);
  return page;
}

std::vector<PageCost> Pager::costs(const std::vector<Page>& pages) const {
  std::vector<PageCost> costs;
  for (const Page& page : pages)
    costs.push_back({page.buffer_bytes, page.spec.order, page.spec.use, page.spec.shelf});
  return costs;
}

std::vector<PageId> Pager::add(std::vector<PageSpec> specs) {
  std::vector<PageId> ids;
  Lock lock(mutex_);
  drop_gone(lock);
  gone_.reserve(pages_.size() + specs.size());
  std::vector<Page> pages = pages_;
  uint32_t next = 0;
  for (PageSpec& spec : specs) {
    while (next < pages.size() && pages[next].buffer_bytes > 0) ++next;
    if (next == pages.size()) pages.emplace_back();
    pages[next] = make_page(std::move(spec));
    ids.push_back(PageId{next});
  }
  settle(lock, std::move(pages), limit_);
  if (mapped_) let_go_of_left();
  return ids;
}

// Destructors call it, also on the way out of a refused allocation: what cannot be done without memory waits
// for the next add().
void Pager::remove(std::span<const PageId> ids) {
  Lock lock(mutex_);
  for (const PageId id : ids) {
    CHECK(pages_[id.value].pins == 0u);
    gone_.push_back(id.value);  // has the room since add()
  }
  try {
    drop_gone(lock);
  } catch (const std::exception&) {
    // They are nobody's, and stay for now.
  }
}

void Pager::drop_gone(Lock& lock) {
  if (gone_.empty()) return;
  if (!mapped_) {
    changed_.wait(lock, [&] {
      return std::none_of(gone_.begin(), gone_.end(), [&](uint32_t page) {
        return residency_.state(page) == Residency::State::kReading;
      });
    });
    for (uint32_t page : residency_.clear(gone_).evict)
      arena_.give_back(std::exchange(pages_[page].buffer, nullptr), pages_[page].buffer_bytes);
  }
  std::vector<Page> pages = pages_;
  for (uint32_t page : gone_) {
    if (mapped_)
      for (const Extent& extent : pages[page].spec.extents) left_.push_back(extent);
    pages[page] = {};
  }
  settle(lock, std::move(pages), limit_);
  gone_.clear();
}

void Pager::set_limit(Bytes limit) {
  Lock lock(mutex_);
  settle(lock, pages_, limit);
}

bool Pager::can_map(const std::vector<Page>& pages) const {
  if (!options_.may_map) return false;
  if (!source_) return true;  // a file's header
  for (const Page& page : pages)
    for (const Extent& extent : page.spec.extents)
      if (source_->mapped(extent).size() != extent.length) return false;
  return true;
}

void Pager::reserve(Bytes bytes) {
  if (!budget_) return;
  const Bytes before = reservation_.bytes();
  reservation_ = {};
  try {
    reservation_ = budget_->reserve(MemoryTag::kWeights, bytes);
  } catch (const Error&) {
    reservation_ = budget_->reserve(MemoryTag::kWeights, before);
    throw;
  }
}

void Pager::settle(Lock& lock, std::vector<Page> pages, Bytes limit) {
  uint64_t bytes = 0, buffer_bytes = 0;
  for (const Page& page : pages) {
    CHECK(page.pins == 0u);
    bytes += page.bytes;
    buffer_bytes += page.buffer_bytes;
  }
  const bool map = can_map(pages) && bytes <= limit.count;
  std::vector<PageCost> prices = costs(pages);
  ResidencyPlan plan = map ? ResidencyPlan{} : plan_residency(prices, limit.count);
  // What may be refused comes before anything has changed.
  if (!map && !reader_) {
    const auto done = [this](uint64_t job, std::optional<Error> error) { take_done(job, std::move(error)); };
    reader_ = make_page_reader(source_, done, options_.reader);
  }
  reserve(Bytes{map ? bytes : std::min(limit.count, buffer_bytes)});
  if (map != mapped_ && !mapped_) {
    empty_arena(lock);
    for (Page& page : pages) page.buffer = nullptr;
  }
  if (map != mapped_ && mapped_) unmap_pages();
  pages_ = std::move(pages);
  limit_ = limit;
  mapped_ = map;
  if (map) return map_pages();
  residency_.set_pages(std::move(prices), std::move(plan), limit.count);
  arena_.set_limit(limit.count);
  pump();
  // What is being read cannot be taken back before it is there.
  changed_.wait(lock, [&] {
    return residency_.used_bytes() <= residency_.limit_bytes() || residency_.reading_bytes() == 0;
  });
  CHECK(residency_.used_bytes() <= residency_.limit_bytes());
}

void Pager::empty_arena(Lock& lock) {
  stopping_ = true;
  changed_.wait(lock, [&] { return reads_under_way_ == 0; });
  stopping_ = false;
  std::vector<uint32_t> all;
  for (uint32_t i = 0; i < pages_.size(); ++i) all.push_back(i);
  for (uint32_t page : residency_.clear(all).evict)
    arena_.give_back(std::exchange(pages_[page].buffer, nullptr), pages_[page].buffer_bytes);
  arena_.set_limit(0);
}

void Pager::map_pages() {
  for (Page& page : pages_) {
    page.views.clear();
    for (const Extent& extent : page.spec.extents) page.views.push_back(source_->mapped(extent));
  }
}

void Pager::let_go_of(const Extent& extent) const {
  if (source_ && source_->file_path(extent.file)) let_go(source_->mapped(extent));
}

void Pager::unmap_pages() {
  for (const Page& page : pages_)
    for (const Extent& extent : page.spec.extents) let_go_of(extent);
  for (const Extent& extent : std::exchange(left_, {})) let_go_of(extent);
}

void Pager::let_go_of_left() {
  std::set<std::pair<uint32_t, uint64_t>> there;
  for (const Page& page : pages_)
    for (const Extent& extent : page.spec.extents) there.emplace(extent.file, extent.offset);
  for (const Extent& extent : std::exchange(left_, {}))
    if (there.count({extent.file, extent.offset}) == 0) let_go_of(extent);
}

// Carries out what the residency decides. Under the lock.
void Pager::pump() {
  if (stopping_ || mapped_) return;
  const Residency::Actions actions = residency_.next();
  for (uint32_t page : actions.evict)
    arena_.give_back(std::exchange(pages_[page].buffer, nullptr), pages_[page].buffer_bytes);
  for (uint32_t page : actions.read) start_read(page);
}

void Pager::start_read(uint32_t index) {
  Page& page = pages_[index];
  try {
    page.buffer = arena_.take(page.buffer_bytes);
  } catch (const std::exception&) {
    // The system has less memory than the budget: who waits for the page is told.
    residency_.failed(index);
    page.error = caught_error();
    changed_.notify_all();
    return;
  }
  std::vector<ReadRun> runs = page.layout.runs;
  std::byte* to = page.buffer;
  for (ReadRun& run : runs) run.to = std::exchange(to, to + run.length);
  page.views.clear();
  for (size_t i = 0; i < page.spec.extents.size(); ++i) {
    const auto [run, offset] = page.layout.place_of_extent[i];
    page.views.push_back({runs[run].to + offset, static_cast<size_t>(page.spec.extents[i].length)});
  }
  if (reads_under_way_++ == 0) busy_since_ = clock_.now();
  reader_->submit(index, std::move(runs));
}

void Pager::take_done(uint64_t job, std::optional<Error> error) {
  const Lock lock(mutex_);
  const auto index = static_cast<uint32_t>(job);
  Page& page = pages_[index];
  // With every read: where reading is the longer part, there is always a next one under way.
  const Time now = clock_.now();
  counters_.read_busy_ns.add(static_cast<uint64_t>((now - std::exchange(busy_since_, now)).count()));
  --reads_under_way_;
  if (error) {
    residency_.failed(index);
    arena_.give_back(std::exchange(page.buffer, nullptr), page.buffer_bytes);
    page.error = std::move(error);
  } else {
    residency_.loaded(index);
    counters_.pages_read.add(1);
    for (const ReadRun& run : page.layout.runs) counters_.bytes_read.add(run.needed);
  }
  pump();
  changed_.notify_all();
}

Lease Pager::acquire(PageId id) {
  Lock lock(mutex_);
  CHECK(id.value < pages_.size());
  Page& page = pages_[id.value];
  counters_.leases.add(1);
  ++page.pins;
  if (mapped_) return Lease(this, id);
  page.error.reset();
  residency_.acquire(id.value);
  pump();
  const auto there = [&] { return residency_.state(id.value) == Residency::State::kLoaded || page.error; };
  if (!there()) {
    const Time start = clock_.now();
    changed_.wait(lock, there);
    counters_.waited_ns.add(static_cast<uint64_t>((clock_.now() - start).count()));
  }
  if (page.error) {
    --page.pins;
    residency_.release(id.value);
    throw Error(*page.error);
  }
  return Lease(this, id);
}

void Pager::release(PageId id) {
  const Lock lock(mutex_);
  Page& page = pages_[id.value];
  CHECK(page.pins > 0u);
  --page.pins;
  if (mapped_) return;
  residency_.release(id.value);
  pump();
}

void Pager::want(std::span<const PageId> pages, bool scan) {
  const Lock lock(mutex_);
  if (mapped_) return;
  std::vector<uint32_t> indices;
  for (const PageId page : pages) indices.push_back(page.value);
  residency_.want(indices, scan);
  pump();
}

Residency::Readiness Pager::readiness(PageId page) const {
  const Lock lock(mutex_);
  return mapped_ ? Residency::Readiness::kKept : residency_.readiness(page.value);
}

bool Pager::preload_mapped(const std::function<bool(uint64_t)>& advance) const {
  for (const Page& page : pages_)
    for (std::span<const std::byte> view : page.views)
      while (!view.empty()) {
        const auto piece = view.first(std::min(view.size(), kPreloadBytes));
        touch(piece);
        if (!advance(piece.size())) return false;
        view = view.subspan(piece.size());
      }
  return true;
}

void Pager::preload(const std::function<bool(uint64_t bytes)>& advance) {
  if (mapped()) {
    preload_mapped(advance);
    return;
  }
  Lock lock(mutex_);
  pump();
  uint64_t told = counters_.bytes_read.value();
  for (;;) {
    for (const Page& page : pages_)
      if (page.error) throw Error(*page.error);
    if (residency_.residents_loaded()) return;
    changed_.wait(lock);
    const uint64_t bytes = counters_.bytes_read.value();
    lock.unlock();
    const bool go_on = advance(bytes - std::exchange(told, bytes));
    lock.lock();
    if (!go_on) return;
  }
}

uint64_t Pager::preload_bytes() const {
  const Lock lock(mutex_);
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < pages_.size(); ++i)
    if (mapped_ || residency_.plan().resident[i]) bytes += pages_[i].bytes;
  return bytes;
}

uint64_t Pager::page_bytes(PageId page) const {
  const Lock lock(mutex_);
  CHECK(page.value < pages_.size());
  return pages_[page.value].bytes;
}

uint64_t Pager::total_bytes() const {
  const Lock lock(mutex_);
  uint64_t bytes = 0;
  for (const Page& page : pages_) bytes += page.bytes;
  return bytes;
}

uint64_t Pager::least_bytes(std::vector<PageSpec> more) const {
  const Lock lock(mutex_);
  std::vector<Page> pages = pages_;
  for (PageSpec& spec : more) pages.push_back(make_page(std::move(spec)));
  const uint64_t read = least_residency_bytes(costs(pages));
  if (!can_map(pages)) return read;
  uint64_t mapped = 0;
  for (const Page& page : pages) mapped += page.bytes;
  return std::min(read, mapped);
}

bool Pager::mapped() const {
  const Lock lock(mutex_);
  return mapped_;
}

Bytes Pager::limit() const {
  const Lock lock(mutex_);
  return limit_;
}

ResidencyPlan Pager::plan() const {
  const Lock lock(mutex_);
  if (!mapped_) return residency_.plan();
  ResidencyPlan plan;
  plan.resident.assign(pages_.size(), true);
  for (const Page& page : pages_) plan.resident_bytes += page.bytes;
  return plan;
}

std::string Pager::reader_name() const {
  const Lock lock(mutex_);
  return reader_ ? reader_->describe() : "none";
}

}  // namespace caravan
