#include "offload/pager.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

namespace caravan {

Lease::~Lease() {
  if (pager_) pager_->release(page_);
}

std::span<const std::byte> Lease::extent(size_t index) const {
  CHECK(pager_ != nullptr);
  const auto& extents = pager_->pages_[page_.value].extents;
  CHECK(index < extents.size());
  return extents[index];
}

Pager::Pager(std::shared_ptr<const Source> source, std::vector<PageSpec> pages)
    : source_(std::move(source)), pins_(std::make_unique<std::atomic<uint32_t>[]>(pages.size())) {
  pages_.reserve(pages.size());
  for (PageSpec& spec : pages) {
    Page& page = pages_.emplace_back();
    page.name = std::move(spec.name);
    for (const Extent& extent : spec.extents) {
      page.extents.push_back(source_->mapped(extent));
      if (page.extents.back().size() != extent.length)
        fail(ErrorCode::kUnsupported, "{}: {} cannot be mapped", source_->describe(), page.name);
    }
  }
}

Pager::~Pager() {
  for (size_t i = 0; i < pages_.size(); ++i) CHECK(pins_[i].load() == 0u);
}

Lease Pager::acquire(PageId page) {
  CHECK(page.value < pages_.size());
  pins_[page.value].fetch_add(1, std::memory_order_relaxed);
  leases_taken_.add(1);
  return Lease(this, page);
}

void Pager::release(PageId page) {
  const uint32_t before = pins_[page.value].fetch_sub(1, std::memory_order_relaxed);
  CHECK(before > 0u);
}

uint64_t Pager::page_bytes(PageId page) const {
  CHECK(page.value < pages_.size());
  uint64_t bytes = 0;
  for (const auto& extent : pages_[page.value].extents) bytes += extent.size();
  return bytes;
}

void Pager::touch(std::span<const std::byte> bytes) {
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

}  // namespace caravan
