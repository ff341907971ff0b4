#include "base/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>

#include "base/bytes.h"

namespace caravan {

namespace {

constexpr Duration kQuiet = std::chrono::milliseconds(500);
constexpr Duration kTerminalInterval = std::chrono::milliseconds(100);
constexpr Duration kPlainInterval = std::chrono::seconds(5);

std::string amount(Progress::Unit unit, double value) {
  if (unit == Progress::Unit::kBytes) return to_string(Bytes{static_cast<uint64_t>(value)});
  return fmt::format("{:.0f} tokens", value);
}

}  // namespace

Progress::Progress(const Clock& clock, std::string what, Unit unit, uint64_t total, bool terminal,
                   Write write)
    : clock_(clock),
      what_(std::move(what)),
      unit_(unit),
      total_(total),
      terminal_(terminal),
      write_(std::move(write)),
      start_(clock.now()),
      shown_(start_) {}

Progress::~Progress() {
  finish();
}

void Progress::advance(uint64_t value) {
  done_ += value;
  const Time now = clock_.now();
  if (now - start_ < kQuiet) return;
  if (now - shown_ < (terminal_ ? kTerminalInterval : printed_ ? kPlainInterval : kQuiet)) return;
  show(now, false);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (printed_) show(clock_.now(), true);
}

void Progress::show(Time now, bool last) {
  const double elapsed = seconds(now - start_);
  const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
  std::string line = fmt::format("{}: {}", what_, amount(unit_, static_cast<double>(done_)));
  if (total_ > 0)
    line += fmt::format(" of {} ({} %)", amount(unit_, static_cast<double>(total_)), done_ * 100 / total_);
  line += fmt::format(", {}/s", amount(unit_, rate));
  if (last)
    line += fmt::format(", {:.1f} s", elapsed);
  else if (total_ > done_ && rate > 0)
    line += fmt::format(", {:.0f} s left", static_cast<double>(total_ - done_) / rate);
  if (terminal_)
    write_("\r\x1b[K" + line + (last ? "\n" : ""));
  else
    write_(line + "\n");
  shown_ = now;
  printed_ = true;
}

Progress::Write standard_error() {
  return [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  };
}

bool standard_error_is_terminal() {
  return ::isatty(STDERR_FILENO) == 1;
}

}  // namespace caravan
