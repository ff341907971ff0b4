#pragma once

#include <string_view>

#include "model/vocabulary.h"

namespace caravan {

// Hugging Face's tokenizer.json, with its tokenizer_config.json (may be empty). `name` is for messages.
// Throws kMalformed, kLimit (limits::kMaxJsonBytes, kMaxJsonDepth, kMaxVocabulary), kUnsupported (a model
// other than BPE, a normalizer or pre-tokenizer that is not known).
Vocabulary read_tokenizer_json(std::string_view tokenizer_json, std::string_view tokenizer_config_json,
                               std::string_view name);

// Takes the end tokens of generation_config.json (may be empty) into `vocabulary`: models made for chat name
// there the tokens that end a turn, besides the one that ends a text. Throws as above.
void read_generation_config(std::string_view generation_config_json, Vocabulary& vocabulary);

}  // namespace caravan
