#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/text_list.h"
#include "model/bpe.h"
#include "model/text_index.h"
#include "model/vocabulary.h"

namespace caravan {

// Turns one piece of text into tokens by merging neighbours. Immutable after construction: any thread.
//
// The smallest symbols are bytes (kByteBpe) or characters (kSentencePiece). Control, unknown and unused
// tokens are never the answer, so no text can spell a control token unless it was asked for.
class PieceEncoder {
 public:
  // `pieces`: the bytes of every token. Both must outlive it; the merges are not needed afterwards.
  PieceEncoder(const Vocabulary& vocabulary, const TextList& pieces);

  // Appends the tokens of `piece` (valid UTF-8).
  void encode(std::string_view piece, bpe::Scratch& scratch, std::vector<TokenId>& ids) const;
  // No merge crosses the border before a U+2581 that follows another character, so a text may be cut there
  // without a change of its tokens.
  bool cuts_before_space() const { return cuts_before_space_; }
  Bytes memory() const;

 private:
  void index_tokens();
  void index_merges();
  void index_scores();
  bool find_cuts() const;
  std::string_view text_of(uint32_t number) const;
  bool add_text(std::string_view text, uint32_t number);
  void add_token(std::string_view text, TokenId id);
  bool add_more(std::string_view text, uint32_t symbol);
  uint32_t intern(std::string_view text);
  uint32_t lookup(std::string_view text) const;
  void start_from_bytes(std::string_view piece, std::vector<bpe::Symbol>& symbols) const;
  void start_from_chars(std::string_view piece, std::vector<bpe::Symbol>& symbols) const;
  bool push_bytes(std::string_view piece, size_t at, size_t bytes, std::vector<bpe::Symbol>& symbols) const;
  void emit(std::string_view piece, const bpe::Symbol& symbol, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary_;
  bool by_bytes_ = false;
  bool by_score_ = false;
  bool cuts_before_space_ = false;
  // Symbols: tokens by id, then texts that only merges know. The index has texts by their numbers: those of
  // tokens lie in texts_, further ones in more_texts_ with their symbols beside them.
  const TextList& texts_;
  TextIndex index_;
  TextList more_texts_;
  std::vector<uint32_t> more_symbols_;
  uint32_t symbol_count_ = 0;
  bpe::MergeTable merges_;
  std::vector<uint32_t> ranks_;  // by_score_: of each token, the best score first
  size_t longest_ = 0;           // bytes of the longest token
  std::array<uint32_t, 256> byte_symbols_;
};

// The value of a token such as "<0x0A>"; -1 for other texts.
int byte_token_value(std::string_view text);

}  // namespace caravan
