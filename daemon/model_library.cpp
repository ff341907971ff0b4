#include "daemon/model_library.h"

#include <filesystem>
#include <system_error>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/defaults.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

ShardStoreOptions options_for(const std::string& state, bool writable) {
  return {.name = "the store " + state + "/store", .writable = writable};
}

// Else it can only be an imported model's name.
bool is_a_path(const std::string& model) {
  std::error_code error;
  return model.empty() || std::filesystem::exists(model, error);
}

}  // namespace

RocksStore open_state_store(const std::string& state, const std::vector<std::string>& families,
                            RocksStore::Access access) {
  try {
    return RocksStore(state, families, access);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kMalformed) throw;
    throw Error(
        error.code(),
        fmt::format("{}. The way out: move the folder {}/store away and import again. Model files kept "
                    "by reference are not lost by that; copied and fetched weights are read anew, and "
                    "peers need new tickets",
                    error.message(), state));
  }
}

std::shared_ptr<ShardStore> open_shards(const std::string& state) {
  RocksStore store = open_state_store(state, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
  return open_shards(store, state);
}

std::shared_ptr<ShardStore> open_shards(RocksStore& store, const std::string& state) {
  return std::make_shared<ShardStore>(store.family(ShardStore::kRecordsFamily),
                                      store.bulk(ShardStore::kBulkFamily), options_for(state, true));
}

std::shared_ptr<const ShardStore> open_shards_to_read(const std::string& state) {
  if (!RocksStore::exists(state)) return nullptr;
  RocksStore store = open_state_store(state, {}, RocksStore::Access::kRead);
  if (!store.has(ShardStore::kRecordsFamily) || !store.has(ShardStore::kBulkFamily)) return nullptr;
  return std::make_shared<ShardStore>(store.family(ShardStore::kRecordsFamily),
                                      store.bulk(ShardStore::kBulkFamily), options_for(state, false));
}

std::optional<uint64_t> disk_limit(const Config& config, const std::string& state) {
  if (config.disk.empty()) return std::nullopt;
  std::error_code error;
  const auto space = std::filesystem::space(state, error);
  if (error) fail(ErrorCode::kIo, "{}: {}", state, error.message());
  return parse_budget("--disk", config.disk, Bytes{space.capacity}).count;
}

Manifest open_model(const std::string& model, const Config& config, const std::string& library) {
  if (is_a_path(model)) return read_manifest(model);
  const std::string state = library.empty() ? state_folder(config) : library;
  const auto store = open_shards_to_read(state);
  const auto record = store ? store->find_model(model) : std::nullopt;
  if (!record)
    fail(ErrorCode::kNotFound,
         "{}: there is no such file or folder, and no imported model of that name in {} (caravan ls lists "
         "them)",
         model, state);
  return open_record(store, *record);
}

Manifest open_model_header(const std::string& model, const Config& config) {
  return is_a_path(model) ? read_manifest_header(model) : open_model(model, config);
}

}  // namespace caravan
