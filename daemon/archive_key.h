#pragma once

#include <optional>
#include <string>

#include "base/random.h"
#include "daemon/block_tags.h"

namespace caravan {

// The head's key for the tags of archived blocks, made at the first start and kept in the state folder for
// its owner alone: with another one, nothing that was archived is found. Without one (the folder cannot be
// written, the file is damaged or open to others: a warning says why) archives are not used.
std::optional<ArchiveKey> load_archive_key(const std::string& state_folder, Random& random);

}  // namespace caravan
