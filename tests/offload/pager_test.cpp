#include "offload/pager.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/error.h"

namespace caravan {
namespace {

std::shared_ptr<const Source> source_of(size_t bytes) {
  std::vector<std::byte> file(bytes);
  for (size_t i = 0; i < bytes; ++i) file[i] = static_cast<std::byte>(i);
  return std::make_shared<MemorySource>(std::vector<std::vector<std::byte>>{std::move(file)});
}

TEST(Pager, LeasesGiveTheBytesOfTheirExtents) {
  Pager pager(source_of(100), {{"a", {{0, 10, 5}, {0, 50, 2}}}, {"b", {{0, 99, 1}}}});
  const Lease lease = pager.acquire(PageId{0});
  EXPECT_EQ(lease.extent(0).size(), 5u);
  EXPECT_EQ(lease.extent(0)[0], std::byte{10});
  EXPECT_EQ(lease.extent(1)[1], std::byte{51});
  EXPECT_EQ(pager.page_bytes(PageId{0}), 7u);
  EXPECT_EQ(pager.leases_taken(), 1u);
}

TEST(Pager, RefusesExtentsPastTheEnd) {
  EXPECT_THROW(Pager(source_of(100), {{"a", {{0, 99, 2}}}}), Error);
}

TEST(Pager, EndsTheProcessWhenALeaseOutlivesIt) {
  auto outlive = [] {
    Lease lease;
    Pager pager(source_of(8), {{"a", {{0, 0, 8}}}});
    lease = pager.acquire(PageId{0});
  };
  EXPECT_DEATH(outlive(), "pins_");
}

TEST(Pager, PreloadReadsEveryByteAndStopsWhenTold) {
  Pager pager(source_of(40 << 20), {{"a", {{0, 0, 20 << 20}}}, {"b", {{0, 20 << 20, 20 << 20}}}});
  uint64_t bytes = 0;
  pager.preload([&](uint64_t count) { return bytes += count, true; });
  EXPECT_EQ(bytes, 40u << 20);
  int calls = 0;
  pager.preload([&](uint64_t) { return ++calls < 2; });
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace caravan
