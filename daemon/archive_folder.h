#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"
#include "cache/kv_archive.h"

namespace caravan {

struct ArchiveOptions {
  std::string folder;        // empty: there is no archive
  Bytes limit;               // on disk; 0: there is none
  std::optional<Bytes> day;  // written a day, at most
  size_t most_blocks = KvArchiveIndex::kMostBlocks;
  bool unwanted = false;  // it was said that there be none
  bool on() const { return !folder.empty() && limit.count > 0; }
};

// So that the bound holds for all that lies in the folder: the archive in it goes unless it is kept, and
// those of peers (`folder`/peer-N) beyond the first so many, with a line in the log each. What another
// process has open stays.
void remove_other_archives(const std::string& folder, bool keep_own, uint32_t keep_peers);

// Whether a folder, which need not be there yet, can be made and written.
bool folder_can_be_written(const std::string& folder);

// The KV archive in a folder; a damaged one is begun anew, with a line in the log. Or null, with a line that
// says why: another process has it, it is of another version, or the folder cannot be written. Nothing is
// removed then. Any thread; takes its time.
std::unique_ptr<KvArchive> open_archive(const ArchiveOptions& options, const Clock& clock);

}  // namespace caravan
