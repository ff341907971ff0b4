#pragma once

#include <memory>
#include <span>

#include "base/clock.h"
#include "base/source.h"
#include "offload/page_reader.h"

namespace caravan {

// Bytes a second at which the pager's own reader reads these extents, in this order and over again for about
// `lasting` seconds, three of them under way: what streaming them can reach. The memory of three of the
// largest is taken meanwhile. Throws kIo or kMalformed when they cannot be read.
double read_rate(const std::shared_ptr<const Source>& source, std::span<const Extent> extents,
                 const Clock& clock, double lasting, PageReaderOptions options = {});

}  // namespace caravan
