#pragma once

#include "model/vocabulary.h"
#include "shards/metadata.h"

namespace caravan {

// The tokenizer in a GGUF file's metadata (keys tokenizer.*). Throws kMalformed, kLimit, and kUnsupported for
// models other than "llama" and "gpt2" and for cuttings that are not known.
Vocabulary vocabulary_from_metadata(const Metadata& metadata);

}  // namespace caravan
