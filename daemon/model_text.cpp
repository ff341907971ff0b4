#include "daemon/model_text.h"

#include "base/error.h"
#include "base/source.h"
#include "model/tokenizer_json.h"
#include "model/vocabulary_gguf.h"

namespace caravan {

namespace {

Vocabulary read_vocabulary(const Manifest& manifest) {
  if (manifest.origin == Manifest::Origin::kGguf) return vocabulary_from_metadata(manifest.metadata);
  if (manifest.tokenizer_json.empty())
    fail(ErrorCode::kNotFound, "{}: there is no tokenizer.json in this folder", manifest.path);
  Vocabulary vocabulary = read_tokenizer_json(manifest.tokenizer_json, manifest.tokenizer_config_json,
                                              manifest.path + "/tokenizer.json");
  if (!manifest.generation_config_json.empty())
    read_generation_config(manifest.generation_config_json, vocabulary);
  return vocabulary;
}

}  // namespace

const Tokenizer& ModelText::need_tokenizer() const {
  if (!tokenizer) fail(ErrorCode::kUnsupported, "{}; only token ids can be used (run --ids)", no_tokenizer);
  return *tokenizer;
}

ModelText read_model_text(const Manifest& manifest) {
  ModelText text;
  try {
    text.tokenizer.emplace(read_vocabulary(manifest));
    text.chat_template = text.tokenizer->vocabulary().chat_template;
  } catch (const Error& error) {
    text.no_tokenizer = error.message();
  }
  if (!manifest.chat_template.empty()) text.chat_template = manifest.chat_template;
  return text;
}

Bytes ModelText::memory() const {
  return (tokenizer ? tokenizer->memory() : Bytes{}) + Bytes{chat_template.capacity()};
}

ModelText take_model_text(Manifest& manifest) {
  const Hash256 fingerprint = manifest.fingerprint();
  ModelText text = read_model_text(manifest);
  manifest.drop_tokenizer({fingerprint, text.memory()});
  return text;
}

Bytes text_memory(const Manifest& manifest) {
  return manifest.tokenizer_made ? manifest.tokenizer_made->memory : read_model_text(manifest).memory();
}

std::string read_text_file(const std::string& path, size_t limit_bytes) {
  const FileSource source({path});
  if (source.file_bytes(0) > limit_bytes)
    fail(ErrorCode::kLimit, "{}: {} bytes are over the limit of {}", path, source.file_bytes(0), limit_bytes);
  std::string text(source.file_bytes(0), '\0');
  source.read(0, 0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace caravan
