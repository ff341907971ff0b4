#include "shards/weights_id.h"

#include "base/hash.h"
#include "base/source.h"
#include "shards/store_source.h"

namespace caravan {

Hash256 weights_id(const Manifest& manifest) {
  if (manifest.content) return *manifest.content;
  Sha256 hash;
  hash.update("caravan weights by files");
  for (uint32_t file = 0; manifest.source && file < manifest.source->file_count(); ++file) {
    const auto path = manifest.source->file_path(file);
    if (!path) continue;  // memory, in tests
    const FileStamp stamp = stamp_of(*path);
    hash.update(stamp.bytes).update(static_cast<uint64_t>(stamp.modified_ns));
  }
  return hash.finish();
}

Hash256 weights_id_of(std::span<const Hash256> groups) {
  Sha256 hash;
  hash.update("caravan weights by groups");
  for (const Hash256& group : groups) hash.update(std::as_bytes(std::span(group.bytes)));
  return hash.finish();
}

}  // namespace caravan
