#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace caravan {

// Who uses the memory of KV frames while there is little KV: weights. Called by the compute thread while it
// holds no lease.
class KvNeighbour {
 public:
  virtual ~KvNeighbour() = default;
  // KV is about to reserve so much more. Throws kOutOfMemory; nothing has changed then.
  virtual void make_room(Bytes more) = 0;
  // KV has given memory back.
  virtual void take_room() = 0;
};

// Where the border lies: how many frames there are, of those that there may be. It moves up when a frame is
// needed, by an eighth of the most, because weights are placed anew each time; and down when for some steps
// more than two eighths were not needed.
class KvBorder {
 public:
  static constexpr uint32_t kParts = 8;
  // Steps in which few blocks were in use before frames are given back: a conversation's next question finds
  // its frames still there.
  static constexpr uint32_t kIdleSteps = 64;

  KvBorder(uint32_t least, uint32_t most);
  uint32_t most() const { return most_; }
  // The next number of frames above `frames`; the same: there may be no more.
  uint32_t above(uint32_t frames) const;
  // How many there are to be, before a step; `used`: blocks that need one.
  uint32_t at_step(uint32_t frames, uint32_t used);

 private:
  const uint32_t least_, most_, part_;
  uint32_t idle_steps_ = 0;
};

}  // namespace caravan
