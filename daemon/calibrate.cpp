#include "daemon/calibrate.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <span>
#include <sstream>
#include <thread>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "compute/cpu/cpu_backend.h"
#include "daemon/calibrate_compute.h"
#include "daemon/calibrate_disk.h"
#include "daemon/calibrate_store.h"
#include "daemon/process_folder.h"
#include "daemon/version.h"

namespace caravan {

namespace {

constexpr const char* kFile = "calibration.json";
constexpr size_t kMostText = 1u << 20;
constexpr double kTogetherSeconds = 0.2;

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

// Runs `task` on a thread of its own for as long as the object lives; its error comes with join().
class Beside {
 public:
  explicit Beside(std::function<void()> task)
      : thread_([this, task = std::move(task)] {
          try {
            task();
          } catch (const Error& caught) {
            error_ = caught;
          }
        }) {}
  ~Beside() {
    if (thread_.joinable()) thread_.join();
  }
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;
  void join() {
    thread_.join();
    if (error_) throw Error(*error_);
  }

 private:
  std::optional<Error> error_;
  std::thread thread_;
};

using Rate = std::function<double(double lasting)>;
struct Shares {
  double computing = 1, reading = 1;
};

// What products on all threads and reads leave of each other, against both alone, measured side by side.
Shares measure_together(ComputeProbe& compute, const Rate& read) {
  const double read_alone = read(kTogetherSeconds);
  const double row_alone = compute.row_rate(kTogetherSeconds);
  double reading = 0;
  Beside reader([&] { reading = read(kTogetherSeconds); });
  const double row = compute.row_rate(kTogetherSeconds);
  reader.join();
  return {share(row, row_alone), share(reading, read_alone)};
}

// What two others leave of a rate.
double measure_beside(const Rate& rate, const Rate& one, const Rate& another) {
  const double alone = rate(kTogetherSeconds);
  Beside first([&] { (void)one(kTogetherSeconds); });
  Beside second([&] { (void)another(kTogetherSeconds); });
  const double beside = rate(kTogetherSeconds);
  first.join();
  second.join();
  return share(beside, alone);
}

std::optional<std::string> read_kept(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::string text(kMostText, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

// Before seconds are spent on what needs no disk.
void require_writable(const std::string& state_folder) {
  if (::access(state_folder.c_str(), W_OK | X_OK) != 0)
    fail(ErrorCode::kIo, "{} cannot be written; name another folder with --state DIR", state_folder);
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
  key.build = build_text();
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
  // A file that is not there is told before seconds are spent on what needs none.
  if (!options.file.empty()) (void)DiskProbe::open_file(clock, options.file);
  Measurements measurements;
  ComputeProbe compute(clock, options.isa, std::max(1u, std::thread::hardware_concurrency()),
                       options.memory_bytes);
  compute.measure(measurements, next);
  next("disk");
  {
    const DiskProbe disk = probe_of(clock, state_folder, options);
    disk.measure(measurements, options.seconds_each);
    const Rate read = [&disk](double lasting) { return disk.rate(lasting); };
    next("products while reading");
    const Shares shares = measure_together(compute, read);
    measurements.compute_while_reading = shares.computing;
    measurements.read_while_computing = shares.reading;
    next("hashes while reading and computing");
    const Rate product = [&compute](double lasting) { return compute.row_rate(lasting); };
    const Rate sum = [&compute](double lasting) { return compute.checksum_rate(lasting); };
    const Rate hash = [&compute](double lasting) { return compute.sha256_rate(lasting); };
    measurements.hash_while_both = measure_beside(sum, product, read);
    measurements.sha256_while_both = measure_beside(hash, product, read);
    next("memory while reading and hashing");
    measurements.memory_while_both =
        measure_beside([&compute](double lasting) { return compute.memory_rate(lasting); }, read, hash);
  }
  next("store");
  const StoreProbe store(clock, state_folder, options.store_bytes);
  const Rate read = [&store](double lasting) { return store.rate(lasting); };
  measurements.store.rate = store.rate(options.seconds_each);
  next("products while reading from the store");
  const Shares shares = measure_together(compute, read);
  measurements.store.compute_while_reading = shares.computing;
  measurements.store.read_while_computing = shares.reading;
  return measurements;
}

Calibration load_or_measure(const Clock& clock, const std::string& state_folder,
                            const CalibrationOptions& options, bool force,
                            const CalibrationProgress& progress) {
  const CalibrationKey key = calibration_key(options.isa);
  std::string refused;
  try {
    return load_or_measure(clock, state_folder, key, force, [&] {
      std::error_code ignored;
      std::filesystem::create_directories(state_folder, ignored);
      require_writable(state_folder);
      return measure_machine(clock, state_folder, options, progress);
    });
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kIo || options.elsewhere.empty()) throw;
    refused = error.message();
  }
  const ProcessFolder scratch(options.elsewhere, "caravan-");
  Calibration calibration;
  calibration.key = key;
  calibration.measurements = measure_machine(clock, scratch.path(), options, progress);
  calibration.unix_seconds = clock.unix_seconds();
  calibration.measured_now = true;
  calibration.note = fmt::format("measured on the disk of {} and not kept: {}", options.elsewhere, refused);
  return calibration;
}

std::optional<Calibration> kept_calibration(const std::string& state_folder, const CalibrationKey& key) {
  const std::optional<std::string> text = read_kept(state_folder + "/" + kFile);
  std::optional<Calibration> kept = text ? parse_calibration(*text) : std::nullopt;
  if (kept && kept->key != key) return std::nullopt;
  return kept;
}

void lend_calibration(const std::string& state_folder, const std::string& to_folder) {
  std::error_code ignored;
  std::filesystem::create_directories(to_folder, ignored);
  std::filesystem::copy_file(state_folder + "/" + kFile, to_folder + "/" + kFile,
                             std::filesystem::copy_options::overwrite_existing, ignored);
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
