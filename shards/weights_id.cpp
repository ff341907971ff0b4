#include "shards/weights_id.h"

#include <sys/stat.h>

#include <string>

#include "base/hash.h"
#include "base/source.h"
#include "shards/store_source.h"

namespace caravan {

namespace {

// When the system last changed anything of the file, its contents or what is known of it: this no program
// sets, as those that copy with all times do the other.
int64_t changed_ns(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return int64_t{status.st_ctim.tv_sec} * 1'000'000'000 + status.st_ctim.tv_nsec;
}

}  // namespace

Hash256 weights_id(const Manifest& manifest) {
  Sha256 hash;
  bool by_files = false;
  for (uint32_t file = 0; manifest.source && file < manifest.source->file_count(); ++file) {
    const auto path = manifest.source->file_path(file);
    if (!path) continue;  // in a store, which looks at each read; in memory, in tests
    const FileStamp stamp = stamp_of(*path);
    hash.update(stamp.bytes).update(static_cast<uint64_t>(stamp.modified_ns));
    hash.update(static_cast<uint64_t>(changed_ns(*path)));
    by_files = true;
  }
  if (!by_files && manifest.content) return *manifest.content;
  hash.update("caravan weights by files");
  if (manifest.content) hash.update(std::as_bytes(std::span(manifest.content->bytes)));
  return hash.finish();
}

Hash256 weights_id_of(std::span<const Hash256> groups) {
  Sha256 hash;
  hash.update("caravan weights by groups");
  for (const Hash256& group : groups) hash.update(std::as_bytes(std::span(group.bytes)));
  return hash.finish();
}

}  // namespace caravan
