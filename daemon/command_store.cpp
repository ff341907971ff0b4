// import, ls, verify and rm.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "daemon/commands.h"
#include "daemon/defaults.h"
#include "daemon/interruption.h"
#include "daemon/model_library.h"
#include "shards/incoming_groups.h"
#include "shards/store_import.h"
#include "shards/store_source.h"
#include "shards/store_verify.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

// Left on the disk whatever is imported, at most: the system and the logs need some.
constexpr uint64_t kDiskHeadroom = 64u << 20;
constexpr uint64_t kDiskHeadroomShare = 64;

uint64_t free_bytes(const std::string& folder) {
  std::error_code error;
  const auto space = std::filesystem::space(folder, error);
  if (error) fail(ErrorCode::kIo, "{}: {}", folder, error.message());
  const uint64_t kept = std::min<uint64_t>(kDiskHeadroom, space.capacity / kDiskHeadroomShare);
  return space.available - std::min<uint64_t>(space.available, kept);
}

std::string shown(uint64_t bytes) {
  return to_string(Bytes{bytes});
}

// How a model stands in the list.
struct Listed {
  ModelRecord record;
  std::optional<Hash256> partial = {};  // of a model whose groups come from a head: its record's hash
  size_t present = 0;                   // groups that can be read
  const char* kept() const { return partial ? "fetched" : record.copied ? "copied" : "by reference"; }
  std::string problem = {};  // why not all of them can
};

Listed look_at(const ShardStore& store, ModelRecord record) {
  Listed listed;
  if (record.copied) {
    for (const Hash256& hash : record.hashes) listed.present += store.contains(hash);
    if (listed.present < record.hashes.size()) listed.problem = "groups are missing in the store";
  } else {
    try {
      require_unchanged(record.files);
      listed.present = record.hashes.size();
    } catch (const Error& error) {
      listed.problem = error.message();
    }
  }
  listed.record = std::move(record);
  return listed;
}

// Models whose groups were fetched from a head, as far as this machine hosts them. `damaged`: those whose
// records cannot be read.
std::vector<Listed> fetched_models(const ShardStore& store, size_t* damaged = nullptr) {
  std::vector<Listed> found;
  for (const Hash256& hash : store.partial_models()) {
    try {
      Listed listed = look_at(store, store.read_record(hash));
      listed.problem.clear();  // it never has all of them
      listed.partial = hash;
      listed.record.manifest.path = "from a head";
      found.push_back(std::move(listed));
    } catch (const Error& error) {
      log_warning("{}; a peer that joins fetches it anew", error.message());
      if (damaged) ++*damaged;
    }
  }
  return found;
}

bool is_called(const ModelRecord& fetched, const std::string& name) {
  return fetched.name() == name || short_string(fetched.fingerprint) == name;
}

uint64_t unused_bytes(const ShardStore& store, const std::vector<Listed>& models) {
  std::set<Hash256> used;
  for (const Listed& model : models)
    if (model.record.copied) used.insert(model.record.hashes.begin(), model.record.hashes.end());
  for (const Listed& model : models)
    if (model.partial) used.insert(*model.partial);
  return store.unused_bytes(std::vector<Hash256>(used.begin(), used.end()));
}

void print_list_json(const std::vector<Listed>& models, uint64_t stored, uint64_t unused) {
  Json json = {{"models", Json::array()}, {"store_bytes", stored}, {"unused_bytes", unused}};
  for (const Listed& model : models) {
    const ModelRecord& record = model.record;
    json["models"].push_back({{"name", record.name()},
                              {"fingerprint", to_string(record.fingerprint)},
                              {"family", record.manifest.architecture},
                              {"bytes", record.manifest.bytes().count},
                              {"groups", {{"present", model.present}, {"total", record.hashes.size()}}},
                              {"kept", model.kept()},
                              {"path", record.manifest.path},
                              {"problem", model.problem}});
  }
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

void print_list(const std::vector<Listed>& models, uint64_t stored, uint64_t unused) {
  if (models.empty()) std::printf("no models; caravan import MODEL brings one in\n");
  size_t width = 4;
  for (const Listed& model : models) width = std::max(width, model.record.name().size());
  if (!models.empty())
    std::printf("%-*s  %-8s  %-10s  %10s  %13s  %-12s  %s\n", static_cast<int>(width), "name", "id", "family",
                "bytes", "groups", "kept", "path");
  for (const Listed& model : models) {
    const ModelRecord& record = model.record;
    const std::string groups = std::to_string(model.present) + "/" + std::to_string(record.hashes.size());
    std::printf("%-*s  %-8s  %-10s  %10s  %13s  %-12s  %s\n", static_cast<int>(width), record.name().c_str(),
                short_string(record.fingerprint).c_str(), record.manifest.architecture.c_str(),
                to_string(record.manifest.bytes()).c_str(), groups.c_str(), model.kept(),
                record.manifest.path.c_str());
    if (!model.problem.empty()) std::printf("  %s\n", model.problem.c_str());
  }
  if (stored > 0) std::printf("the store has %s on disk\n", shown(stored).c_str());
  if (unused > 0)
    std::printf(
        "%s of it belong to no model, of an import that was interrupted or a model that was removed: import "
        "again to use them, or free them with caravan rm --unused\n",
        shown(unused).c_str());
}

ModelRecord need_model(const ShardStore& store, const std::string& name) {
  auto record = store.find_model(name);
  if (!record) fail(ErrorCode::kNotFound, "there is no imported model \"{}\" (caravan ls lists them)", name);
  return std::move(*record);
}

// True when all is well or mended.
bool report(const Listed& listed, const std::vector<Finding>& findings) {
  const std::string& model = listed.record.name();
  const size_t groups = listed.record.hashes.size();
  if (listed.partial && listed.present == 0)
    std::printf("%s: none of its %zu groups is here\n", model.c_str(), groups);
  else if (findings.empty() && listed.partial)
    std::printf("%s: good, %zu of %zu groups are here\n", model.c_str(), listed.present, groups);
  else if (findings.empty())
    std::printf("%s: good\n", model.c_str());
  bool well = true;
  for (const Finding& finding : findings) {
    std::printf("%s: %s: %s\n", model.c_str(), finding.group.c_str(), finding.problem.c_str());
    if (!finding.mended.empty())
      std::printf("%s: %s: mended: %s\n", model.c_str(), finding.group.c_str(), finding.mended.c_str());
    well = well && !finding.mended.empty();
  }
  if (!well)
    std::printf(
        "%s: %s\n", model.c_str(),
        listed.partial ? "a peer that joins fetches anew what is damaged"
        : listed.record.copied
            ? "import it again from a good file, under any name: with --copy that mends what is damaged, "
              "without it caravan verify does then"
            : "import it again from a good file");
  return well;
}

// What of the model was known before, and what became of it.
void tell_known(const ImportResult& result, const std::string& asked) {
  const std::string& name = result.record.name();
  const auto path_of = [](const ModelRecord& record) { return record.manifest.path.c_str(); };
  if (const auto& earlier = result.earlier) {
    const char* const copied = result.record.copied == earlier->copied ? "" : ", and is copied now";
    std::error_code error;
    const bool same = std::filesystem::equivalent(asked, earlier->manifest.path, error);
    if (!result.changed.empty())
      std::printf("%s was here from %s (%s); its file is %s now%s\n", name.c_str(), path_of(*earlier),
                  result.changed.c_str(), path_of(result.record), copied);
    else if (same)
      std::printf("%s was here already%s\n", name.c_str(), copied);
    else
      std::printf("%s was here already, from %s, which stays its file%s; give --name to keep %s beside it\n",
                  name.c_str(), path_of(*earlier), copied, asked.c_str());
  }
  for (const ModelRecord& other : result.others)
    std::printf("%s has the same content (%s, from %s) and stays as it is\n", other.name().c_str(),
                other.copied ? "copied" : "by reference", path_of(other));
}

// Of what was fetched and never whole. Returns how many bytes that was.
uint64_t remove_unwanted_files(const std::shared_ptr<ShardStore>& store, const Config& config) {
  const std::string folder = fetch_folder(state_folder(config));
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return 0;
  try {
    return IncomingGroups(store, folder).remove_unwanted();
  } catch (const Error& failure) {
    log_warning("{}; what was fetched in part stays", failure.message());
    return 0;
  }
}

// Runs `work`; an interruption is told and becomes the exit status.
template <class Work>
int interruptible(Work work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    std::fprintf(stderr, "\n%s\n", error.what());
    return kInterrupted;
  }
}

}  // namespace

int command_import(const CommandLine& line) {
  apply_log_level(line.config);
  Interruption interruption;
  const SystemClock clock;
  const Manifest manifest = read_manifest(line.model);
  const std::string state = state_folder(line.config);
  const auto store = open_shards(state);
  ImportOptions options;
  options.copy = line.copy;
  options.name = line.config.name;
  options.limit = disk_limit(line.config, state);
  options.free = free_bytes(state);
  Progress progress(clock, line.copy ? "import" : "hash", Progress::Unit::kBytes, content_bytes(manifest),
                    standard_error_is_terminal(), standard_error());
  options.advance = [&](uint64_t bytes) { progress.advance(bytes); };
  options.cancelled = [&] { return interruption.came(); };
  return interruptible([&] {
    const ImportResult result = import_model(*store, manifest, options);
    progress.finish();
    const ModelRecord& record = result.record;
    std::printf("%s: %zu groups, %s, %s (%s read to hash, %s copied)\n", record.name().c_str(),
                record.hashes.size(), to_string(record.manifest.bytes()).c_str(),
                record.copied ? "copied" : "by reference", shown(result.hashed_bytes).c_str(),
                shown(result.copied_bytes).c_str());
    tell_known(result, manifest.path);
    return 0;
  });
}

int command_list(const CommandLine& line) {
  apply_log_level(line.config);
  const auto store = open_shards_to_read(state_folder_to_read(line.config));
  std::vector<Listed> models;
  uint64_t stored = 0, unused = 0;
  if (store) {
    for (ModelRecord& record : store->models()) models.push_back(look_at(*store, std::move(record)));
    for (Listed& fetched : fetched_models(*store)) models.push_back(std::move(fetched));
    stored = store->bytes().count;
    unused = unused_bytes(*store, models);
  }
  if (line.json)
    print_list_json(models, stored, unused);
  else
    print_list(models, stored, unused);
  return 0;
}

int command_verify(const CommandLine& line) {
  apply_log_level(line.config);
  Interruption interruption;
  const SystemClock clock;
  const auto store = open_shards(state_folder(line.config));
  std::vector<Listed> models;
  size_t damaged = 0;
  for (Listed& fetched : fetched_models(*store, &damaged))
    if (line.model.empty() || is_called(fetched.record, line.model)) models.push_back(std::move(fetched));
  if (line.model.empty())
    for (ModelRecord& record : store->models()) models.push_back({std::move(record)});
  else if (models.empty() || store->find_model(line.model))
    models.push_back({need_model(*store, line.model)});
  if (models.empty() && damaged == 0) std::printf("no models; caravan import MODEL brings one in\n");
  VerifyOptions options;
  options.cancelled = [&] { return interruption.came(); };
  return interruptible([&] {
    bool well = damaged == 0;
    for (const Listed& model : models) {
      const ModelRecord& record = model.record;
      options.partial = model.partial.has_value();
      Progress progress(clock, "verify " + record.name(), Progress::Unit::kBytes,
                        content_bytes(record.manifest), standard_error_is_terminal(), standard_error());
      options.advance = [&](uint64_t bytes) { progress.advance(bytes); };
      const std::vector<Finding> findings = verify_model(*store, record, options);
      progress.finish();
      well = report(model, findings) && well;
    }
    return well ? 0 : 1;
  });
}

int command_remove(const CommandLine& line) {
  apply_log_level(line.config);
  const auto store = open_shards(state_folder(line.config));
  if (line.model.empty() && !line.unused)
    fail(ErrorCode::kInvalidArgument, "name a model (caravan ls lists them), or give --unused");
  if (line.unused) {
    const uint64_t freed = store->sweep(ShardStore::Sweep::kAll) + remove_unwanted_files(store, line.config);
    std::printf("%s freed\n", shown(freed).c_str());
    return 0;
  }
  for (const Listed& fetched : fetched_models(*store)) {
    if (store->find_model(line.model) || !is_called(fetched.record, line.model)) continue;
    store->erase_partial(*fetched.partial);
    const uint64_t freed = store->sweep() + remove_unwanted_files(store, line.config);
    std::printf("%s is forgotten; %s freed\n", fetched.record.name().c_str(), shown(freed).c_str());
    return 0;
  }
  const ModelRecord record = need_model(*store, line.model);
  const uint64_t freed = remove_model(*store, record);
  std::printf("%s is forgotten; %s freed\n", record.name().c_str(), shown(freed).c_str());
  return 0;
}

}  // namespace caravan
