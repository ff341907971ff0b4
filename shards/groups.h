#pragma once

#include <optional>
#include <string>
#include <vector>

#include "shards/manifest.h"

namespace caravan {

// A tensor as its file describes it.
struct FileTensor {
  std::string name;
  std::optional<TensorType> type;  // nothing for a type that cannot be computed with
  std::string type_name;
  std::vector<uint64_t> dimensions;  // the fastest first
  Extent extent;                     // inside its file, of the size that type and dimensions give
};

// Sorts tensors into manifest.groups by their names (shards/names.h), splits fused experts, ties the output
// to the embedding where it has none of its own, and sets layer_count; names without a place go to `ignored`.
// Reads origin, architecture, path and `tied` (the file says that an output matrix of its own is not used).
// Throws kMalformed or kUnsupported naming path, tensor and reason: shapes that are no matrix, two tensors
// for one place, layers or experts that are missing in between.
void assign_groups(Manifest& manifest, const std::vector<FileTensor>& tensors, bool tied);

}  // namespace caravan
