#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "daemon/model_text.h"
#include "daemon/prompt_codec.h"
#include "model/chat_template.h"

namespace caravan {

// PromptCodec of a model's own tokenizer and chat template. A template that does not parse counts as none,
// with its reason told when a chat is asked for.
class ModelPromptCodec final : public PromptCodec {
 public:
  // `text` outlives it.
  ModelPromptCodec(const ModelText& text, const std::string& model_name, const Clock& clock);

  std::vector<TokenId> encode(std::string_view text) const override;
  bool has_chat_template() const override { return template_.has_value(); }
  bool takes_tools() const override;
  std::vector<TokenId> encode_chat(std::string_view json) const override;
  std::string piece(TokenId id) const override;
  std::string decode(std::span<const TokenId> ids) const override;
  size_t vocabulary() const override;

 private:
  const ModelText& text_;
  const Clock& clock_;
  std::optional<ChatTemplate> template_;
  std::string no_template_;
};

}  // namespace caravan
