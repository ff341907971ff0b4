#pragma once

#include <span>

#include "base/ids.h"
#include "shards/manifest.h"

namespace caravan {

// What stands for the bytes of a model's weights where state computed from them is kept: the hash over the
// content hashes of its groups where a store looks at them with each read (a model that was copied or
// fetched); else that, if it is known, with the sizes and times of its files, the times of change included.
// So a file that was damaged, even unnoticed, and then replaced is another one. The fingerprint does not do,
// since it takes samples alone. Throws kNotFound or kIo naming the file.
Hash256 weights_id(const Manifest& manifest);

// The first kind, of the hashes in the manifest's order.
Hash256 weights_id_of(std::span<const Hash256> groups);

}  // namespace caravan
