#pragma once

#include "base/counters.h"

namespace caravan {

// What a backend did since it was built (law 8). Any thread reads.
struct ComputeCounters {
  Counter weight_bytes;    // of weights read, as stored; a matrix is counted once a call, whatever the rows
  Counter operations;      // multiplications and additions of the products with weights
  Counter state_bytes;     // of keys and values read and written
  Counter mix_operations;  // multiplications and additions of attention
};

}  // namespace caravan
