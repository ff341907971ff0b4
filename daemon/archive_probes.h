#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "proto/messages.h"

namespace caravan {

// The head's questions to the ring's archives that are on their way: whose they are, how long they may take,
// and whether asking is worth its time. Belongs to one ring at a time; control thread.
class ArchiveProbes {
 public:
  struct Options {
    Duration timeout = std::chrono::milliseconds(300);  // an answer after that is of no use
    // After one that did not come, none is asked for so long, twice as long after the next, up to
    // `last_rest`: a stage that is slow to answer must not slow every request.
    Duration first_rest = std::chrono::seconds(2), last_rest = std::chrono::seconds(60);
    // What an answer may save is at least so many times what it takes to come.
    double gain = 10;
  };
  struct Found {
    RequestId request;
    uint32_t blocks = 0;
    uint64_t load_ns = 0;
  };

  explicit ArchiveProbes(Options options) : options_(options) {}

  // Whether a question about positions that cost so much to compute (0: not measured) may pay.
  bool worth_asking(double compute_ns, Time now);
  ArchiveProbe ask(RingId ring, EpochId epoch, RequestId request, std::vector<BlockTag> tags, Time now);
  // Nothing for an answer that no question waits for.
  std::optional<Found> on(const ArchiveProbe& answer, Time now);
  // Requests whose questions were answered too late.
  std::vector<RequestId> tick(Time now);
  Time next_tick() const;
  // The ring is gone, and with it all that is on its way.
  void forget();

  size_t pending() const { return pending_.size(); }
  uint64_t timeouts() const { return timeouts_; }

 private:
  struct Pending {
    RequestId request;
    Time asked{};
    uint32_t blocks = 0;
  };

  const Options options_;
  std::map<uint64_t, Pending> pending_;  // by the probe's number, oldest first
  uint64_t last_probe_ = 0, timeouts_ = 0;
  double trip_ns_ = 0;  // until the answer: a moving mean
  Duration rest_{};
  Time rests_until_{};
};

}  // namespace caravan
