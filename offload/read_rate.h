#pragma once

#include <memory>
#include <span>

#include "base/clock.h"
#include "base/source.h"
#include "offload/page_reader.h"

namespace caravan {

struct ReadRate {
  double rate = 0;                  // bytes a second
  double processor_seconds_gb = 0;  // of all threads of this process meanwhile, for 1e9 bytes
};

// How fast the pager's own reader reads these extents, in this order and over again for about `lasting`
// seconds, three of them under way: what streaming them can reach. The memory of three of the largest is
// taken before that. Throws kIo or kMalformed when they cannot be read.
ReadRate read_rate(const std::shared_ptr<const Source>& source, std::span<const Extent> extents,
                   const Clock& clock, double lasting, PageReaderOptions options = {});

}  // namespace caravan
