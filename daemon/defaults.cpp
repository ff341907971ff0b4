#include "daemon/defaults.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "daemon/archive_folder.h"
#include "daemon/kv_folder.h"

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

namespace {

// Without making it; empty when there is no HOME.
std::string state_path(const Config& config) {
  namespace fs = std::filesystem;
  if (!config.state.empty()) return config.state;
  const char* xdg = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (xdg && *xdg) return fs::path(xdg) / "caravan";
  if (home && *home) return fs::path(home) / ".local/state/caravan";
  return {};
}

// Beside the store, if there is a state folder; else, unless one was asked for, where temporary files go.
std::vector<std::string> kv_places(const Config& config) {
  std::vector<std::string> places;
  if (const std::string state = state_path(config); !state.empty()) places.push_back(state + "/kv");
  std::error_code error;
  const std::filesystem::path temporary = std::filesystem::temp_directory_path(error);
  if (config.state.empty() && !error) places.push_back(temporary / "caravan-kv");
  return places;
}

// Over which an archive grows only when it is told to.
constexpr uint64_t kMostArchive = uint64_t{16} << 30;
// Below which it is of no use.
constexpr uint64_t kLeastArchive = uint64_t{1} << 20;

// Of memory, for the index of an archive: half of what is never reserved.
constexpr uint64_t kIndexShare = 64;
constexpr uint64_t kLeastBlocks = 256;

// What the state folder's store has of the disk.
uint64_t store_bytes(const Config& config) {
  const std::string state = state_path(config);
  return state.empty() ? 0 : folder_bytes(state + "/store");
}

// --disk in bytes, if it was given.
std::optional<uint64_t> disk_budget(const Config& config, const std::string& place) {
  if (config.disk.empty()) return std::nullopt;
  return parse_budget("--disk", config.disk, Bytes{disk_total_bytes(place)}).count;
}

// Of an archive, as configured; else an eighth of what is free beside it. `left`: of --disk, beside the
// store.
Bytes archive_limit(const Config& config, const std::string& folder, std::optional<uint64_t> left,
                    uint32_t sharers) {
  uint64_t limit = 0;
  const bool asked_for = !config.archive.empty();
  if (asked_for)
    limit = parse_budget("--archive", config.archive, Bytes{disk_total_bytes(folder)}).count;
  else
    limit = std::min(kMostArchive, (disk_free_bytes(folder) + folder_bytes(folder)) / 8);
  if (asked_for && limit > 0 && limit < kLeastArchive)
    fail(ErrorCode::kInvalidArgument, "an archive of {} is too little: the least is {}, and 0 for none",
         to_string(Bytes{limit}), to_string(Bytes{kLeastArchive}));
  if (left) limit = std::min(limit, asked_for ? *left : *left / 4);
  limit /= std::max(1u, sharers);
  return {limit < kLeastArchive ? 0 : limit};
}

ArchiveOptions archive_options(const Config& config, uint32_t sharers) {
  ArchiveOptions options;
  const std::string state = state_path(config);
  if (state.empty() || !folder_can_be_written(state)) {
    if (!config.archive.empty())
      log_warning("kv_archive_none reason=\"{} cannot be written; name another folder with --state DIR\"",
                  state.empty() ? "no folder" : state);
    return options;
  }
  options.folder = state + "/archive";
  std::optional<uint64_t> left = disk_budget(config, state);
  if (left) *left -= std::min(*left, store_bytes(config));
  options.limit = archive_limit(config, options.folder, left, sharers);
  options.unwanted =
      !config.archive.empty() &&
      parse_budget("--archive", config.archive, Bytes{disk_total_bytes(options.folder)}).count == 0;
  if (!config.archive_day.empty())
    options.day =
        Bytes{parse_budget("--archive-day", config.archive_day, Bytes{disk_total_bytes(state)}).count /
              std::max(1u, sharers)};
  return options;
}

// What --disk leaves beside the store and the archive; else a quarter of what is free.
Bytes kv_disk(const Config& config, const std::string& place, Bytes archive, uint32_t sharers) {
  const std::optional<uint64_t> disk = disk_budget(config, place);
  if (!disk) return {disk_free_bytes(place) / 4 / std::max(1u, sharers)};
  return {*disk - std::min(*disk, store_bytes(config) + archive.count)};
}

// The least --disk that leaves `wanted` for KV, in whole megabytes, beside an archive in that folder (empty:
// none) and a store of `store` bytes. The archive is as large as it would be with that --disk: it has a part
// of what is there beside a store of `archive_store` bytes, which for the peers of a head is the head's. What
// is lacking is added until nothing is.
Bytes least_disk(const Config& config, uint32_t sharers, const std::string& archive_folder, Bytes wanted,
                 uint64_t store, uint64_t archive_store) {
  constexpr uint64_t kRound = uint64_t{1} << 20;
  constexpr uint64_t kGrowth = kRound;  // of the store's own logs
  for (uint64_t left = wanted.count + kGrowth;;) {
    const uint64_t total = (store + left + kRound - 1) / kRound * kRound;
    const uint64_t beside = total - std::min(total, archive_store);
    const uint64_t archive =
        archive_folder.empty() ? 0 : archive_limit(config, archive_folder, beside, sharers).count;
    const uint64_t taken = std::min(total - store, archive + kGrowth), kv = total - store - taken;
    if (kv >= wanted.count) return {total};
    left = total - store + wanted.count - kv;
  }
}

}  // namespace

EngineOptions engine_options(const Config& config, uint32_t sharers) {
  EngineOptions options;
  options.threads = threads_of(config, sharers);
  options.isa = config.isa;
  options.exact = config.exact;
  options.kv_type = kv_type_of(config);
  options.max_rows = limits::kMaxRowsPerStep;
  options.memory =
      config.ram.empty() ? default_memory(sharers) : parse_budget("--ram", config.ram, machine_memory());
  if (!config.kv_ram.empty()) options.kv_memory = parse_budget("--kv-ram", config.kv_ram, options.memory);
  options.kv_places = kv_places(config);
  options.archive = archive_options(config, sharers);
  options.archive.most_blocks =
      std::clamp<uint64_t>(options.memory.count / kIndexShare / KvArchiveIndex::kBlockBytes, kLeastBlocks,
                           KvArchiveIndex::kMostBlocks);
  if (!options.kv_places.empty())
    options.kv_disk = kv_disk(config, options.kv_places.front(), options.archive.limit, sharers);
  options.disk_flag = [config, sharers, folder = options.archive.folder](Bytes wanted) {
    const uint64_t store = store_bytes(config);
    return least_disk(config, sharers, folder, wanted, store, store);
  };
  return options;
}

EngineOptions child_options(const Config& config, EngineOptions head, uint32_t sharers) {
  // A state folder of its own has next to nothing in its store.
  if (const auto disk = disk_budget(config, head.kv_places.empty() ? "" : head.kv_places.front()))
    head.kv_disk = {*disk - std::min(*disk, head.archive.limit.count)};
  head.disk_flag = [config, sharers, folder = head.archive.folder](Bytes wanted) {
    return least_disk(config, sharers, folder, wanted, 0, store_bytes(config));
  };
  return head;
}

uint64_t fetch_limit_of(const Config& config) {
  std::string text = config.fetch_limit;
  if (text.empty()) return 0;
  if (text.ends_with("/s")) text.resize(text.size() - 2);
  const uint64_t rate = parse_bytes(text).count;
  if (rate == 0)
    fail(ErrorCode::kInvalidArgument, "--fetch-limit {}: nothing would come", config.fetch_limit);
  return rate;
}

std::string model_name(const Config& config, const Manifest& manifest) {
  return config.name.empty() ? manifest.name : config.name;
}

std::string state_folder_to_read(const Config& config) {
  std::string folder = state_path(config);
  if (folder.empty())
    fail(ErrorCode::kInvalidArgument, "there is no HOME to keep state in; name a folder with --state DIR");
  return folder;
}

std::string fetch_folder(const std::string& state) {
  return state + "/fetch";
}

std::string state_folder(const Config& config) {
  namespace fs = std::filesystem;
  const fs::path folder = state_folder_to_read(config);
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
