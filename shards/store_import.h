#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "shards/manifest.h"
#include "shards/shard_store.h"

namespace caravan {

struct ImportOptions {
  bool copy = false;                   // the groups' bytes, too
  std::string name = {};               // empty: the manifest's
  std::optional<uint64_t> limit = {};  // bytes that the store may have: the --disk budget
  std::optional<uint64_t> free = {};   // bytes that its disk has left
  // Told bytes as they are done with; together as many as the groups have (Manifest::groups, tied ones
  // twice).
  std::function<void(uint64_t bytes)> advance = nullptr;
  // Asked often; true ends the import with kCancelled. What was acknowledged stays and is not done again.
  std::function<bool()> cancelled = nullptr;
};

struct ImportResult {
  ModelRecord record;
  uint64_t hashed_bytes = 0;  // read to be hashed; the rest was known
  uint64_t copied_bytes = 0;  // written into the store; the rest was there
  // As the model was known before by this name, if it was.
  std::optional<ModelRecord> earlier = {};
  std::string changed = {};              // how its files are not what they were; empty: they are
  std::vector<ModelRecord> others = {};  // the same content by other names
};

// Makes the model known to the store by the hashes of its groups; with `copy` its bytes come along, those
// that are not there yet, or are damaged there as far as is known. Hashes of files that are as they were are
// not computed again. Content that is known by another name has both from now on; known by this one, it keeps
// the files that it was imported from while they are as they were; a file that was written to since is
// another model, which then has the name. Throws kInvalidArgument when another model has the name or the
// manifest is not one of files, kOutOfMemory (naming the numbers) when the store would outgrow its budget or
// the disk, before anything is written; kRefused when a file changes meanwhile; kIo; kCancelled.
ImportResult import_model(ShardStore& store, const Manifest& manifest, const ImportOptions& options);

// The model's record, with the hashes of its groups: those of the store's record when it was imported, else
// of its files as import_model computes and remembers them. The store keeps no record of the model by this.
// Of the options `advance` and `cancelled` count. Throws kInvalidArgument when the manifest is neither one of
// files nor of the store; kRefused when a file changes meanwhile; kIo; kCancelled.
ModelRecord hash_model(ShardStore& store, const Manifest& manifest, const ImportOptions& options);

// Bytes of all groups: the sum that `advance` gets.
uint64_t content_bytes(const Manifest& manifest);

}  // namespace caravan
