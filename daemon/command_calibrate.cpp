// calibrate: what this machine does a second, measured once and kept in the state folder.
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "daemon/calibrate.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"

namespace caravan {

namespace {

void print_kernel(const char* name, const KernelRates& rates) {
  std::printf("%-16s %10.1f %10.1f %14.0f %10.0f\n", name, rates.row_bytes.one / 1e9,
              rates.row_bytes.all / 1e9, rates.many_operations.one / 1e9, rates.many_operations.all / 1e9);
}

void print_table(const Calibration& calibration) {
  const CalibrationKey& key = calibration.key;
  const Measurements& machine = calibration.measurements;
  std::printf("%s, %u cores, %s of memory, %s, %s\n\n", key.processor.c_str(), key.cores,
              to_string(Bytes{key.memory_bytes}).c_str(), key.isa.c_str(), key.version.c_str());
  std::printf("%-16s %10s %10s %14s %10s\n", "", "1 thread", "all", "1 thread", "all");
  std::printf("%-16s %10s %10s %14s %10s\n", "", "GB/s", "GB/s", "GOP/s", "GOP/s");
  std::printf("%-16s %10.1f %10.1f\n", "memory", machine.memory.one / 1e9, machine.memory.all / 1e9);
  for (const auto& [type, rates] : machine.kernels) print_kernel(std::string(name(type)).c_str(), rates);
  print_kernel("attention f32", machine.attention_f32);
  print_kernel("attention f16", machine.attention_f16);
  std::printf("(GB/s of weights, or of keys and values, for one row; GOP/s for many rows)\n\n");
  std::printf("disk, %s reads\n", machine.direct ? "direct" : "buffered");
  for (const DiskRate& rate : machine.disk)
    std::printf("  %s, %u reader%s %*.2f GB/s\n", to_string(Bytes{rate.bytes}).c_str(), rate.readers,
                rate.readers == 1 ? " " : "s", 10, rate.rate / 1e9);
  std::printf("  %s, %u reader%s %*.2f GB/s, as KV comes back\n", to_string(Bytes{machine.kv.bytes}).c_str(),
              machine.kv.readers, machine.kv.readers == 1 ? " " : "s", 8, machine.kv.rate / 1e9);
  std::printf("  4 KiB alone %14.0f us\n", machine.small_read_seconds * 1e6);
  std::printf("  from the store %11.2f GB/s, checked\n\n", machine.store.rate / 1e9);
  std::printf("SHA-256 %.2f GB/s, XXH3 %.1f GB/s, a call of the back end %.1f us\n", machine.sha256 / 1e9,
              machine.xxh3 / 1e9, machine.call_seconds * 1e6);
  std::printf(
      "together: products keep %.0f %% of their rate, reads %.0f %%; beside both XXH3 %.0f %% and SHA-256 "
      "%.0f %%\n",
      machine.compute_while_reading * 100, machine.read_while_computing * 100, machine.hash_while_both * 100,
      machine.sha256_while_both * 100);
  std::printf("memory beside reads and a hash keeps %.0f %%\n", machine.memory_while_both * 100);
  std::printf("products beside reads from the store keep %.0f %%, these reads %.0f %%\n",
              machine.store.compute_while_reading * 100, machine.store.read_while_computing * 100);
}

bool input_is_closed() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  return ::poll(&input, 1, 0) > 0 && (input.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

}  // namespace

CalibrationProgress calibration_progress(Interruption& interruption, bool until_eof) {
  const bool terminal = standard_error_is_terminal();
  return [terminal, until_eof, &interruption](const std::string& what) {
    if (interruption.came() || (until_eof && input_is_closed())) fail(ErrorCode::kCancelled, "interrupted");
    if (what.empty() && terminal)
      std::fprintf(stderr, "\r\033[K");
    else if (!what.empty())
      std::fprintf(stderr, terminal ? "\r\033[Kmeasuring this machine: %s " : "measuring this machine: %s\n",
                   what.c_str());
  };
}

void print_note(const Calibration& calibration) {
  if (!calibration.note.empty()) std::fprintf(stderr, "note: %s\n", calibration.note.c_str());
}

int command_calibrate(const CommandLine& line) {
  Interruption interruption;
  const SystemClock clock;
  CalibrationOptions options;
  options.isa = line.config.isa;
  options.file = line.model;
  // Who names a file wants its disk measured, whatever is kept.
  const Calibration calibration =
      load_or_measure(clock, state_folder(line.config), options, line.force || !line.model.empty(),
                      calibration_progress(interruption, line.until_eof));
  print_note(calibration);
  if (line.json) {
    std::printf("%s", calibration_text(calibration).c_str());
    return 0;
  }
  print_table(calibration);
  if (!calibration.measured_now) std::printf("measured before; --force measures again\n");
  return 0;
}

}  // namespace caravan
