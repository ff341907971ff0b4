#include "daemon/calibrate.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "compute/cpu/cpu_backend.h"
#include "daemon/calibrate_compute.h"
#include "daemon/calibrate_disk.h"
#include "daemon/version.h"

namespace caravan {

namespace {

constexpr const char* kFile = "calibration.json";
constexpr size_t kMostText = 1u << 20;
constexpr double kTogetherSeconds = 0.3;

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown";
}

DiskProbe probe_of(const Clock& clock, const std::string& state_folder, const CalibrationOptions& options) {
  if (options.file.empty()) return DiskProbe::make_scratch(clock, state_folder, options.scratch_bytes);
  return DiskProbe::open_file(clock, options.file);
}

double share(double together, double alone) {
  return alone > 0 ? std::clamp(together / alone, 0.05, 1.0) : 1.0;
}

// Products on all threads while the disk is read, against both alone, measured side by side.
void measure_together(ComputeProbe& compute, const DiskProbe& disk, Measurements& measurements) {
  const double read_alone = disk.rate(kTogetherSeconds);
  const double row_alone = compute.row_rate(kTogetherSeconds);
  double read = 0;
  std::optional<Error> error;
  std::thread reader([&] {
    try {
      read = disk.rate(kTogetherSeconds);
    } catch (const Error& caught) {
      error = caught;
    }
  });
  const double row = compute.row_rate(kTogetherSeconds);
  reader.join();
  if (error) throw *error;
  measurements.compute_while_reading = share(row, row_alone);
  measurements.read_while_computing = share(read, read_alone);
}

std::optional<std::string> read_kept(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text(kMostText, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

void keep(const std::string& path, const Calibration& calibration) {
  const std::string text = calibration_text(calibration);
  AtomicFile file(path);
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace

CalibrationKey calibration_key(const std::string& isa) {
  CalibrationKey key;
  key.processor = processor_name();
  key.cores = std::max(1u, std::thread::hardware_concurrency());
  key.memory_bytes =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  key.version = version_text();
  const std::optional<cpu::Isa> known = isa_from_name(isa);
  if (!known) fail(ErrorCode::kInvalidArgument, "\"{}\" is no instruction set", isa);
  const cpu::Kernels* kernels = cpu::kernels_of(*known);
  if (!kernels) fail(ErrorCode::kUnsupported, "this processor or build lacks {}", isa);
  key.isa = kernels->name;
  return key;
}

Measurements measure_machine(const Clock& clock, const std::string& state_folder,
                             const CalibrationOptions& options, const CalibrationProgress& progress) {
  const auto next = [&](const std::string& what) {
    if (progress) progress(what);
  };
  Measurements measurements;
  ComputeProbe compute(clock, options.isa, std::max(1u, std::thread::hardware_concurrency()),
                       options.memory_bytes);
  compute.measure(measurements, next);
  next("disk");
  const DiskProbe disk = probe_of(clock, state_folder, options);
  disk.measure(measurements, options.seconds_each);
  next("products while reading");
  measure_together(compute, disk, measurements);
  next("");
  return measurements;
}

Calibration load_or_measure(const Clock& clock, const std::string& state_folder,
                            const CalibrationOptions& options, bool force,
                            const CalibrationProgress& progress) {
  return load_or_measure(clock, state_folder, calibration_key(options.isa), force,
                         [&] { return measure_machine(clock, state_folder, options, progress); });
}

Calibration load_or_measure(const Clock& clock, const std::string& state_folder, const CalibrationKey& key,
                            bool force, const std::function<Measurements()>& measure) {
  const std::string path = state_folder + "/" + kFile;
  std::string note;
  if (!force) {
    if (const std::optional<std::string> text = read_kept(path)) {
      std::optional<Calibration> kept = parse_calibration(*text);
      if (kept && kept->key == key) return std::move(*kept);
      note = kept ? "measured again: the kept measurements are of another machine or build"
                  : "measured again: " + path + " is damaged";
    }
  }
  Calibration calibration;
  calibration.key = key;
  calibration.measurements = measure();
  calibration.unix_seconds = clock.unix_seconds();
  calibration.measured_now = true;
  const auto add_note = [&](const std::string& text) { note += (note.empty() ? "" : "; ") + text; };
  if (!calibration.measurements.direct)
    add_note("the file system takes no direct reads: the disk's figures may be the page cache's");
  try {
    keep(path, calibration);
  } catch (const Error& error) {
    add_note(std::string("not kept: ") + error.what());
  }
  calibration.note = note;
  if (!note.empty()) log_info("calibration note={}", note);
  return calibration;
}

}  // namespace caravan
