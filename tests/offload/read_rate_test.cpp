#include "offload/read_rate.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "tests/offload/faulty_source.h"
#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

std::string written(const test::TemporaryFolder& folder, size_t bytes) {
  const std::string path = folder.path() + "/file";
  std::ofstream(path) << std::string(bytes, 'x');
  return path;
}

TEST(ReadRate, ReadsFilesAndMemoryForAboutTheTimeGiven) {
  const test::TemporaryFolder folder;
  const std::vector<Extent> extents{{0, 5000, 1'500'000}, {0, 0, 10}, {0, 1'999'000, 1000}};
  const SystemClock clock;
  for (const std::shared_ptr<const Source>& source : std::vector<std::shared_ptr<const Source>>{
           std::make_shared<FileSource>(std::vector<std::string>{written(folder, 2'000'000)}),
           std::make_shared<MemorySource>(std::vector<std::vector<std::byte>>{pattern(2'000'000)})}) {
    const Time start = clock.now();
    EXPECT_GT(read_rate(source, extents, clock, 0.05).rate, 1e5) << source->describe();
    EXPECT_GE(clock.now() - start, std::chrono::milliseconds(50));
    EXPECT_LT(clock.now() - start, std::chrono::milliseconds(5000));
  }
}

TEST(ReadRate, WhatCannotBeReadIsAnError) {
  const test::TemporaryFolder folder;
  const std::vector<Extent> extents{{0, 1000, 2000}};
  const SystemClock clock;
  const auto file = std::make_shared<FileSource>(std::vector<std::string>{written(folder, 2'500)});
  EXPECT_THROW(read_rate(file, extents, clock, 0.01), Error);
}

}  // namespace
}  // namespace caravan
