#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "model/vocabulary.h"

namespace caravan {

// Text to token ids and back. Immutable after construction: any thread may call.
class Tokenizer {
 public:
  // Throws kMalformed (ids out of range, an empty vocabulary), kUnsupported (a pattern PCRE2 does not know).
  explicit Tokenizer(Vocabulary vocabulary);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  struct EncodeOptions {
    bool bos = false;      // the start token first, if the vocabulary has one
    bool special = false;  // control tokens written out in the text become their ids
  };
  // Bytes that are no UTF-8 count as U+FFFD, one for each maximal broken sequence, as in Unicode 15, 3.9.
  // User-defined tokens are always found. Throws kLimit when a pattern gives up on a hostile text.
  std::vector<TokenId> encode(std::string_view utf8, EncodeOptions options) const;
  std::vector<TokenId> encode(std::string_view utf8) const { return encode(utf8, EncodeOptions()); }

  // The bytes a token stands for, perhaps part of a character; nothing for control tokens unless `special`.
  // An id outside the vocabulary stands for nothing.
  std::string_view piece(TokenId id, bool special = false) const;
  // The pieces together, without the space that encoding put first. Not always UTF-8: see StreamDecoder.
  std::string decode(std::span<const TokenId> ids, bool special = false) const;

  bool is_end(TokenId id) const;      // ends a generation: eos, eot and their kin
  bool is_control(TokenId id) const;  // has no text of its own
  size_t size() const;
  // The id of a token as the file spells it: the first, looked for among all.
  std::optional<TokenId> find(std::string_view text) const;
  // The data it was made from; the merges are dropped once they are indexed.
  const Vocabulary& vocabulary() const;
  // What it holds of memory, all tables together.
  Bytes memory() const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

// Turns the tokens of one stream into valid UTF-8, holding back a character until all its bytes are there.
// One thread.
class StreamDecoder {
 public:
  struct Options {
    bool special = false;  // control tokens as text
    bool opening = false;  // the stream begins the text, so the space that encoding put first is dropped
  };
  // `tokenizer` must outlive it.
  StreamDecoder(const Tokenizer& tokenizer, Options options) : tokenizer_(&tokenizer), options_(options) {}
  explicit StreamDecoder(const Tokenizer& tokenizer) : StreamDecoder(tokenizer, Options()) {}

  // The text that `id` completes, perhaps empty; broken sequences become U+FFFD.
  std::string add(TokenId id);
  // What is still held back, as U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  Options options_;
  bool at_start_ = true;
  std::string held_;
};

}  // namespace caravan
