#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/text_list.h"

namespace caravan {

// What a token is, in the order of GGUF's tokenizer.ggml.token_type (1..6).
enum class TokenKind : uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

// What is known of a token besides its text.
struct VocabularyToken {
  float score = 0;  // of merge_by_score: the higher, the earlier it is made
  TokenKind kind = TokenKind::kNormal;
  // How a control or user-defined token is found in a text.
  bool strip_left : 1 = false;   // it swallows white space before it
  bool strip_right : 1 = false;  // and after it
  bool whole_word : 1 =
      false;  // it counts only between characters that are no letters, digits or underscores
  bool normalized : 1 = false;  // it is looked for in the normalized text
};
static_assert(sizeof(VocabularyToken) == 8, "there are hundreds of thousands");

// One rewriting of a text before it is cut.
struct NormalizerStep {
  enum class Kind : uint8_t {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStripAccents,    // drops non-spacing marks
    kStrip,           // white space at the ends that `left` and `right` name
    kReplace,         // every `pattern`, taken literally, by `content`
    kReplacePattern,  // every match of the regular expression `pattern` by `content`, taken literally
    kPrepend,         // `content` before a text that is not empty
  };
  Kind kind = Kind::kNfc;
  std::string pattern;
  std::string content;
  bool left = false;
  bool right = false;
};

// One cutting of a text into pieces, inside which merges happen.
struct SplitStep {
  enum class Kind : uint8_t {
    kPattern,      // at the matches of the regular expression `pattern`
    kLiteral,      // at the occurrences of `pattern`
    kPrefixSpace,  // no cut: a space before every piece that does not begin with one
    kMetaspace,    // spaces become `pattern`, which also opens the text as `prefix` says; cut before it if
                   // `cut`
  };
  enum class Behaviour : uint8_t { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Prefix : uint8_t { kNever, kFirst, kAlways };
  Kind kind = Kind::kPattern;
  std::string pattern;
  Behaviour behaviour = Behaviour::kIsolated;
  bool invert = false;  // what lies between the matches counts as the matches
  Prefix prefix = Prefix::kNever;
  bool cut = true;
};

// A tokenizer as data, read from GGUF metadata (model/vocabulary_gguf.h) or from tokenizer.json
// (model/tokenizer_json.h).
struct Vocabulary {
  enum class Model : uint8_t {
    kSentencePiece,  // pieces of text with byte fallback; merged by `merges`, or by score where there are
                     // none
    kByteBpe,        // byte-level BPE: every byte is a letter of GPT-2's alphabet
  };
  Model model = Model::kSentencePiece;
  std::string name;  // of the file, for messages
  std::string
      pre;  // GGUF's tokenizer.ggml.pre, such as "llama-bpe"; empty when the cutting came from elsewhere
  // By id: each as the file spells it (U+2581 for a space, GPT-2's alphabet for bytes, "<0x0A>" for a byte),
  // and what else is known of it.
  TextList texts;
  std::vector<VocabularyToken> tokens;
  TextList merges;  // left and right part of each in turn; the earlier the better
  std::vector<NormalizerStep> normalizer;
  std::vector<SplitStep> splits;

  std::optional<TokenId> bos, eos, eot, unknown, padding;
  std::vector<TokenId> more_ends;  // further tokens that end a turn
  bool add_bos = false;            // the model was trained with `bos` first
  bool add_eos = false;
  bool merge_by_score = false;     // kSentencePiece without merges: the pair that makes the best token first
  bool ignore_merges = false;      // a piece that is a token is that token, whatever the merges say
  bool byte_fallback = false;      // kSentencePiece: an unknown character becomes its bytes' tokens
  bool fuse_unknown = false;       // neighbouring unknown characters become one `unknown`
  bool strip_first_space = false;  // decoding drops the space that encoding put first

  std::string chat_template;  // may be empty

  void add(std::string_view text, VocabularyToken token = {}) {
    texts.push_back(text);
    tokens.push_back(token);
  }
  void add_merge(std::string_view left, std::string_view right) {
    merges.push_back(left);
    merges.push_back(right);
  }
};

}  // namespace caravan
