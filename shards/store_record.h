#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "shards/manifest.h"

namespace caravan {

// A file as it was when its bytes were hashed.
struct FileStamp {
  std::string path;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  bool operator==(const FileStamp&) const = default;
};

// All that a manifest says without the file it came from, and by which hashes its groups are known.
struct ModelRecord {
  Hash256 fingerprint;
  bool copied = false;  // the groups' bytes are in the store; else only in the files
  Manifest manifest;    // without a source; extents are those of `files`
  std::vector<FileStamp> files;
  std::vector<Hash256> hashes;  // one a group, in the manifest's order

  const std::string& name() const { return manifest.name; }
};

// The record as other machines get it: the groups are what counts, and no path of this machine is told.
ModelRecord without_paths(ModelRecord record);

std::string encode_model_record(const ModelRecord& record);
// The bytes may come from a damaged disk or from another machine: whatever they are, the record is sound
// (every size within base/limits.h, tensors of the size that type and shape give, extents inside their files,
// groups in order), or kMalformed or kLimit is thrown, naming `where` and the reason.
ModelRecord decode_model_record(std::string_view bytes, std::string_view where);

// What the hash cache keeps of one model's files: the content hash of a group by where its bytes lie.
struct HashRecord {
  std::vector<FileStamp> files;
  // (hash of the extents, hash of the bytes)
  std::vector<std::pair<Hash256, Hash256>> groups;
};
std::string encode_hash_record(const HashRecord& record);
HashRecord decode_hash_record(std::string_view bytes, std::string_view where);

}  // namespace caravan
