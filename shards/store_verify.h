#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "shards/shard_store.h"

namespace caravan {

struct VerifyOptions {
  // Told bytes as they are done with; content_bytes(record.manifest) together.
  std::function<void(uint64_t bytes)> advance = nullptr;
  std::function<bool()> cancelled = nullptr;  // as ImportOptions::cancelled
  bool partial = false;                       // only the groups that the store has: of a fetched model
};

struct Finding {
  std::string group;    // of the model; or its path, when the files are other ones by their times
  std::string problem;  // naming store and chunk, or file
  std::string mended;   // how; empty when it is not
};

// Computes the SHA-256 of every group where the model has it: in the store if it was copied, else in its
// files. A group that is bad there is mended if it hashes right elsewhere: a stored one is written again from
// the original file or that of another model, and a model of files that can be had whole from the store
// becomes a copied one. What is not is noted (ShardStore::is_damaged). Of files that were touched, and have
// the same bytes, the new time is noted. What an import remembers of the hashes of files is forgotten where
// it is not so. The owner's files are never written. Throws kIo, kCancelled.
std::vector<Finding> verify_model(ShardStore& store, const ModelRecord& record, const VerifyOptions& options);

// Forgets the model and gives the space of groups back that no other copied model uses. Returns the bytes.
uint64_t remove_model(ShardStore& store, const ModelRecord& record);

}  // namespace caravan
