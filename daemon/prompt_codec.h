#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace caravan {

// Between the texts of the API and the ids of the model. Immutable: any thread. Throws Error for texts it
// cannot take.
class PromptCodec {
 public:
  virtual ~PromptCodec() = default;
  // A plain prompt, with the start token where the model expects one.
  virtual std::vector<TokenId> encode(std::string_view text) const = 0;
  virtual bool has_chat_template() const = 0;
  // Whether the template does something with tool definitions.
  virtual bool takes_tools() const = 0;
  // A conversation: a JSON object with "messages" (each an object with "role" and mostly "content", a
  // string), perhaps "tools", and whatever else the template may look at.
  virtual std::vector<TokenId> encode_chat(std::string_view json) const = 0;
  // The bytes of a token, perhaps part of a character; control tokens by their names.
  virtual std::string piece(TokenId id) const = 0;
  virtual std::string decode(std::span<const TokenId> ids) const = 0;
  virtual size_t vocabulary() const = 0;
};

}  // namespace caravan
