#include "daemon/model_prompt_codec.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"

namespace caravan {

ModelPromptCodec::ModelPromptCodec(const ModelText& text, const std::string& model_name, const Clock& clock)
    : text_(text), clock_(clock), no_template_("the model " + model_name + " has no chat template") {
  if (text.chat_template.empty()) return;
  try {
    template_.emplace(ChatTemplate::parse(text.chat_template, model_name));
  } catch (const Error& error) {
    no_template_ = "the chat template of " + model_name + " cannot be used: " + error.message();
    log_warning("chat_template_refused reason=\"{}\"", error.message());
  }
}

std::vector<TokenId> ModelPromptCodec::encode(std::string_view text) const {
  const Tokenizer& tokenizer = text_.need_tokenizer();
  return tokenizer.encode(text, {.bos = tokenizer.vocabulary().add_bos, .special = true});
}

bool ModelPromptCodec::takes_tools() const {
  return template_ && text_.chat_template.find("tools") != std::string::npos;
}

std::vector<TokenId> ModelPromptCodec::encode_chat(std::string_view json) const {
  if (!template_) fail(ErrorCode::kUnsupported, "{}", no_template_);
  const Tokenizer& tokenizer = text_.need_tokenizer();
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  auto input = nlohmann::ordered_json::parse(json, nullptr, false);
  if (!input.is_object()) fail(ErrorCode::kMalformed, "a conversation is a JSON object");
  const auto token_text = [&](std::optional<TokenId> id) {
    return id ? std::string(vocabulary.texts[*id]) : std::string();
  };
  input["bos_token"] = token_text(vocabulary.bos);
  input["eos_token"] = token_text(vocabulary.eos);
  if (!input.contains("add_generation_prompt")) input["add_generation_prompt"] = true;
  const std::string prompt = template_->render(
      input.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace), clock_.unix_seconds());
  std::vector<TokenId> ids = tokenizer.encode(prompt, {.bos = false, .special = true});
  // Templates that leave the start token to the tokenizer get it here; those that write it do not get it
  // twice.
  if (vocabulary.add_bos && vocabulary.bos && (ids.empty() || ids.front() != *vocabulary.bos))
    ids.insert(ids.begin(), *vocabulary.bos);
  return ids;
}

std::string ModelPromptCodec::piece(TokenId id) const {
  return text_.tokenizer ? std::string(text_.tokenizer->piece(id, true)) : std::string();
}

std::string ModelPromptCodec::decode(std::span<const TokenId> ids) const {
  return text_.need_tokenizer().decode(ids, true);
}

size_t ModelPromptCodec::vocabulary() const {
  return text_.tokenizer ? text_.tokenizer->size() : 0;
}

}  // namespace caravan
