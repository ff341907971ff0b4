#include "cache/kv_border.h"

#include <algorithm>

#include "base/check.h"

namespace caravan {

KvBorder::KvBorder(uint32_t least, uint32_t most)
    : least_(least), most_(most), part_(std::max(1u, most / kParts)) {
  CHECK((least > 0 && least <= most));
}

uint32_t KvBorder::above(uint32_t frames) const {
  return std::min(most_, frames + part_);
}

uint32_t KvBorder::at_step(uint32_t frames, uint32_t used) {
  const uint32_t enough = std::clamp(used + part_, least_, most_);
  if (enough + part_ >= frames) {
    idle_steps_ = 0;
    return frames;
  }
  if (++idle_steps_ < kIdleSteps) return frames;
  idle_steps_ = 0;
  return enough;
}

}  // namespace caravan
