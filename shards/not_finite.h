#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "shards/manifest.h"

namespace caravan {

// A tensor with a value that is infinite or no number (NaN).
struct NotFinite {
  GroupId group;
  std::string tensor;
  std::string file;  // that holds it; the model's path where the source has no files
};

// The first such tensor. Reads `most` bytes of weights at most: nothing means none among these.
std::optional<NotFinite> find_not_finite(const Manifest& manifest, Bytes most);

}  // namespace caravan
