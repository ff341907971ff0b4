#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "shards/manifest.h"

namespace caravan {

// Told to the user: what was left out or done another way.
using Note = std::function<void(const std::string& message)>;

// What a Hugging Face model's facts are in GGUF's spelling: hyper-parameters, rope scaling, tokenizer,
// special ids, chat template.
struct GgufFacts {
  Metadata metadata;
  // Rows of query and key projections are reordered from rotary halves to neighbouring pairs.
  bool interleaved = false;
  uint32_t heads = 0, kv_heads = 0;
  // llama3 scaling, which GGUF has as a tensor: one divisor a frequency. Else empty.
  std::vector<float> rope_divisors;
};

// Throws kUnsupported for a family or a setting that GGUF has no words for, kMalformed for missing keys.
GgufFacts gguf_facts(const Manifest& hugging_face, const Note& note);

// Adds tokenizer.* keys from the folder's tokenizer files; `vocabulary` tokens, padded with unused ones. A
// note and no keys when the folder has no tokenizer.json. Throws kUnsupported for one that GGUF readers would
// not understand.
void add_tokenizer_facts(const Manifest& hugging_face, uint32_t vocabulary, const Note& note,
                         Metadata& metadata);

}  // namespace caravan
