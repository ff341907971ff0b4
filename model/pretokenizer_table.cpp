#include <algorithm>
#include <array>
#include <span>
#include <string>

#include "base/error.h"
#include "model/pretokenizer.h"

// What the names in GGUF's tokenizer.ggml.pre stand for. The names are llama.cpp's (src/llama-vocab.cpp);
// each cutting is the one in the tokenizer.json of the models that the name was made for. All cuts isolate:
// what lies between two matches is a piece too, and a later pattern sees one piece at a time.
namespace caravan {

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Llama 3 and its kin differ in how many digits go together.
#define CARAVAN_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CARAVAN_SPACES R"(\s*[\r\n]+|\s+(?!\S)|\s+)"
#define CARAVAN_LLAMA3(digits) \
  CARAVAN_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)" digits R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|)" CARAVAN_SPACES
constexpr std::string_view kThreeDigits = CARAVAN_LLAMA3(R"(\p{N}{1,3})");
constexpr std::string_view kOneDigit = CARAVAN_LLAMA3(R"(\p{N})");

// Words that change case inside are two; `after` is what a word may end with.
#define CARAVAN_CASED(after, digits)                                                                  \
  R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)" after             \
  R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" after "|" digits \
  R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" CARAVAN_SPACES
constexpr std::string_view kTekken = CARAVAN_CASED("", R"(\p{N})");
constexpr std::string_view kGpt4o = CARAVAN_CASED(CARAVAN_CONTRACTIONS "?", R"(\p{N}{1,3})");

constexpr std::string_view kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    CARAVAN_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|)" CARAVAN_SPACES;

constexpr std::string_view kPunctuation = R"([\p{P}$+<=>^~|]+)";
constexpr std::string_view kFalconPunctuation = R"([\p{P}$+<=>^~|`]+)";
constexpr std::string_view kThreeAsciiDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kUpToThreeDigits = R"(\p{N}{1,3})";
// Everything but spaces and the full stops and commas of several scripts.
constexpr std::string_view kBloom = R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+)";

constexpr std::string_view kLineEnd = R"([\r\n])";
// The letters that have case, as of the Unicode version that DeepSeek's file was made with.
constexpr std::string_view kDeepSeekLetters =
    R"(\s?[)"
    R"(A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293})"
    R"(\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a})"
    R"(\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556})"
    R"(\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf})"
    R"(\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d})"
    R"(\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-)"
    R"(\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc})"
    R"(\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc})"
    R"(\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128})"
    R"(\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e})"
    R"(\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3})"
    R"(\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e})"
    R"(\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a})"
    R"(\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-)"
    R"(\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943})"
    R"(]+)";
constexpr std::string_view kDeepSeekPunctuation =
    R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)";
// Spaces at the end of a piece; the look-behind keeps a long run of spaces elsewhere from being tried once
// for each.
constexpr std::string_view kSpacesAtEnd = R"((?<!\s)\s+\z)";
constexpr std::string_view kDeepSeekCjk = R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
constexpr std::string_view kDeepSeek3Cjk = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";
constexpr std::string_view kDeepSeek3Main =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|)" CARAVAN_SPACES;

constexpr std::string_view kChameleonSentinel = "<sentinel:[0-9]+>";
constexpr std::string_view kChameleonImage = "IMGIMG[A-I]{1,4}Z";
constexpr std::string_view kChameleonSpaces = R"([\t\n]|    |  )";
constexpr std::string_view kChameleonPunctuation = R"([\p{P}!-/:-@\[-`{-~])";

// Kimi: Chinese characters apart, and words that change case inside are two.
#define CARAVAN_KIMI_UPPER R"((?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]))"
#define CARAVAN_KIMI_LOWER R"((?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}]))"
constexpr std::string_view kKimi =
    R"(\p{Han}+|[^\r\n\p{L}\p{N}]?)" CARAVAN_KIMI_UPPER "*" CARAVAN_KIMI_LOWER "+" CARAVAN_CONTRACTIONS
    R"(?|[^\r\n\p{L}\p{N}]?)" CARAVAN_KIMI_UPPER "+" CARAVAN_KIMI_LOWER "*" CARAVAN_CONTRACTIONS
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" CARAVAN_SPACES;

#undef CARAVAN_KIMI_LOWER
#undef CARAVAN_KIMI_UPPER
#undef CARAVAN_CASED
#undef CARAVAN_LLAMA3
#undef CARAVAN_SPACES
#undef CARAVAN_CONTRACTIONS

struct Cutting {
  std::array<std::string_view, 6> patterns;  // empty ones are not used
  std::string_view names;                    // separated by spaces
  bool ignore_merges = false;
  bool add_bos = false;
};

const std::span<const Cutting> table() {
  static const std::array kTable = {
      Cutting{{kPunctuation, kGpt2Pattern, kDigits, kThreeAsciiDigits}, "default"},
      Cutting{{kGpt2Pattern},
              "gpt-2 gpt2 mpt olmo olmo2 jais phi-2 trillion granite-docling exaone4 gigachat a.x-4.0 mellum "
              "jina-es "
              "jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe modern-bert"},
      Cutting{
          {kThreeDigits}, "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", true, true},
      Cutting{{kThreeDigits}, "dbrx smaug-bpe glm4 chatglm-bpe"},
      Cutting{{kOneDigit}, "qwen2 deepseek-r1-qwen stablelm2 megrez hunyuan grok-2 kormo"},
      Cutting{{kDigit, kGpt2Pattern}, "starcoder refact command-r smollm codeshell exaone minerva-7b"},
      Cutting{{kFalconPunctuation, kGpt2Pattern, kThreeAsciiDigits}, "falcon"},
      Cutting{{kLineEnd, kDeepSeekLetters, kDeepSeekPunctuation, kSpacesAtEnd, kDeepSeekCjk, kDigits},
              "deepseek-llm"},
      Cutting{{kLineEnd, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekCjk, kDigit}, "deepseek-coder"},
      Cutting{{kUpToThreeDigits, kDeepSeek3Cjk, kDeepSeek3Main}, "deepseek-v3 hunyuan-dense"},
      Cutting{{kBloom}, "bloom poro-chat gpt3-finnish"},
      Cutting{{kBloom, kDigit}, "viking"},
      Cutting{{kTekken}, "tekken", true, true},
      Cutting{{kGpt4o}, "gpt-4o llama4 minimax-m2"},
      Cutting{{kBailing}, "bailingmoe bailingmoe2 llada-moe"},
      Cutting{{kSeedCoder}, "seed-coder"},
      Cutting{{kKimi}, "kimi-k2"},
      Cutting{{kChameleonSentinel, kChameleonImage, kChameleonSpaces, kDigit, kChameleonPunctuation,
               kGpt2Pattern},
              "chameleon",
              false,
              true},
  };
  return kTable;
}

// The first of `names`, which is cut off them.
std::string_view take_name(std::string_view& names) {
  const size_t end = names.find(' ');
  const std::string_view name = names.substr(0, end);
  names = end == std::string_view::npos ? std::string_view() : names.substr(end + 1);
  return name;
}

bool names_contain(std::string_view names, std::string_view name) {
  while (!names.empty()) {
    if (take_name(names) == name) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string_view> pre_tokenizer_names() {
  std::vector<std::string_view> all;
  for (const Cutting& cutting : table()) {
    for (std::string_view names = cutting.names; !names.empty();) all.push_back(take_name(names));
  }
  std::sort(all.begin(), all.end());
  return all;
}

PreTokenizer pre_tokenizer(std::string_view pre, std::string_view where) {
  for (const Cutting& cutting : table()) {
    if (!names_contain(cutting.names, pre)) continue;
    PreTokenizer made;
    made.ignore_merges = cutting.ignore_merges;
    made.add_bos = cutting.add_bos;
    for (const std::string_view pattern : cutting.patterns) {
      if (pattern.empty()) break;
      SplitStep step;
      step.pattern = pattern;
      made.splits.push_back(std::move(step));
    }
    return made;
  }
  std::string known;
  for (const std::string_view name : pre_tokenizer_names())
    known += (known.empty() ? "" : ", ") + std::string(name);
  fail(ErrorCode::kUnsupported, "{}: tokenizer.ggml.pre is '{}'; known are {}", where, pre, known);
}

}  // namespace caravan
