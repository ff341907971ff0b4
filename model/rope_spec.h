#pragma once

#include "model/spec.h"
#include "shards/manifest.h"

namespace caravan {

// Rotary positions of a model from its metadata, GGUF or Hugging Face in the old and the new spelling, and
// from GGUF's rope_freqs tensor where there is one. Throws kUnsupported for an unknown scaling, kMalformed
// for numbers that no scaling can have.
RopeSpec read_rope(const Manifest& manifest, uint32_t head_width, uint32_t context);

}  // namespace caravan
