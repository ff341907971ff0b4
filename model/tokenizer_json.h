#pragma once

#include <string_view>

#include "model/vocabulary.h"

namespace caravan {

// Hugging Face's tokenizer.json, with its tokenizer_config.json (may be empty). `name` is for messages.
// Throws kMalformed, kLimit (limits::kMaxJsonBytes, kMaxJsonDepth, kMaxVocabulary), kUnsupported (a model
// other than BPE, a normalizer or pre-tokenizer that is not known).
Vocabulary read_tokenizer_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                               std::string_view name);

}  // namespace caravan
