#pragma once

#include <string>

#include "shards/manifest.h"

namespace caravan {

// Reads a folder with config.json and model.safetensors, or the shards that model.safetensors.index.json
// names. Errors as read_manifest.
Manifest read_hugging_face(const std::string& folder);

}  // namespace caravan
