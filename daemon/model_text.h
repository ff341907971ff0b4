#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "shards/manifest.h"

namespace caravan {

// The text side of a model: its tokenizer, or why there is none, and its chat template's source.
struct ModelText {
  std::optional<Tokenizer> tokenizer;
  std::string no_tokenizer;   // the reason, when there is none
  std::string chat_template;  // empty: none

  // Throws kUnsupported with the reason when there is none.
  const Tokenizer& need_tokenizer() const;
  // What it holds of memory.
  Bytes memory() const;
};

// From GGUF metadata, or from a folder's tokenizer.json and its kin. A model without a tokenizer can still
// run token ids.
ModelText read_model_text(const Manifest& manifest);

// The same; drops from the manifest what it was made of.
ModelText take_model_text(Manifest& manifest);

// What the text side of a model takes of memory: of a manifest whose tokenizer was dropped what was noted
// then; of another one by making it, which takes tenths of a second.
Bytes text_memory(const Manifest& manifest);

// A whole file's text; throws kNotFound, kIo, kLimit.
std::string read_text_file(const std::string& path, size_t limit_bytes);

}  // namespace caravan
