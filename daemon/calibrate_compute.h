#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "offload/measurements.h"

namespace caravan {

// Measures memory, the kernels through the real back end, and the hashes. One thread; it runs threads of its
// own while a call lasts.
class ComputeProbe {
 public:
  // `most_bytes`: of memory to read from (also less than a cache, then what is measured is the cache). Throws
  // kUnsupported for an instruction set that is not there.
  ComputeProbe(const Clock& clock, std::string isa, uint32_t threads, uint64_t most_bytes);
  ~ComputeProbe();
  ComputeProbe(const ComputeProbe&) = delete;
  ComputeProbe& operator=(const ComputeProbe&) = delete;

  const char* isa_name() const;
  // Fills threads, memory, kernels, attention, call_seconds and hashes. `next` hears what comes.
  void measure(Measurements& measurements, const std::function<void(const std::string& what)>& next);
  // Bytes of weights a second for one row with all threads, over `lasting` seconds or a little longer.
  double row_rate(double lasting);
  // Of reading memory with all threads, likewise.
  double memory_rate(double lasting);
  // Of XXH3 and of SHA-256 with the calling thread; they may run beside the others.
  double checksum_rate(double lasting) const;
  double sha256_rate(double lasting) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan
