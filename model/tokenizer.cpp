#include "model/tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/limits.h"
#include "model/added_tokens.h"
#include "model/byte_alphabet.h"
#include "model/piece_encoder.h"
#include "model/pretokenizer.h"
#include "model/unicode.h"

namespace caravan {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
// Pieces up to this length are remembered while one text is encoded; longer ones seldom come twice.
constexpr size_t kRememberedBytes = 32;
constexpr size_t kRememberedPieces = 1u << 16;

// Control tokens that end a turn under a name of their own, besides those that a file declares.
constexpr std::array<std::string_view, 14> kEndNames = {
    "<|eot_id|>",    "<|eom_id|>",      "<|im_end|>",      "<|end|>",
    "<end_of_turn>", "<|endoftext|>",   "<|end_of_text|>", "<|eot|>",
    "<EOT>",         "<|end_of_turn|>", "<turn|>",         "<|END_OF_TURN_TOKEN|>",
    "[/assistant]",  "<|return|>",
};

void check_vocabulary(const Vocabulary& v) {
  if (v.tokens.empty()) fail(ErrorCode::kMalformed, "{}: a vocabulary without tokens", v.name);
  if (v.tokens.size() > limits::kMaxVocabulary) {
    fail(ErrorCode::kLimit, "{}: {} tokens, more than {}", v.name, v.tokens.size(), limits::kMaxVocabulary);
  }
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const size_t bytes = v.texts[id].size();
    if (bytes > limits::kMaxTokenBytes) {
      fail(ErrorCode::kLimit, "{}: token {} has {} bytes, more than {}", v.name, id, bytes,
           limits::kMaxTokenBytes);
    }
  }
  if (v.merges.size() / 2 > limits::kMaxMetadataArray) {
    fail(ErrorCode::kLimit, "{}: {} merges, more than {}", v.name, v.merges.size() / 2,
         limits::kMaxMetadataArray);
  }
  const auto check_id = [&](std::string_view role, std::optional<TokenId> id) {
    if (id && *id >= v.tokens.size()) {
      fail(ErrorCode::kMalformed, "{}: the {} token is {}, of {} tokens", v.name, role, *id, v.tokens.size());
    }
  };
  check_id("start", v.bos);
  check_id("end", v.eos);
  check_id("end-of-turn", v.eot);
  check_id("unknown", v.unknown);
  check_id("padding", v.padding);
  for (const TokenId id : v.more_ends) check_id("end", id);
}

bool has_no_text(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
}

std::string token_bytes(const Vocabulary& vocabulary, TokenId id) {
  const std::string text(vocabulary.texts[id]);
  const TokenKind kind = vocabulary.tokens[id].kind;
  if (has_no_text(kind) || kind == TokenKind::kUnused) return text;
  if (vocabulary.model == Vocabulary::Model::kByteBpe) {
    return kind == TokenKind::kUserDefined ? text : from_byte_letters(text).value_or(text);
  }
  if (const int byte = byte_token_value(text); byte >= 0 && kind == TokenKind::kByte) {
    return std::string(1, static_cast<char>(byte));
  }
  NormalizerStep spaces;
  spaces.kind = NormalizerStep::Kind::kReplace;
  spaces.pattern = kSpaceMark;
  spaces.content = " ";
  return normalize(spaces, text);
}

TextList token_pieces(const Vocabulary& vocabulary) {
  TextList pieces;
  pieces.reserve(vocabulary.tokens.size());
  for (TokenId id = 0; id < vocabulary.tokens.size(); ++id) pieces.push_back(token_bytes(vocabulary, id));
  pieces.shrink_to_fit();
  return pieces;
}

// Rewrites a text by the vocabulary's steps.
class Normalizer {
 public:
  explicit Normalizer(const Vocabulary& vocabulary) : steps_(vocabulary.normalizer) {
    patterns_.resize(steps_.size());
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (steps_[i].kind != NormalizerStep::Kind::kReplacePattern) continue;
      patterns_[i] = std::make_unique<const Pattern>(steps_[i].pattern, vocabulary.name);
    }
  }
  bool empty() const { return steps_.empty(); }
  std::string apply(std::string_view text) const {
    std::string now(text);
    for (size_t i = 0; i < steps_.size(); ++i) {
      now = patterns_[i] ? patterns_[i]->replace_all(now, steps_[i].content) : normalize(steps_[i], now);
      check_growth(now.size());
    }
    return now;
  }

 private:
  const std::vector<NormalizerStep>& steps_;
  std::vector<std::unique_ptr<const Pattern>> patterns_;
};

}  // namespace

struct Tokenizer::State {
  explicit State(Vocabulary given);

  void index_added();
  void index_ends();
  std::optional<TokenId> find(std::string_view text) const;
  Bytes memory() const;

  Vocabulary vocabulary;
  TextList pieces;  // the bytes of every token
  PieceEncoder encoder;
  Normalizer normalizer;
  Splitter splitter;
  AddedTokens added;             // looked for in the text as it is
  AddedTokens added_normalized;  // and in the normalized text
  std::vector<bool> ends;        // by id
};

Tokenizer::State::State(Vocabulary given)
    : vocabulary(std::move(given)),
      pieces((check_vocabulary(vocabulary), token_pieces(vocabulary))),
      encoder(vocabulary, pieces),
      normalizer(vocabulary),
      splitter(std::move(vocabulary.splits), vocabulary.name) {
  vocabulary.merges.clear();
  vocabulary.texts.shrink_to_fit();
  vocabulary.tokens.shrink_to_fit();
  index_added();
  index_ends();
}

Bytes Tokenizer::State::memory() const {
  const Bytes rest{sizeof *this + vocabulary.tokens.capacity() * sizeof(VocabularyToken) +
                   ends.capacity() / 8 + vocabulary.chat_template.capacity()};
  return vocabulary.texts.memory() + pieces.memory() + encoder.memory() + added.memory() +
         added_normalized.memory() + rest;
}

void Tokenizer::State::index_added() {
  TextList texts, normalized_texts;
  std::vector<AddedTokens::Rule> rules, normalized_rules;
  for (TokenId id = 0; id < vocabulary.tokens.size(); ++id) {
    const VocabularyToken& token = vocabulary.tokens[id];
    const bool control = has_no_text(token.kind);
    if (!control && token.kind != TokenKind::kUserDefined) continue;
    const AddedTokens::Rule rule{id, control, token.strip_left, token.strip_right, token.whole_word};
    if (token.normalized && !normalizer.empty()) {
      normalized_texts.push_back(normalizer.apply(to_valid_utf8(vocabulary.texts[id])));
      normalized_rules.push_back(rule);
    } else {
      texts.push_back(vocabulary.texts[id]);
      rules.push_back(rule);
    }
  }
  added = AddedTokens(texts, rules);
  added_normalized = AddedTokens(normalized_texts, normalized_rules);
}

void Tokenizer::State::index_ends() {
  ends.resize(vocabulary.tokens.size());
  if (vocabulary.eos) ends[*vocabulary.eos] = true;
  if (vocabulary.eot) ends[*vocabulary.eot] = true;
  for (const TokenId id : vocabulary.more_ends) ends[id] = true;
  for (const std::string_view name : kEndNames) {
    const std::optional<TokenId> id = find(name);
    if (id && vocabulary.tokens[*id].kind == TokenKind::kControl) ends[*id] = true;
  }
}

std::optional<TokenId> Tokenizer::State::find(std::string_view text) const {
  if (text.empty()) return std::nullopt;
  for (TokenId id = 0; id < vocabulary.texts.size(); ++id)
    if (vocabulary.texts[id] == text) return id;
  return std::nullopt;
}

namespace {

// Encodes one text: the way from fragments to pieces to tokens, with the buffers it needs.
class Encoding {
 public:
  Encoding(const Normalizer& normalizer, const Splitter& splitter, const PieceEncoder& encoder,
           std::vector<TokenId>& ids)
      : normalizer_(normalizer), splitter_(splitter), encoder_(encoder), ids_(ids) {}

  // A text that no added token touches. `opening`: it begins the whole text.
  void add_text(std::string_view text, bool opening) {
    if (splitter_.empty()) return add_piece(text);
    pieces_.clear();
    splitter_.split(text, opening, pieces_, arena_);
    for (const std::string_view piece : pieces_) add_piece(piece);
  }
  std::string_view normalized(std::string_view text) {
    return normalizer_.empty() ? text : arena_.emplace_back(normalizer_.apply(text));
  }

 private:
  void add_piece(std::string_view piece) {
    if (!encoder_.cuts_before_space()) return add_word(piece);
    size_t begin = 0;
    for (size_t at = piece.find(kSpaceMark); at != std::string_view::npos;
         at = piece.find(kSpaceMark, at + 1)) {
      if (at == begin || piece.substr(0, at).ends_with(kSpaceMark)) continue;
      add_word(piece.substr(begin, at - begin));
      begin = at;
    }
    if (begin < piece.size()) add_word(piece.substr(begin));
  }

  void add_word(std::string_view word) {
    if (word.size() > kRememberedBytes) return encoder_.encode(word, scratch_, ids_);
    const auto found = remembered_.find(word);
    if (found != remembered_.end()) {
      const auto [begin, count] = found->second;
      for (size_t i = 0; i < count; ++i) ids_.push_back(ids_[begin + i]);
      return;
    }
    const size_t begin = ids_.size();
    encoder_.encode(word, scratch_, ids_);
    if (remembered_.size() < kRememberedPieces)
      remembered_.emplace(word, std::pair(begin, ids_.size() - begin));
  }

  const Normalizer& normalizer_;
  const Splitter& splitter_;
  const PieceEncoder& encoder_;
  std::vector<TokenId>& ids_;
  std::vector<std::string_view> pieces_;
  Splitter::Arena arena_;
  bpe::Scratch scratch_;
  // A word's tokens, as first index and count in ids_.
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> remembered_;
};

}  // namespace

Tokenizer::Tokenizer(Vocabulary vocabulary) : state_(std::make_unique<const State>(std::move(vocabulary))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<TokenId> Tokenizer::encode(std::string_view utf8, EncodeOptions options) const {
  check_growth(utf8.size());
  std::vector<TokenId> ids;
  if (options.bos && state_->vocabulary.bos) ids.push_back(*state_->vocabulary.bos);
  std::string repaired;
  if (!is_valid_utf8(utf8)) {
    repaired = to_valid_utf8(utf8);
    utf8 = repaired;
    check_growth(utf8.size());
  }
  Encoding encoding(state_->normalizer, state_->splitter, state_->encoder, ids);
  std::vector<AddedTokens::Fragment> fragments;
  std::vector<AddedTokens::Fragment> inner;
  state_->added.cut(utf8, options.special, fragments);
  bool opening = true;
  for (const AddedTokens::Fragment& fragment : fragments) {
    if (fragment.id) {
      ids.push_back(*fragment.id);
    } else {
      inner.clear();
      state_->added_normalized.cut(encoding.normalized(fragment.text), options.special, inner);
      for (const AddedTokens::Fragment& part : inner) {
        if (part.id) {
          ids.push_back(*part.id);
        } else {
          encoding.add_text(part.text, opening);
        }
        opening = false;
      }
    }
    opening = false;
  }
  return ids;
}

std::string_view Tokenizer::piece(TokenId id, bool special) const {
  if (id >= size() || (!special && is_control(id))) return {};
  return state_->pieces[id];
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool special) const {
  std::string text;
  bool strip = state_->vocabulary.strip_first_space;
  for (const TokenId id : ids) {
    std::string_view bytes = piece(id, special);
    if (strip && !bytes.empty() && !is_control(id)) {
      if (bytes.starts_with(' ')) bytes.remove_prefix(1);
      strip = false;
    }
    text += bytes;
  }
  return text;
}

bool Tokenizer::is_end(TokenId id) const {
  return id < size() && state_->ends[id];
}

bool Tokenizer::is_control(TokenId id) const {
  return id < size() && has_no_text(state_->vocabulary.tokens[id].kind);
}

size_t Tokenizer::size() const {
  return state_->vocabulary.tokens.size();
}

std::optional<TokenId> Tokenizer::find(std::string_view text) const {
  return state_->find(text);
}

Bytes Tokenizer::memory() const {
  return state_->memory();
}

const Vocabulary& Tokenizer::vocabulary() const {
  return state_->vocabulary;
}

std::string StreamDecoder::add(TokenId id) {
  std::string_view bytes = tokenizer_->piece(id, options_.special);
  if (at_start_ && !bytes.empty() && !tokenizer_->is_control(id)) {
    const bool strip = options_.opening && tokenizer_->vocabulary().strip_first_space;
    if (strip && bytes.starts_with(' ')) bytes.remove_prefix(1);
    at_start_ = false;
  }
  held_ += bytes;
  const size_t tail = incomplete_tail(held_);
  std::string text = to_valid_utf8(std::string_view(held_).substr(0, held_.size() - tail));
  held_.erase(0, held_.size() - tail);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = to_valid_utf8(held_);
  held_.clear();
  return text;
}

}  // namespace caravan
