#include "offload/read_rate.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/cpu_seconds.h"
#include "base/error.h"
#include "base/mailbox.h"

namespace caravan {

namespace {

constexpr size_t kUnderWay = 3;

struct FreeBytes {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};

// The whole sectors around an extent.
ReadRun run_of(const Extent& extent) {
  const uint64_t first = extent.offset / kDirectAlignment * kDirectAlignment;
  const uint64_t needed = extent.offset + extent.length - first;
  return {extent.file, first, (needed + kDirectAlignment - 1) / kDirectAlignment * kDirectAlignment, needed,
          nullptr};
}

}  // namespace

ReadRate read_rate(const std::shared_ptr<const Source>& source, std::span<const Extent> extents,
                   const Clock& clock, double lasting, PageReaderOptions options) {
  CHECK(!extents.empty());
  uint64_t largest = 0;
  for (const Extent& extent : extents) largest = std::max(largest, run_of(extent).length);
  std::vector<std::unique_ptr<std::byte, FreeBytes>> buffers;
  for (size_t i = 0; i < kUnderWay; ++i) {
    buffers.emplace_back(static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, largest)));
    if (!buffers.back())
      fail(ErrorCode::kOutOfMemory, "the system has no {} of memory left to read into",
           to_string(Bytes{largest}));
    // So that the system gives the memory now, and not while it is read into.
    std::memset(buffers.back().get(), 0, largest);
  }
  struct Done {
    uint64_t job = 0;
    std::optional<Error> error;
  };
  Mailbox<Done> done(kUnderWay);
  const auto reader = make_page_reader(
      source,
      [&](uint64_t job, std::optional<Error> error) {
        (void)done.post({job, std::move(error)});
      },
      options);
  size_t next = 0, reading = 0;
  const auto submit = [&](uint64_t buffer) {
    ReadRun run = run_of(extents[next++ % extents.size()]);
    run.to = buffers[buffer].get();
    reader->submit(buffer, {run});
    ++reading;
  };
  const double processor = cpu_seconds();
  const Time start = clock.now();
  uint64_t bytes = 0;
  std::optional<Error> error;
  for (uint64_t buffer = 0; buffer < kUnderWay; ++buffer) submit(buffer);
  for (size_t finished = 0; reading > 0; ++finished) {
    Done one = *done.take();
    --reading;
    if (one.error) error = std::move(one.error);
    bytes += extents[finished % extents.size()].length;
    if (!error && seconds(clock.now() - start) < lasting) submit(one.job);
  }
  if (error) throw *error;
  const auto read = static_cast<double>(bytes);
  return {read / seconds(clock.now() - start), (cpu_seconds() - processor) / (read / 1e9)};
}

}  // namespace caravan
