#pragma once

#include <string>
#include <vector>

#include "model/spec.h"
#include "shards/manifest.h"

namespace caravan {

// The spec of a model from its manifest: the family's table applied to the file's metadata, both in GGUF's
// and in Hugging Face's spelling, old and new. Throws kUnsupported for an unknown family (naming those known)
// or setting, kMalformed for metadata that is missing or out of limits.
ModelSpec read_spec(const Manifest& manifest);

// The names of the families that read_spec knows, sorted.
std::vector<std::string> known_families();
bool family_is_known(const std::string& architecture);

}  // namespace caravan
