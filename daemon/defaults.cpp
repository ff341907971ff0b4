#include "daemon/defaults.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"

namespace caravan {

namespace {

constexpr uint32_t kDefaultContext = 4096;

}  // namespace

uint32_t threads_of(const Config& config, uint32_t sharers) {
  if (config.threads > 0) return config.threads;
  return std::max(1u, std::thread::hardware_concurrency() / std::max(1u, sharers));
}

KvType kv_type_of(const Config& config) {
  return config.kv_type == "f16" ? KvType::kF16 : KvType::kF32;
}

uint32_t context_of(const Config& config, const ModelSpec& spec) {
  if (config.context == 0) return std::min(spec.context, kDefaultContext);
  if (config.context > spec.context)
    log_warning("context_over_training context={} model={}", config.context, spec.context);
  return config.context;
}

EngineOptions engine_options(const Config& config, uint32_t sharers) {
  EngineOptions options;
  options.threads = threads_of(config, sharers);
  options.isa = config.isa;
  options.exact = config.exact;
  options.kv_type = kv_type_of(config);
  options.max_rows = limits::kMaxRowsPerStep;
  options.memory = config.ram.empty() ? default_memory(sharers) : parse_budget(config.ram, machine_memory());
  if (!config.kv_ram.empty()) options.kv_memory = parse_budget(config.kv_ram, options.memory);
  return options;
}

std::string model_name(const Config& config, const Manifest& manifest) {
  return config.name.empty() ? manifest.name : config.name;
}

std::string state_folder(const Config& config) {
  namespace fs = std::filesystem;
  fs::path folder = config.state;
  if (folder.empty()) {
    const char* xdg = std::getenv("XDG_STATE_HOME");
    const char* home = std::getenv("HOME");
    if (xdg && *xdg)
      folder = fs::path(xdg) / "caravan";
    else if (home && *home)
      folder = fs::path(home) / ".local/state/caravan";
    else
      fail(ErrorCode::kInvalidArgument, "there is no HOME to keep state in; name a folder with --state DIR");
  }
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || ::access(folder.c_str(), W_OK | X_OK) != 0)
    fail(ErrorCode::kIo, "{} cannot be written; name another folder with --state DIR", folder.string());
  return folder.string();
}

void apply_log_level(const Config& config) {
  const std::string& name = config.log_level;
  set_log_level(name == "debug"     ? LogLevel::kDebug
                : name == "info"    ? LogLevel::kInfo
                : name == "warning" ? LogLevel::kWarning
                : name == "error"   ? LogLevel::kError
                                    : LogLevel::kOff);
}

}  // namespace caravan
