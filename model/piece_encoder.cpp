#include "model/piece_encoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "model/byte_alphabet.h"
#include "model/unicode.h"

namespace caravan {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// Tokens that a text of its own can become.
bool is_plain(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined;
}

bool crosses_space(std::string_view text) {
  for (size_t at = text.find(kSpaceMark); at != std::string_view::npos; at = text.find(kSpaceMark, at + 1)) {
    if (at > 0 && !text.substr(0, at).ends_with(kSpaceMark)) return true;
  }
  return false;
}

}  // namespace

int byte_token_value(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

PieceEncoder::PieceEncoder(const Vocabulary& vocabulary, const TextList& pieces)
    : vocabulary_(vocabulary),
      by_bytes_(vocabulary.model == Vocabulary::Model::kByteBpe),
      by_score_(!by_bytes_ && vocabulary.merge_by_score),
      texts_(by_bytes_ ? pieces : vocabulary.texts),
      index_(vocabulary.tokens.size()),
      merges_(by_score_ ? 0 : vocabulary.merges.size() / 2) {
  byte_symbols_.fill(bpe::kNoSymbol);
  index_tokens();
  if (by_score_) {
    index_scores();
  } else {
    index_merges();
  }
  cuts_before_space_ = find_cuts();
  more_texts_.shrink_to_fit();
  more_symbols_.shrink_to_fit();
}

Bytes PieceEncoder::memory() const {
  const Bytes numbers{(more_symbols_.capacity() + ranks_.capacity()) * sizeof(uint32_t)};
  return index_.memory() + more_texts_.memory() + merges_.memory() + numbers;
}

void PieceEncoder::index_tokens() {
  const std::vector<VocabularyToken>& tokens = vocabulary_.tokens;
  symbol_count_ = static_cast<uint32_t>(tokens.size());
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    const std::string_view spelling = vocabulary_.texts[id];
    const int byte = by_bytes_ ? -1 : byte_token_value(spelling);
    if (byte >= 0 && tokens[id].kind == TokenKind::kByte) byte_symbols_[static_cast<size_t>(byte)] = id;
    if (!is_plain(tokens[id].kind) || spelling.empty()) continue;
    const std::optional<std::string> bytes =
        by_bytes_ ? from_byte_letters(spelling) : std::optional<std::string>();
    if (by_bytes_ && !bytes) continue;
    add_token(bytes ? *bytes : spelling, id);
  }
  if (!by_bytes_) return;
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto letter = static_cast<char>(byte);
    byte_symbols_[byte] = intern({&letter, 1});
  }
}

std::string_view PieceEncoder::text_of(uint32_t number) const {
  return number < texts_.size() ? texts_[number] : more_texts_[number - texts_.size()];
}

bool PieceEncoder::add_text(std::string_view text, uint32_t number) {
  return index_.add(text, number, [this](uint32_t of) { return text_of(of); });
}

void PieceEncoder::add_token(std::string_view text, TokenId id) {
  bool added = false;
  if (text == texts_[id]) {
    added = add_text(text, id);
  } else if (lookup(text) == bpe::kNoSymbol) {
    added = add_more(text, id);
  }
  if (added) longest_ = std::max(longest_, text.size());
}

bool PieceEncoder::add_more(std::string_view text, uint32_t symbol) {
  const auto number = static_cast<uint32_t>(texts_.size() + more_texts_.size());
  more_texts_.push_back(text);
  more_symbols_.push_back(symbol);
  return add_text(text, number);
}

uint32_t PieceEncoder::intern(std::string_view text) {
  const uint32_t symbol = lookup(text);
  if (symbol != bpe::kNoSymbol) return symbol;
  add_more(text, symbol_count_);
  return symbol_count_++;
}

uint32_t PieceEncoder::lookup(std::string_view text) const {
  const uint32_t number = index_.find(text, [this](uint32_t of) { return text_of(of); });
  static_assert(TextIndex::kNone == bpe::kNoSymbol);
  return number < texts_.size() || number == TextIndex::kNone ? number
                                                              : more_symbols_[number - texts_.size()];
}

void PieceEncoder::index_merges() {
  const auto bytes_of = [this](std::string_view text) {
    return by_bytes_ ? from_byte_letters(text) : std::optional<std::string>(text);
  };
  for (size_t rank = 0; rank < vocabulary_.merges.size() / 2; ++rank) {
    const std::optional<std::string> left = bytes_of(vocabulary_.merges[2 * rank]);
    const std::optional<std::string> right = bytes_of(vocabulary_.merges[2 * rank + 1]);
    // What no text can contain cannot be merged.
    if (!left || !right || left->empty() || right->empty()) continue;
    const uint32_t left_symbol = intern(*left);
    const uint32_t right_symbol = intern(*right);
    const uint32_t result = intern(*left + *right);
    merges_.add(left_symbol, right_symbol, {static_cast<uint32_t>(rank), result});
  }
}

void PieceEncoder::index_scores() {
  std::vector<std::pair<float, uint32_t>> order;
  const std::vector<VocabularyToken>& tokens = vocabulary_.tokens;
  order.reserve(tokens.size());
  for (uint32_t id = 0; id < tokens.size(); ++id) {
    const float score = tokens[id].score;
    order.emplace_back(std::isnan(score) ? -std::numeric_limits<float>::infinity() : score, id);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  ranks_.resize(tokens.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && order[i].first != order[i - 1].first) ++rank;
    ranks_[order[i].second] = rank;
  }
}

bool PieceEncoder::find_cuts() const {
  // With ignore_merges a whole piece is looked up, and fused unknowns reach over a border that has no token.
  if (by_bytes_ || vocabulary_.ignore_merges) return false;
  if (vocabulary_.fuse_unknown && lookup(kSpaceMark) == bpe::kNoSymbol) return false;
  for (size_t id = 0; id < vocabulary_.tokens.size(); ++id)
    if (is_plain(vocabulary_.tokens[id].kind) && crosses_space(texts_[id])) return false;
  return std::none_of(more_texts_.begin(), more_texts_.end(), crosses_space);
}

void PieceEncoder::start_from_bytes(std::string_view piece, std::vector<bpe::Symbol>& symbols) const {
  for (uint32_t at = 0; at < piece.size(); ++at) {
    bpe::push_symbol(symbols, at, 1, byte_symbols_[static_cast<uint8_t>(piece[at])]);
  }
}

// One symbol for each byte of a character, if every one has a token.
bool PieceEncoder::push_bytes(std::string_view piece, size_t at, size_t bytes,
                              std::vector<bpe::Symbol>& symbols) const {
  const std::string_view character = piece.substr(at, bytes);
  const auto symbol = [&](char byte) { return byte_symbols_[static_cast<uint8_t>(byte)]; };
  for (const char byte : character) {
    if (symbol(byte) == bpe::kNoSymbol) return false;
  }
  for (const char byte : character) bpe::push_symbol(symbols, static_cast<uint32_t>(at++), 1, symbol(byte));
  return true;
}

void PieceEncoder::start_from_chars(std::string_view piece, std::vector<bpe::Symbol>& symbols) const {
  bool fusing = false;
  for (size_t at = 0; at < piece.size();) {
    const size_t bytes = std::min(utf8_bytes(static_cast<uint8_t>(piece[at])), piece.size() - at);
    const uint32_t id = lookup(piece.substr(at, bytes));
    const bool unknown = id == bpe::kNoSymbol && !by_score_;
    if (unknown && vocabulary_.byte_fallback && push_bytes(piece, at, bytes, symbols)) {
      fusing = false;
    } else if (unknown && fusing) {
      symbols.back().bytes += static_cast<uint32_t>(bytes);
    } else {
      fusing = unknown && vocabulary_.fuse_unknown;
      bpe::push_symbol(symbols, static_cast<uint32_t>(at), static_cast<uint32_t>(bytes), id);
    }
    at += bytes;
  }
}

void PieceEncoder::emit(std::string_view piece, const bpe::Symbol& symbol, std::vector<TokenId>& ids) const {
  const auto tokens = static_cast<uint32_t>(vocabulary_.tokens.size());
  if (symbol.id < tokens) {
    ids.push_back(symbol.id);
    return;
  }
  const bool fall_back = by_bytes_ || vocabulary_.byte_fallback;
  for (uint32_t i = 0; fall_back && i < symbol.bytes; ++i) {
    const uint32_t id = byte_symbols_[static_cast<uint8_t>(piece[symbol.begin + i])];
    if (id < tokens) {
      ids.push_back(id);
    } else if (vocabulary_.unknown) {
      ids.push_back(*vocabulary_.unknown);
    }
  }
  if (!fall_back && vocabulary_.unknown) ids.push_back(*vocabulary_.unknown);
}

void PieceEncoder::encode(std::string_view piece, bpe::Scratch& scratch, std::vector<TokenId>& ids) const {
  const auto tokens = static_cast<uint32_t>(vocabulary_.tokens.size());
  if (vocabulary_.ignore_merges) {
    if (const uint32_t id = lookup(piece); id < tokens) {
      ids.push_back(id);
      return;
    }
  }
  scratch.symbols.clear();
  if (by_bytes_) {
    start_from_bytes(piece, scratch.symbols);
  } else {
    start_from_chars(piece, scratch.symbols);
  }
  if (by_score_) {
    bpe::merge(scratch, [&](const bpe::Symbol& left, const bpe::Symbol& right) -> std::optional<bpe::Merge> {
      const size_t bytes = size_t{left.bytes} + right.bytes;
      if (bytes > longest_) return std::nullopt;
      const uint32_t id = lookup(piece.substr(left.begin, bytes));
      if (id == bpe::kNoSymbol) return std::nullopt;
      return bpe::Merge{ranks_[id], id};
    });
  } else {
    bpe::merge(scratch, [&](const bpe::Symbol& left, const bpe::Symbol& right) {
      return merges_.find(left.id, right.id);
    });
  }
  for (const bpe::Symbol& symbol : scratch.symbols) {
    if (symbol.bytes > 0) emit(piece, symbol, ids);
  }
}

}  // namespace caravan
