#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/clock.h"
#include "daemon/interruption.h"
#include "offload/measurements.h"

namespace caravan {

// What measurements belong to: another machine or build measures again.
struct CalibrationKey {
  std::string processor;
  uint32_t cores = 0;
  uint64_t memory_bytes = 0;
  std::string version;
  std::string build;
  std::string isa;
  bool operator==(const CalibrationKey&) const = default;
};

struct CalibrationOptions {
  std::string isa = "auto";
  // A file whose disk is measured by reading it; empty: a scratch file in the state folder.
  std::string file;
  // Where to measure, without keeping anything, when the state folder cannot be written; empty: nowhere.
  std::string elsewhere;
  uint64_t scratch_bytes = 256u << 20;
  uint64_t store_bytes = 96u << 20;    // of a scratch store
  uint64_t memory_bytes = 384u << 20;  // to read from
  double seconds_each = 0.15;          // of each measurement of the disk
};

struct Calibration {
  CalibrationKey key;
  Measurements measurements;
  int64_t unix_seconds = 0;  // when they were measured
  bool measured_now = false;
  std::string note;  // what a user should know: why it was measured again, what could not be measured well
};

// Hears what is measured next, and an empty text when all is.
using CalibrationProgress = std::function<void(const std::string& what)>;

// Of this process. Throws kUnsupported or kInvalidArgument for an instruction set that is not there.
CalibrationKey calibration_key(const std::string& isa);

// Measures, in seconds: memory, kernels, attention and hashes, and the disk, each alone; then products and
// reads together. Throws kIo when the disk refuses.
Measurements measure_machine(const Clock& clock, const std::string& state_folder,
                             const CalibrationOptions& options, const CalibrationProgress& progress);

// What is kept in the state folder, if it is of this key.
std::optional<Calibration> kept_calibration(const std::string& state_folder, const CalibrationKey& key);

// For a process on this machine with a state folder of its own: a copy of what is kept, if anything is and
// can be copied.
void lend_calibration(const std::string& state_folder, const std::string& to_folder);

// The measurements kept in the state folder, if they are this machine's and build's; else measures and keeps
// them (a folder that cannot be written only costs the next start the same seconds). `force` measures in any
// case. One process at a time measures in a folder.
Calibration load_or_measure(const Clock& clock, const std::string& state_folder,
                            const CalibrationOptions& options, bool force = false,
                            const CalibrationProgress& progress = {});

// The same of measurements that `measure` makes, for this key.
Calibration load_or_measure(const Clock& clock, const std::string& state_folder, const CalibrationKey& key,
                            bool force, const std::function<Measurements()>& measure);

// Says on standard error what is measured, on a terminal in one line that is gone at the end; throws
// kCancelled once `interruption` came (or, `until_eof`, standard input closed), so that scratch files go. And
// the note.
CalibrationProgress calibration_progress(Interruption& interruption, bool until_eof = false);
void print_note(const Calibration& calibration);

// What is kept, as JSON text; nothing when the text is damaged, and an empty key when it is of another
// format.
std::string calibration_text(const Calibration& calibration);
std::optional<Calibration> parse_calibration(const std::string& text);

}  // namespace caravan
