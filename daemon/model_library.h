#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/config.h"
#include "base/key_value.h"
#include "shards/manifest.h"
#include "shards/shard_store.h"

namespace caravan {

// MODEL as the user gives it: a path that is there, or else the name (or the first digits of the fingerprint)
// of a model imported into the state folder. `library`: that folder, when it is not the configuration's.
// Throws as read_manifest and open_record; kNotFound naming both when it is neither.
Manifest open_model(const std::string& model, const Config& config, const std::string& library = "");
// The same for who reads no weights: see read_manifest_header.
Manifest open_model_header(const std::string& model, const Config& config);

// What a process of a ring keeps in its state folder: whom it knows, and weights by their hashes.
struct StateStores {
  std::shared_ptr<KeyValue> pins;
  std::shared_ptr<ShardStore> shards;
};
// Throws as RocksStore, at once when another process holds the folder; where the store is damaged, with the
// way out. When nothing of it is needed, a damaged one is left alone with a warning, and memory stands in.
StateStores open_state_stores(const std::string& state, bool is_needed);

// The shard store of a state folder. For reading it is opened beside a daemon that holds it; nothing when
// there is none yet. Throws as open_state_stores.
std::shared_ptr<ShardStore> open_shards(const std::string& state);
std::shared_ptr<const ShardStore> open_shards_to_read(const std::string& state);

// The --disk budget of the state folder's store in bytes; nothing when there is no limit.
std::optional<uint64_t> disk_limit(const Config& config, const std::string& state);

}  // namespace caravan
