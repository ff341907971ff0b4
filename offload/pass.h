#pragma once

#include <cstdint>
#include <span>

namespace caravan {

// One step of a pass, as the simulation below sees it: all times alone, in seconds.
struct PassItem {
  double compute = 0;
  double read = 0;         // from disk, before the step (or, with `demand`, beside it)
  uint64_t room = 0;       // of the window that the read takes until the step has run
  bool demand = false;     // what to read is known only once the step begins
  double tail = 0;         // demand: the part of `compute` that waits for the last byte
  bool elsewhere = false;  // computed by others: this machine's disk does not feel it
};

struct PassConditions {
  uint64_t window_bytes = 0;
  double compute_while_reading = 1;  // of the rate alone
  double read_while_computing = 1;
};

struct PassTime {
  double seconds = 0;
  double waiting = 0;  // of it, for a read, with nothing to compute
  double idle = 0;     // of it, of the disk
};

// How long one pass takes when passes follow one another without end. One reader works in order, ahead of the
// steps by as much as the window holds (it goes on into the next pass), and turns to what a step demands at
// once. While both run, each has its share of its rate alone. Every room must fit the window.
PassTime pass_time(std::span<const PassItem> items, const PassConditions& conditions);

// What no pass with this much compute and reading can beat, however they overlap. `elsewhere` seconds are
// others', and at most `read_elsewhere` of the reading happens meanwhile.
double least_pass_seconds(double compute, double read, double elsewhere, double read_elsewhere,
                          const PassConditions& conditions);

}  // namespace caravan
