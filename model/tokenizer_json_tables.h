#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/text_list.h"

namespace caravan {

// What a tokenizer.json has by the hundred thousand, taken out while the file is parsed: as a tree of JSON it
// would need ten times its bytes. Inside model/.
struct TokenizerJsonTables {
  explicit TokenizerJsonTables(std::string_view file) : name(file) {}

  // The text of all but the tables, in whose places are an empty object and an empty list. A "vocab" that is
  // no object and "merges" that are no list stay. Throws the parser's exceptions, kMalformed (no JSON object,
  // an entry that is none) and kLimit.
  std::string parse(std::string_view text);

  std::string name;  // for messages
  // model.vocab: spellings in the file's order, with their ids.
  TextList texts;
  std::vector<TokenId> ids;
  TextList merges;  // model.merges, as in Vocabulary
};

// An id in a tokenizer file; nothing: it is no number. Throws kMalformed.
TokenId token_id_of(std::optional<uint64_t> number, std::string_view name);

}  // namespace caravan
