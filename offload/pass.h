#pragma once

#include <cstdint>
#include <span>

namespace caravan {

// One step of a pass, as the simulation below sees it: all times alone, in seconds.
struct PassItem {
  double compute = 0;
  double read = 0;         // from disk, before the step
  uint64_t room = 0;       // of its window that the read takes until the step has run
  bool elsewhere = false;  // computed by others: this machine's disk does not feel it
  // Of what a router chooses: the step at whose beginning it has spoken, and the one from whose beginning on
  // it may be read as well, before that; none of them later than this one.
  bool chosen = false;
  uint32_t chosen_at = 0;
  uint32_t read_from = 0;
};

struct PassConditions {
  uint64_t window_bytes = 0;
  double compute_while_reading = 1;  // of the rate alone
  double read_while_computing = 1;
  uint64_t chosen_bytes = 0;  // the window of what is chosen
};

struct PassTime {
  double seconds = 0;
  double waiting = 0;  // of it, for a read, with nothing to compute
  double idle = 0;     // of it, of the disk
};

// How long one pass takes when passes follow one another without end. One reader works in order, ahead of the
// steps by as much as the window holds (it goes on into the next pass). It turns to what has been chosen at
// once, also in order and as far as that window holds, and to what may be read before the choice when it has
// nothing else to do. While both run, each has its share of its rate alone. Every room must fit its window.
PassTime pass_time(std::span<const PassItem> items, const PassConditions& conditions);

// What no pass with this much compute and reading can beat, however they overlap. `elsewhere` seconds are
// others', and at most `read_elsewhere` of the reading happens meanwhile.
double least_pass_seconds(double compute, double read, double elsewhere, double read_elsewhere,
                          const PassConditions& conditions);

}  // namespace caravan
