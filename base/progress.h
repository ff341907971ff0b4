#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace caravan {

// Shows long work (load, prefill, quantize): amount, rate and time left; one line that is rewritten on a
// terminal, and plain lines (one every few seconds, and the last) elsewhere. Nothing is printed for work that
// ends within half a second. One thread.
class Progress {
 public:
  enum class Unit { kBytes, kTokens };
  using Write = std::function<void(std::string_view text)>;

  // `total` 0: unknown. `write` gets whole lines or, on a terminal, text with a leading carriage return.
  Progress(const Clock& clock, std::string what, Unit unit, uint64_t total, bool terminal, Write write);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void advance(uint64_t amount);
  void finish();

 private:
  void show(Time now, bool last);

  const Clock& clock_;
  const std::string what_;
  const Unit unit_;
  const uint64_t total_;
  const bool terminal_;
  const Write write_;
  const Time start_;
  Time shown_;
  uint64_t done_ = 0;
  bool printed_ = false;
  bool finished_ = false;
};

// Writes to standard error; knows whether that is a terminal.
Progress::Write standard_error();
bool standard_error_is_terminal();

}  // namespace caravan
