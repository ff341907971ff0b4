#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "model/bpe.h"
#include "model/vocabulary.h"

namespace caravan {

// Turns one piece of text into tokens by merging neighbours. Immutable after construction: any thread.
//
// The smallest symbols are bytes (kByteBpe) or characters (kSentencePiece). Control, unknown and unused
// tokens are never the answer, so no text can spell a control token unless it was asked for.
class PieceEncoder {
 public:
  // `vocabulary` must outlive it and keep its tokens where they are; the merges are not needed afterwards.
  explicit PieceEncoder(const Vocabulary& vocabulary);

  // Appends the tokens of `piece` (valid UTF-8).
  void encode(std::string_view piece, bpe::Scratch& scratch, std::vector<TokenId>& ids) const;
  // No merge crosses the border before a U+2581 that follows another character, so a text may be cut there
  // without a change of its tokens.
  bool cuts_before_space() const { return cuts_before_space_; }

 private:
  void index_tokens();
  void index_merges();
  void index_scores();
  bool find_cuts() const;
  uint32_t intern(std::string text);
  uint32_t lookup(std::string_view text) const;
  void start_from_bytes(std::string_view piece, std::vector<bpe::Symbol>& symbols) const;
  void start_from_chars(std::string_view piece, std::vector<bpe::Symbol>& symbols) const;
  bool push_bytes(std::string_view piece, size_t at, size_t bytes, std::vector<bpe::Symbol>& symbols) const;
  void emit(std::string_view piece, const bpe::Symbol& symbol, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary_;
  bool by_bytes_ = false;
  bool by_score_ = false;
  bool cuts_before_space_ = false;
  // Symbols: tokens by id, then texts that only merges know. `texts_` owns what the vocabulary does not.
  std::unordered_map<std::string_view, uint32_t> symbols_;
  std::deque<std::string> texts_;
  uint32_t symbol_count_ = 0;
  bpe::MergeTable merges_;
  std::vector<uint32_t> ranks_;  // by_score_: of each token, the best score first
  size_t longest_ = 0;           // bytes of the longest token
  std::array<uint32_t, 256> byte_symbols_;
};

// The value of a token such as "<0x0A>"; -1 for other texts.
int byte_token_value(std::string_view text);

}  // namespace caravan
