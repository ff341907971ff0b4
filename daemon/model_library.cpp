#include "daemon/model_library.h"

#include <filesystem>
#include <system_error>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/defaults.h"
#include "shards/store_source.h"
#include "store/memory_bulk.h"
#include "store/memory_store.h"
#include "store/rocks_store.h"

namespace caravan {

namespace {

constexpr const char* kPinsFamily = "pins";

// Does it, and tells of damage with the way out.
template <class Open>
auto with_way_out(const std::string& state, Open&& open) {
  try {
    return open();
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

RocksStore open_state_store(const std::string& state, const std::vector<std::string>& families,
                            RocksStore::Access access = RocksStore::Access::kWrite) {
  return with_way_out(
      state, [&] { return RocksStore(state, families, access, RocksStore::Damage::kOfTablesTolerated); });
}

std::shared_ptr<ShardStore> shards_of(RocksStore& store, const std::string& state, bool writable) {
  return with_way_out(state, [&] {
    const auto records = store.family(ShardStore::kRecordsFamily);
    // Weights can be had elsewhere; what says which they are cannot. So it is looked at before it is needed.
    records->scan("", [](std::string_view, std::string_view) { return true; });
    return std::make_shared<ShardStore>(
        records, store.bulk(ShardStore::kBulkFamily),
        ShardStoreOptions{.name = "the store " + state + "/store", .writable = writable});
  });
}

// Else it can only be an imported model's name.
bool is_a_path(const std::string& model) {
  std::error_code error;
  return model.empty() || std::filesystem::exists(model, error);
}

}  // namespace

std::shared_ptr<ShardStore> open_shards(const std::string& state) {
  RocksStore store = open_state_store(state, {ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
  return shards_of(store, state, true);
}

StateStores open_state_stores(const std::string& state, bool is_needed) {
  StateStores stores;
  try {
    RocksStore store =
        open_state_store(state, {kPinsFamily, ShardStore::kRecordsFamily, ShardStore::kBulkFamily});
    stores.pins = store.family(kPinsFamily);
    stores.pins->scan("", [](std::string_view, std::string_view) { return true; });
    stores.shards = shards_of(store, state, true);
  } catch (const Error& error) {
    if (is_needed || error.code() != ErrorCode::kMalformed) throw;
    log_warning(
        "store_left_out reason=\"{}\" then=\"this process goes on without it; whom it admits, and what it "
        "hashes, is forgotten when it ends\"",
        error.message());
    stores.pins = std::make_shared<MemoryStore>();
    stores.shards =
        std::make_shared<ShardStore>(std::make_shared<MemoryStore>(), std::make_shared<MemoryBulk>(),
                                     ShardStoreOptions{.name = "the store in memory"});
  }
  return stores;
}

std::shared_ptr<const ShardStore> open_shards_to_read(const std::string& state) {
  if (!RocksStore::exists(state)) return nullptr;
  RocksStore store = open_state_store(state, {}, RocksStore::Access::kRead);
  if (!store.has(ShardStore::kRecordsFamily) || !store.has(ShardStore::kBulkFamily)) return nullptr;
  return shards_of(store, state, false);
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
  const std::string state = library.empty() ? state_folder_to_read(config) : library;
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
