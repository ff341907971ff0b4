#include "model/tokenizer.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/random.h"
#include "model/byte_alphabet.h"
#include "model/unicode.h"
#include "tests/model/tokenizer_support.h"
#include "tests/support/sanitized.h"

namespace caravan {
namespace {

using test::awkward_text;
using test::demo_vocabulary;

using Ids = std::vector<TokenId>;

// Ids as texts, for small vocabularies.
std::vector<std::string> texts(const Tokenizer& tokenizer, const Ids& ids) {
  std::vector<std::string> out;
  for (const TokenId id : ids) out.emplace_back(tokenizer.vocabulary().texts[id]);
  return out;
}

ErrorCode code_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::kIo;
}

void add(Vocabulary& v, std::string_view text, TokenKind kind = TokenKind::kNormal, float score = 0) {
  VocabularyToken token;
  token.kind = kind;
  token.score = score;
  v.add(text, token);
}

// Bytes for every token of one byte, then `more` with falling scores; U+2581 for spaces as SentencePiece has
// it.
Vocabulary sentence_piece(const std::vector<std::string>& more) {
  Vocabulary v;
  v.name = "test";
  v.model = Vocabulary::Model::kSentencePiece;
  v.merge_by_score = v.byte_fallback = v.strip_first_space = true;
  add(v, "<unk>", TokenKind::kUnknown);
  add(v, "<s>", TokenKind::kControl);
  add(v, "</s>", TokenKind::kControl);
  v.unknown = 0;
  v.bos = 1;
  v.eos = 2;
  for (int byte = 0; byte < 256; ++byte) {
    add(v, fmt::format("<0x{:02X}>", byte), TokenKind::kByte);
  }
  float score = 0;
  for (const std::string& text : more) add(v, text, TokenKind::kNormal, score -= 1);
  NormalizerStep prepend;
  prepend.kind = NormalizerStep::Kind::kPrepend;
  prepend.content = "\xE2\x96\x81";
  NormalizerStep spaces;
  spaces.kind = NormalizerStep::Kind::kReplace;
  spaces.pattern = " ";
  spaces.content = "\xE2\x96\x81";
  v.normalizer = {prepend, spaces};
  return v;
}

Vocabulary byte_bpe(const std::vector<std::pair<std::string, std::string>>& merges) {
  Vocabulary v;
  v.name = "test";
  v.model = Vocabulary::Model::kByteBpe;
  for (int byte = 0; byte < 256; ++byte) {
    add(v, to_byte_letters(std::string(1, static_cast<char>(byte))));
  }
  for (const auto& [left, right] : merges) {
    v.add_merge(left, right);
    add(v, left + right);
  }
  return v;
}

// The definition of byte-pair encoding, in quadratic time: of all neighbours that merge, the best rank, the
// leftmost of those, again and again.
std::vector<std::string> merge_naively(std::vector<std::string> symbols,
                                       const std::map<std::pair<std::string, std::string>, size_t>& ranks) {
  for (;;) {
    std::optional<std::pair<size_t, size_t>> best;  // rank, place
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found == ranks.end()) continue;
      const std::pair candidate(found->second, i);
      if (!best || candidate < *best) best = candidate;
    }
    if (!best) return symbols;
    symbols[best->second] += symbols[best->second + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best->second) + 1);
  }
}

TEST(Tokenizer, AgreesWithTheVectorsOfTheDemoModel) {
  const Tokenizer tokenizer(demo_vocabulary());
  const auto vectors =
      nlohmann::json::parse(test::read_file(CARAVAN_SOURCE_DIR "/tests/fixtures/tokenizer_vectors.json"));
  ASSERT_EQ(vectors["vectors"].size(), 24u);
  for (const auto& vector : vectors["vectors"]) {
    const auto text = vector["text"].get<std::string>();
    EXPECT_EQ(tokenizer.encode(text), vector["ids"].get<Ids>()) << text;
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

TEST(Tokenizer, PutsTheStartTokenOnlyWhenAsked) {
  const Tokenizer tokenizer(demo_vocabulary());
  const Ids plain = tokenizer.encode("Once upon a time");
  Ids started = tokenizer.encode("Once upon a time", {.bos = true});
  ASSERT_EQ(started.front(), tokenizer.vocabulary().bos);
  started.erase(started.begin());
  EXPECT_EQ(started, plain);
  EXPECT_EQ(tokenizer.encode("", {.bos = true}), Ids{0});
  EXPECT_EQ(tokenizer.encode(""), Ids{});
}

TEST(Tokenizer, ReadsControlTokensInATextOnlyWhenAsked) {
  const Tokenizer tokenizer(demo_vocabulary());
  const std::string text = "<|begin|><|user|>Hello<|end|>";
  const Ids special = tokenizer.encode(text, {.special = true});
  EXPECT_EQ(special.front(), 0u);
  EXPECT_EQ(special[1], 2u);
  EXPECT_EQ(special.back(), 1u);
  EXPECT_EQ(tokenizer.decode(special), "Hello");
  EXPECT_EQ(tokenizer.decode(special, true), text);
  for (const TokenId id : tokenizer.encode(text)) EXPECT_FALSE(tokenizer.is_control(id));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(Tokenizer, KnowsWhatEndsATurn) {
  Vocabulary v = byte_bpe({});
  add(v, "<|im_end|>", TokenKind::kControl);    // 256
  add(v, "<|im_start|>", TokenKind::kControl);  // 257
  add(v, "<end>", TokenKind::kControl);         // 258
  add(v, "<|eot_id|>");                         // 259: an ordinary text of that look
  v.eos = 5;
  v.more_ends = {258};
  const Tokenizer tokenizer(v);
  for (const TokenId id : {5u, 256u, 258u}) EXPECT_TRUE(tokenizer.is_end(id)) << id;
  for (const TokenId id : {4u, 257u, 259u, 260u, 1u << 31}) EXPECT_FALSE(tokenizer.is_end(id)) << id;
}

TEST(Tokenizer, ReturnsEveryTextAsItWasWhateverIsInIt) {
  const Tokenizer bytes(demo_vocabulary());
  const Tokenizer pieces(sentence_piece({"\xE2\x96\x81", "a", "e", "aa", "\xE2\x96\x81\xE2\x96\x81",
                                         "\xE2\x96\x81"
                                         "a"}));
  SeededRandom random(7);
  for (int round = 0; round < 300; ++round) {
    const std::string text = awkward_text(random, 1 + random.below(30));
    EXPECT_EQ(bytes.decode(bytes.encode(text)), text);
    // U+2581 is a space to SentencePiece; no other character is lost.
    NormalizerStep spaces;
    spaces.kind = NormalizerStep::Kind::kReplace;
    spaces.pattern = "\xE2\x96\x81";
    spaces.content = " ";
    EXPECT_EQ(pieces.decode(pieces.encode(text)), normalize(spaces, text));
  }
}

TEST(Tokenizer, TakesBrokenUtf8AsReplacementCharacters) {
  const Tokenizer tokenizer(demo_vocabulary());
  SeededRandom random(11);
  for (int round = 0; round < 300; ++round) {
    std::string bytes(random.below(40), '\0');
    for (char& byte : bytes)
      byte = static_cast<char>(random.below(3) ? 0x80 + random.below(128) : random.below(128));
    const std::string text = to_valid_utf8(bytes);
    EXPECT_TRUE(is_valid_utf8(text));
    EXPECT_EQ(tokenizer.encode(bytes), tokenizer.encode(text));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), text);
  }
}

TEST(Tokenizer, MergesAsTheDefinitionSays) {
  SeededRandom random(3);
  for (int round = 0; round < 200; ++round) {
    // Merges made of earlier results, so that ranks and lengths come in every order.
    std::vector<std::string> known = {"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    std::map<std::pair<std::string, std::string>, size_t> ranks;
    std::map<std::string, bool> made;
    for (int i = 0; i < 12; ++i) {
      const std::pair pair(known[random.below(known.size())], known[random.below(known.size())]);
      if (made[pair.first + pair.second]) continue;
      made[pair.first + pair.second] = true;
      ranks.emplace(pair, merges.size());
      merges.push_back(pair);
      known.push_back(pair.first + pair.second);
    }
    const Tokenizer tokenizer(byte_bpe(merges));
    for (int i = 0; i < 10; ++i) {
      std::vector<std::string> letters(random.below(30));
      std::string text;
      for (std::string& letter : letters)
        text += letter = std::string(1, static_cast<char>('a' + random.below(3)));
      EXPECT_EQ(texts(tokenizer, tokenizer.encode(text)), merge_naively(letters, ranks)) << text;
    }
  }
}

TEST(Tokenizer, MergesByScoreWhereAFileHasNoMerges) {
  const std::string space = "\xE2\x96\x81";
  // "bc" has the better score, so "abc" is cut as a|bc and never becomes ab|c.
  const Tokenizer tokenizer(sentence_piece({"bc", "ab", "a", "b", "c", space}));
  EXPECT_EQ(texts(tokenizer, tokenizer.encode("abc")), (std::vector<std::string>{space, "a", "bc"}));
  EXPECT_EQ(texts(tokenizer, tokenizer.encode("ab c")), (std::vector<std::string>{space, "ab", space, "c"}));
  // What has no token becomes its bytes.
  EXPECT_EQ(texts(tokenizer, tokenizer.encode("\xC3\xA9")),
            (std::vector<std::string>{space, "<0xC3>", "<0xA9>"}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("\xC3\xA9 abc")), "\xC3\xA9 abc");
}

// Texts are cut before spaces where no token reaches over one; a vocabulary in which one does must not be
// cut.
TEST(Tokenizer, CutsAtSpacesWithoutChangingTheMerges) {
  const std::string space = "\xE2\x96\x81";
  const std::vector<std::string> common = {space + "a", "b" + space,   "a",  "b",
                                           space,       space + space, "ab", "ba"};
  std::vector<std::string> cutting(common);
  cutting.erase(cutting.begin() + 1);
  SeededRandom random(5);
  for (const std::vector<std::string>& tokens : {common, cutting}) {
    const Tokenizer tokenizer(sentence_piece(tokens));
    for (int round = 0; round < 200; ++round) {
      std::vector<std::string> symbols = {space};
      std::string text;
      for (size_t i = random.below(25); i > 0; --i) {
        const std::string letter(1, "ab "[random.below(3)]);
        text += letter;
        symbols.push_back(letter == " " ? space : letter);
      }
      if (text.empty()) continue;
      std::map<std::pair<std::string, std::string>, size_t> ranks;
      for (size_t rank = 0; rank < tokens.size(); ++rank) {
        for (size_t at = 1; at < tokens[rank].size(); ++at) {
          ranks.emplace(std::pair(tokens[rank].substr(0, at), tokens[rank].substr(at)), rank);
        }
      }
      EXPECT_EQ(texts(tokenizer, tokenizer.encode(text)), merge_naively(symbols, ranks)) << text;
    }
  }
}

TEST(Tokenizer, NeverSpellsAControlTokenByMerging) {
  Vocabulary v = sentence_piece({"<", "s", ">", "<s", "s>"});
  v.tokens[1].score = 100;  // "<s>" would win every comparison
  const Tokenizer tokenizer(std::move(v));
  for (const TokenId id : tokenizer.encode("<s><s></s>")) EXPECT_FALSE(tokenizer.is_control(id));
  EXPECT_EQ(tokenizer.encode("<s>", {.special = true}), Ids{1});
}

TEST(Tokenizer, FindsUserDefinedTokensAlwaysAndTheLongestFirst) {
  Vocabulary v = byte_bpe({{"a", "b"}});
  add(v, "<x>", TokenKind::kUserDefined);   // 257
  add(v, "<x><", TokenKind::kUserDefined);  // 258
  add(v, "<c>", TokenKind::kControl);       // 259
  const Tokenizer tokenizer(std::move(v));
  EXPECT_EQ(tokenizer.encode("ab<x>ab"), (Ids{256, 257, 256}));
  EXPECT_EQ(tokenizer.encode("<x><"), Ids{258});
  EXPECT_EQ(tokenizer.encode("<c>").size(), 3u);
  EXPECT_EQ(tokenizer.encode("<c>", {.special = true}), Ids{259});
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{257, 256}), "<x>ab");
}

TEST(Tokenizer, LetsAddedTokensSwallowSpacesAndKeepToWords) {
  Vocabulary v = byte_bpe({});
  add(v, "<l>", TokenKind::kUserDefined);  // 256
  v.tokens.back().strip_left = true;
  add(v, "<r>", TokenKind::kUserDefined);  // 257
  v.tokens.back().strip_right = true;
  add(v, "cat", TokenKind::kUserDefined);  // 258
  v.tokens.back().whole_word = true;
  const Tokenizer tokenizer(std::move(v));
  const auto letter = [&](char c) { return *tokenizer.find(std::string(1, c)); };
  EXPECT_EQ(tokenizer.encode("a \t\xE2\x80\x83<l>b"), (Ids{letter('a'), 256, letter('b')}));
  EXPECT_EQ(tokenizer.encode("<r> \n b"), (Ids{257, letter('b')}));
  EXPECT_EQ(tokenizer.encode("<r>  <l>"), (Ids{257, 256}));
  EXPECT_EQ(tokenizer.encode("cat"), Ids{258});
  EXPECT_EQ(tokenizer.encode("(cat)"), (Ids{letter('('), 258, letter(')')}));
  EXPECT_EQ(tokenizer.encode("cats").size(), 4u);
  EXPECT_EQ(tokenizer
                .encode("\xC3\xA9"
                        "cat")
                .size(),
            5u);
}

TEST(Tokenizer, TakesAWholePieceThatIsATokenWhereMergesAreIgnored) {
  Vocabulary v = byte_bpe({{"a", "b"}});
  add(v, "abc");  // no merge makes it
  EXPECT_EQ(Tokenizer(v).encode("abc"), (Ids{256, *Tokenizer(v).find("c")}));
  v.ignore_merges = true;
  EXPECT_EQ(Tokenizer(v).encode("abc"), Ids{257});
}

TEST(Tokenizer, FusesUnknownCharacters) {
  Vocabulary v = sentence_piece({"\xE2\x96\x81", "a"});
  v.merge_by_score = v.byte_fallback = false;
  v.add_merge("\xE2\x96\x81", "a");
  EXPECT_EQ(Tokenizer(v).encode("xy"), (Ids{259, 0, 0}));
  v.fuse_unknown = true;
  EXPECT_EQ(Tokenizer(v).encode("xy"), (Ids{259, 0}));
}

TEST(Tokenizer, RefusesVocabulariesThatCannotBeMeant) {
  EXPECT_EQ(code_of([] { Tokenizer{Vocabulary{}}; }), ErrorCode::kMalformed);
  Vocabulary v = byte_bpe({});
  v.eos = 256;
  EXPECT_EQ(code_of([&] { Tokenizer{v}; }), ErrorCode::kMalformed);
  v = byte_bpe({});
  v.splits.emplace_back().pattern = "(";
  EXPECT_EQ(code_of([&] { Tokenizer{v}; }), ErrorCode::kUnsupported);
}

// A megabyte of one letter is one piece: with a quadratic merge this takes hours.
TEST(Tokenizer, StaysFastOnOneLongPiece) {
  const Tokenizer tokenizer(demo_vocabulary());
  const auto begin = std::chrono::steady_clock::now();
  for (const char letter : {'a', ' '}) {
    const std::string text(1u << 20, letter);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(StreamDecoder, GivesOnlyWholeCharactersAndLosesNone) {
  const Tokenizer tokenizer(demo_vocabulary());
  SeededRandom random(13);
  for (int round = 0; round < 100; ++round) {
    const std::string text = awkward_text(random, 20);
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const TokenId id : tokenizer.encode(text)) {
      const std::string part = stream.add(id);
      EXPECT_TRUE(is_valid_utf8(part));
      streamed += part;
    }
    EXPECT_EQ(streamed + stream.finish(), text);
  }
}

TEST(StreamDecoder, TurnsWhatNeverBecomesACharacterIntoOneReplacement) {
  const Tokenizer tokenizer(byte_bpe({}));
  const auto byte = [&](uint8_t value) {
    return *tokenizer.find(to_byte_letters(std::string(1, static_cast<char>(value))));
  };
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.add(byte(0xF0)), "");
  EXPECT_EQ(stream.add(byte(0x9F)), "");
  EXPECT_EQ(stream.add(byte('a')),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(stream.add(byte(0xE2)), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, DropsTheFirstSpaceOnlyOfAnOpeningStream) {
  const std::string space = "\xE2\x96\x81";
  const Tokenizer tokenizer(sentence_piece({space + "a", space, "a"}));
  const TokenId word = *tokenizer.find(space + "a");
  StreamDecoder opening(tokenizer, {.opening = true});
  EXPECT_EQ(opening.add(1), "");
  EXPECT_EQ(opening.add(word), "a");
  EXPECT_EQ(opening.add(word), " a");
  StreamDecoder going_on(tokenizer);
  EXPECT_EQ(going_on.add(word), " a");
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{1, word, word}), "a a");
}

// Bytes that the heap holds; 0 where the allocator does not say (under sanitizers).
uint64_t heap_bytes() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  if (test::kSanitized) return 0;
  const auto heap = ::mallinfo2();
  return heap.uordblks + heap.hblkhd;
#else
  return 0;
#endif
}

// What a tokenizer of it says that it takes of memory is what it takes.
void expect_honest(const std::function<Vocabulary()>& make) {
  const uint64_t before = heap_bytes();
  const Tokenizer tokenizer(make());
  const uint64_t taken = heap_bytes() - before;
  const uint64_t told = tokenizer.memory().count;
  EXPECT_GT(told, tokenizer.size() * 16);
  EXPECT_LT(told, tokenizer.size() * 150);
  if (taken == 0) return;
  // Compiled patterns and the allocator's own bytes are beside it; they do not grow with the vocabulary.
  EXPECT_GE(told + (128 << 10), taken);
  EXPECT_LE(told, taken + taken * 3 / 10);
}

TEST(Tokenizer, TellsWhatItTakesOfMemory) {
  constexpr size_t kTokens = 60000;
  const auto word = [](size_t i) { return fmt::format("{:x}", i * 2654435761u); };
  expect_honest([&] {
    std::vector<std::pair<std::string, std::string>> merges;
    for (size_t i = 0; i < kTokens; ++i) merges.emplace_back(word(i), word(i + 1));
    return byte_bpe(merges);
  });
  expect_honest([&] {
    std::vector<std::string> words;
    for (size_t i = 0; i < kTokens; ++i) words.push_back(word(i));
    return sentence_piece(words);
  });
  // Every token looked for in the text, and a long template.
  expect_honest([&] {
    Vocabulary v = byte_bpe({});
    for (size_t i = 0; i < kTokens; ++i) add(v, word(i), TokenKind::kUserDefined);
    v.chat_template.assign(1 << 20, 'x');
    return v;
  });
}

}  // namespace
}  // namespace caravan
