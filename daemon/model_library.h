#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "shards/manifest.h"
#include "shards/shard_store.h"
#include "store/rocks_store.h"

namespace caravan {

// MODEL as the user gives it: a path that is there, or else the name (or the first digits of the fingerprint)
// of a model imported into the state folder. `library`: that folder, when it is not the configuration's.
// Throws as read_manifest and open_record; kNotFound naming both when it is neither.
Manifest open_model(const std::string& model, const Config& config, const std::string& library = "");
// The same for who reads no weights: see read_manifest_header.
Manifest open_model_header(const std::string& model, const Config& config);

// The store of a state folder. Throws as RocksStore; where it is damaged, with the way out.
RocksStore open_state_store(const std::string& state, const std::vector<std::string>& families,
                            RocksStore::Access access = RocksStore::Access::kWrite);

// The shard store of a state folder. For reading it is opened beside a daemon that holds it; nothing when
// there is none yet.
std::shared_ptr<ShardStore> open_shards(const std::string& state);
// The same of a handle that is open already; its families must have been named at opening.
std::shared_ptr<ShardStore> open_shards(RocksStore& store, const std::string& state);
std::shared_ptr<const ShardStore> open_shards_to_read(const std::string& state);

// The --disk budget of the state folder's store in bytes; nothing when there is no limit.
std::optional<uint64_t> disk_limit(const Config& config, const std::string& state);

}  // namespace caravan
